//! Sentences about scenes as ids.

use crate::{
    model::{import::random::Random, prompt::BertTokenizer},
    train::scenes::{
        Caption, CaptionPlan, Edit, EditKind, Scene, Scrambled, corpus_words, edits, scrambled,
    },
};

/// The WordPiece vocabulary of `nano`, as the text of a `vocab.txt`: the special tokens, letters
/// and marks as pieces for words that no scene has, the words of the scenes' language, `[DEC]`.
pub fn vocabulary() -> String {
    let mut lines: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
    let marks = ('a'..='z').chain('0'..='9');
    lines.extend(marks.clone().map(|c| c.to_string()));
    lines.extend(marks.map(|c| format!("##{c}")));
    lines.extend([".", ",", ":", "?", "'", "-"].map(str::to_owned));
    for word in corpus_words() {
        if !lines.contains(&(*word).to_owned()) {
            lines.push((*word).to_owned());
        }
    }
    lines.push("[DEC]".to_owned());
    lines.join("\n") + "\n"
}

/// Sentences for the retrieval Q-Former.
#[derive(Debug, Clone)]
pub struct Words {
    tokenizer: BertTokenizer,
    most: usize,
}

impl Words {
    /// Reads sentences with `tokenizer`, of at most `most` tokens.
    pub fn new(tokenizer: BertTokenizer, most: usize) -> Self {
        Self { tokenizer, most }
    }

    /// Ids of `text`.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, self.most)
    }

    /// Sentences about each scene, chosen by `seed`.
    pub fn said(&self, scenes: &[Scene], seed: u64) -> Vec<Said> {
        scenes.iter().zip(seed..).map(|(scene, seed)| Said::about(scene, seed)).collect()
    }
}

/// Sentences about one scene.
#[derive(Debug)]
pub struct Said {
    /// One that says everything.
    pub first: Caption,
    /// One that says something, in another wording.
    pub second: Caption,
    /// The first with one fact wrong; `None` where no fact can be changed.
    pub edit: Option<Edit>,
    /// The same of the second.
    pub second_edit: Option<Edit>,
    /// The first with colours mixed up.
    pub scrambled: Option<Scrambled>,
}

impl Said {
    /// Chosen by `seed`.
    pub fn about(scene: &Scene, seed: u64) -> Self {
        let mut random = Random(seed);
        let partial = CaptionPlan::partial(scene, seed);
        let second = partial.render(scene);
        let second_edit = Self::any(edits(scene, &partial, seed ^ 0x2e), &mut Random(seed ^ 0x2e));
        // Few sentences state a relation, and few facts bind what the picture holds: both are
        // hard to learn and are sought out.
        if scene.things.len() > 1 && random.below(5) < 2 {
            for _ in 0..6 {
                let seed = random.next();
                let plan = CaptionPlan::full(scene, seed);
                let mut edits = edits(scene, &plan, seed);
                if let Some(at) = edits.iter().position(|edit| edit.kind == EditKind::Relation) {
                    let edit = Some(edits.swap_remove(at));
                    let scrambled = scrambled(scene, &plan, seed);
                    let first = plan.render(scene);
                    return Self { first, second, edit, second_edit, scrambled };
                }
            }
        }
        let plan = if random.below(4) == 0 {
            CaptionPlan::canonical(scene)
        } else {
            CaptionPlan::full(scene, seed)
        };
        let mut edits = edits(scene, &plan, seed);
        if random.below(3) == 0 && edits.iter().any(|edit| edit.kind == EditKind::ColourSwap) {
            edits.retain(|edit| edit.kind == EditKind::ColourSwap);
        }
        let edit = Self::any(edits, &mut random);
        let scrambled = scrambled(scene, &plan, seed);
        Self { first: plan.render(scene), second, edit, second_edit, scrambled }
    }

    fn any(mut edits: Vec<Edit>, random: &mut Random) -> Option<Edit> {
        let n = edits.len() as u64;
        (n > 0).then(|| edits.swap_remove(random.below(n) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::Split;

    #[test]
    fn every_word_of_a_scene_is_a_token_of_its_own() {
        let words = Words::new(BertTokenizer::from_vocab(&vocabulary()).unwrap(), 64);
        let unknown = words.ids("\u{1F600}")[1];
        for index in 0..300 {
            let scene = Scene::generate(Split::Train, index);
            let said = Said::about(&scene, index);
            let edited = said.edit.as_ref().map(|edit| &edit.caption);
            for caption in [&said.first, &said.second].into_iter().chain(edited) {
                let ids = words.ids(&caption.text);
                let runs = super::super::claims::word_ranges(&caption.text).len();
                assert_eq!(ids.len(), runs + 2, "{}", caption.text);
                assert!(!ids.contains(&unknown), "{}", caption.text);
            }
        }
    }

    #[test]
    fn what_is_said_is_true_and_its_edit_is_not() {
        let mut kinds = [0; EditKind::ALL.len()];
        for index in 0..600 {
            let scene = Scene::generate(Split::Train, index);
            let said = Said::about(&scene, index);
            assert!(said.first.is_true_of(&scene) && said.second.is_true_of(&scene));
            for edit in said.edit.iter().chain(&said.second_edit) {
                assert!(!edit.caption.is_true_of(&scene), "{}", edit.caption.text);
                kinds[edit.kind as usize] += 1;
            }
        }
        assert!(kinds.iter().all(|&n| n >= 15), "{kinds:?}");
    }
}
