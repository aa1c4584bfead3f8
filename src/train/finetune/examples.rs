//! From records to what the language model reads and is to say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    model::prompt::{
        END_OF_ANSWER, IMAGE_PLACEHOLDER, PhiTokenizer, PromptIds, Template, caption_question,
    },
    train::{
        data::{Exchange, Place, Record},
        texts,
    },
    vlm::Turn,
};

/// The words around a picture in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// Those with which tinyfind asks later: what was learned is what is said.
    Asked,
    /// Those of the published recipe: nothing in stages 1 and 2, where captions are in lower case
    /// and without punctuation; one of four requests in stage 3; task tags in stage 4.
    Published,
}

/// What stage 3 asks for a caption; each example draws one.
const REQUESTS: [&str; 4] = [
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
];

/// One answer to learn, as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    /// The words around the picture.
    pub(super) prompt: PromptIds,
    /// The answer with its end symbol; without it where the answer was cut.
    pub(super) answer: Vec<u32>,
    /// Whether the answer was too long.
    pub(super) cut: bool,
}

/// Sizes that decide on what fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Longest sequence of the model.
    pub(super) positions: usize,
    /// Visual tokens of a picture.
    pub(super) queries: usize,
    /// Most tokens of an answer.
    pub(super) answer: usize,
}

/// How a stage words its examples.
#[derive(Debug, Clone)]
pub(super) struct Wording {
    /// Training stage, 1 to 4.
    pub(super) stage: u8,
    /// The words around a picture.
    pub(super) prompts: Prompts,
    /// Longest sequences.
    pub(super) room: Room,
    /// Phi-2's tokenizer.
    pub(super) tokenizer: PhiTokenizer,
}

impl Wording {
    /// The token that stands before every prompt: the published recipe has one, questions asked
    /// later have none.
    pub(super) fn bos(&self) -> Option<u32> {
        (self.prompts == Prompts::Published).then(|| self.tokenizer.end_of_text())
    }

    /// Ids of exchange `at` of a conversation; `draw` chooses among several ways of asking.
    /// The oldest turns are left out until the rest fits, then the answer is cut.
    ///
    /// # Errors
    ///
    /// A sentence where the exchange cannot be learned in this stage.
    pub(super) fn ids(&self, exchanges: &[Exchange], at: usize, draw: u64) -> Result<Ids, String> {
        let mut answer = self.tokenizer.encode(&self.answer(&exchanges[at]));
        let wanted = answer.len().min(self.room.answer);
        let taken = self.room.queries + usize::from(self.bos().is_some());
        let mut first = 0;
        let (prompt, room) = loop {
            let text = self.prompt(&exchanges[first..=at], draw)?;
            let prompt = self.tokenizer.split(&text).map_err(|e| e.to_string())?;
            let used = taken + prompt.left.len() + prompt.right.len();
            if used + wanted <= self.room.positions || first == at {
                break (prompt, self.room.positions.saturating_sub(used));
            }
            first += 1;
        };
        if room < 2 {
            let most = self.room.positions;
            return Err(format!("its question is longer than the model can read ({most} tokens)"));
        }
        let whole = answer.len();
        answer.truncate(wanted.min(room));
        Ok(Ids { cut: answer.len() < whole, prompt, answer })
    }

    /// The text of an answer with what ends it.
    fn answer(&self, exchange: &Exchange) -> String {
        let caption = exchange.question.is_none();
        match (self.prompts, self.stage) {
            (Prompts::Published, 1 | 2) => format!("{}\n", texts::caption(&exchange.answer)),
            (Prompts::Published, 4) if caption => {
                format!("{}{END_OF_ANSWER}", texts::caption(&exchange.answer))
            }
            _ => format!("{}{END_OF_ANSWER}", exchange.answer),
        }
    }

    /// The text around the picture for the last of `exchanges`, after the others.
    fn prompt(&self, exchanges: &[Exchange], draw: u64) -> Result<String, String> {
        let Some((last, before)) = exchanges.split_last() else { return Ok(String::new()) };
        let asked = |exchange: &Exchange| {
            exchange.question.clone().unwrap_or_else(|| caption_question(self.stage).to_owned())
        };
        if self.prompts == Prompts::Asked {
            let turn = |e: &Exchange| Turn { question: asked(e), answer: e.answer.clone() };
            let history: Vec<Turn> = before.iter().map(turn).collect();
            return Ok(Template::of_stage(self.stage).render(&history, &asked(last)));
        }
        let image = format!("<Img>{IMAGE_PLACEHOLDER}</Img> ");
        match self.stage {
            1 | 2 => match last.question {
                Some(_) => Err("stages 1 and 2 of the recipe learn from captions alone".to_owned()),
                None => Ok(IMAGE_PLACEHOLDER.to_owned()),
            },
            3 => {
                let request = REQUESTS[(draw % REQUESTS.len() as u64) as usize];
                let wrap = |at: usize, e: &Exchange| {
                    let image = if at == 0 { image.as_str() } else { "" };
                    let question = e.question.as_deref().unwrap_or(request);
                    format!("###Human: {image}{question} ###Assistant: ")
                };
                Ok(conversation(before, last, wrap))
            }
            _ => {
                let instruction = |e: &Exchange| match &e.question {
                    None => caption_question(4).to_owned(),
                    Some(question) if before.is_empty() => {
                        let question = texts::question(question);
                        if draw.is_multiple_of(2) {
                            format!("[vqa] {question}")
                        } else {
                            format!(
                                "[vqa] Based on the image, respond to this question with a short \
                                 answer: {question}"
                            )
                        }
                    }
                    Some(question) => texts::question(question),
                };
                // Later questions of a conversation stand behind the end of the text before.
                let wrap = |at: usize, e: &Exchange| {
                    let begin = if at == 0 { "" } else { "<|endoftext|>" };
                    let image = if at == 0 { image.as_str() } else { "" };
                    format!("{begin}[INST] {image}{}  [/INST]", instruction(e))
                };
                Ok(conversation(before, last, wrap))
            }
        }
    }
}

/// The turns `before` with their answers, then the `last` without its own; `wrap` words the
/// question of a turn by its number.
fn conversation(
    before: &[Exchange],
    last: &Exchange,
    wrap: impl Fn(usize, &Exchange) -> String,
) -> String {
    let mut text = String::new();
    for (at, exchange) in before.iter().enumerate() {
        text.push_str(&wrap(at, exchange));
        text.push_str(&exchange.answer);
    }
    text.push_str(&wrap(before.len(), last));
    text
}

/// One answer to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Example {
    /// Which record.
    pub(super) record: u32,
    /// Which of its exchanges.
    pub(super) exchange: u32,
    /// Which picture.
    pub(super) picture: u32,
    /// Tokens of the sequence that is fed, the picture among them.
    pub(super) tokens: u32,
    /// Tokens that are learned.
    pub(super) learned: u32,
}

/// Records with their examples.
#[derive(Debug, Clone, Default)]
pub(super) struct Examples {
    /// The records.
    pub(super) records: Vec<Record>,
    /// What is learned from them, in their order.
    pub(super) list: Vec<Example>,
    /// Answers that were cut.
    pub(super) cut: usize,
}

impl Examples {
    /// The examples of `records`, whose pictures are added to `pictures`, and the records that
    /// cannot be learned from in this stage.
    pub(super) fn new(
        records: Vec<Record>,
        wording: &Wording,
        pictures: &mut Pictures,
    ) -> (Self, Vec<(Place, String)>) {
        let mut made = Self { records: Vec::new(), list: Vec::new(), cut: 0 };
        let mut bad = Vec::new();
        for record in records {
            let at = made.records.len() as u32;
            let before = made.list.len();
            let mut reason = None;
            for exchange in 0..record.exchanges.len() {
                match wording.ids(&record.exchanges, exchange, 0) {
                    Ok(ids) => {
                        let fed = ids.prompt.left.len() + ids.prompt.right.len();
                        let tokens = fed
                            + wording.room.queries
                            + usize::from(wording.bos().is_some())
                            + ids.answer.len();
                        made.cut += usize::from(ids.cut);
                        made.list.push(Example {
                            record: at,
                            exchange: exchange as u32,
                            picture: 0,
                            tokens: tokens as u32,
                            learned: ids.answer.len() as u32,
                        });
                    }
                    Err(why) => reason = Some(why),
                }
            }
            if let Some(reason) = reason {
                bad.push((record.place, reason));
            }
            if made.list.len() > before {
                let picture = pictures.number(&record.image);
                made.list[before..].iter_mut().for_each(|e| e.picture = picture);
                made.records.push(record);
            }
        }
        (made, bad)
    }

    /// Leaves out what is about pictures that `readable` refuses; gives how many records those
    /// were.
    pub(super) fn retain(&mut self, readable: impl Fn(u32) -> bool) -> usize {
        let lost: std::collections::BTreeSet<u32> =
            self.list.iter().filter(|e| !readable(e.picture)).map(|e| e.record).collect();
        self.list.retain(|e| readable(e.picture));
        lost.len()
    }

    /// The exchanges of the record of an example.
    pub(super) fn exchanges(&self, example: &Example) -> &[Exchange] {
        &self.records[example.record as usize].exchanges
    }
}

/// Pictures, each once, in the order in which they are first named.
#[derive(Debug, Clone, Default)]
pub(super) struct Pictures {
    /// Their files.
    pub(super) paths: Vec<PathBuf>,
    numbers: std::collections::HashMap<PathBuf, u32>,
}

impl Pictures {
    fn number(&mut self, path: &PathBuf) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.paths.len() as u32;
        self.paths.push(path.clone());
        self.numbers.insert(path.clone(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn wording(stage: u8, prompts: Prompts) -> Wording {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens");
        let json = std::fs::read_to_string(folder.join("a3/phi-2/tokenizer.json")).unwrap();
        let tokenizer = PhiTokenizer::from_json(&json).unwrap();
        Wording {
            stage,
            prompts,
            room: Room { positions: 400, queries: 32, answer: 60 },
            tokenizer,
        }
    }

    fn exchange(question: &str, answer: &str) -> Exchange {
        let question = (!question.is_empty()).then(|| question.to_owned());
        Exchange { question, answer: answer.to_owned() }
    }

    /// Left, right and answer of an exchange as the ids of what is expected.
    fn expect(wording: &Wording, exchanges: &[Exchange], draw: u64, texts: [&str; 3]) {
        let ids = wording.ids(exchanges, exchanges.len() - 1, draw).unwrap();
        let [left, right, answer] = texts.map(|text| wording.tokenizer.encode(text));
        assert_eq!(ids, Ids { prompt: PromptIds { left, right }, answer, cut: false }, "{texts:?}");
    }

    #[test]
    fn the_published_words_are_those_of_each_stage() {
        let caption = [exchange("", "Two (red) Dogs.")];
        let turns = [exchange("What is it?", "A dog."), exchange("Which Colour?", "Red.")];
        for stage in [1, 2] {
            let wording = wording(stage, Prompts::Published);
            expect(&wording, &caption, 0, ["", "", "two red dogs\n"]);
            assert!(wording.ids(&turns, 0, 0).unwrap_err().contains("captions alone"));
            assert_eq!(wording.bos(), Some(wording.tokenizer.end_of_text()));
        }
        let third = wording(3, Prompts::Published);
        expect(
            &third,
            &caption,
            6,
            [
                "###Human: <Img>",
                "</Img> Please provide a detailed description of the picture. ###Assistant: ",
                "Two (red) Dogs.###",
            ],
        );
        let fourth = wording(4, Prompts::Published);
        expect(
            &fourth,
            &caption,
            0,
            [
                "[INST] <Img>",
                "</Img> [caption] Briefly describe this image.  [/INST]",
                "two red dogs###",
            ],
        );
        expect(
            &fourth,
            &turns[..1],
            0,
            ["[INST] <Img>", "</Img> [vqa] what is it?  [/INST]", "A dog.###"],
        );
        expect(
            &fourth,
            &turns[..1],
            1,
            [
                "[INST] <Img>",
                "</Img> [vqa] Based on the image, respond to this question with a short answer: \
                 what is it?  [/INST]",
                "A dog.###",
            ],
        );
        expect(
            &fourth,
            &turns,
            0,
            [
                "[INST] <Img>",
                "</Img> what is it?  [/INST]A dog.<|endoftext|>[INST] which colour?  [/INST]",
                "Red.###",
            ],
        );
    }

    #[test]
    fn asked_words_are_those_of_the_demo_with_nothing_before_them() {
        let wording = wording(3, Prompts::Asked);
        assert_eq!(wording.bos(), None);
        let turns = [exchange("What is it?", "A dog."), exchange("Which?", "Red.")];
        let text = Template::Chat
            .render(&[Turn { question: "What is it?".into(), answer: "A dog.".into() }], "Which?");
        let (left, right) = text.split_once(IMAGE_PLACEHOLDER).unwrap();
        expect(&wording, &turns, 0, [left, right, "Red.###"]);
        let text = Template::Chat.render(&[], caption_question(3));
        let (left, right) = text.split_once(IMAGE_PLACEHOLDER).unwrap();
        expect(&wording, &[exchange("", "Red.")], 0, [left, right, "Red.###"]);
    }

    #[test]
    fn what_is_too_long_loses_its_oldest_turns_and_then_its_end() {
        let mut wording = wording(3, Prompts::Asked);
        let long = "red ".repeat(80);
        let ids = wording.ids(&[exchange("", &long)], 0, 0).unwrap();
        assert!(ids.cut && ids.answer.len() == 60);
        assert_eq!(ids.answer, wording.tokenizer.encode(&long)[..60]);

        let turns =
            [exchange("first?", "one"), exchange("second?", "two"), exchange("third?", "3")];
        let last_two = wording.ids(&turns[1..], 1, 0).unwrap();
        let used = last_two.prompt.left.len() + last_two.prompt.right.len();
        wording.room.positions = used + 32 + last_two.answer.len();
        assert_eq!(wording.ids(&turns, 2, 0).unwrap(), last_two);
        wording.room.positions -= 1;
        assert_eq!(wording.ids(&turns, 2, 0).unwrap(), wording.ids(&turns[2..], 0, 0).unwrap());

        let alone = wording.ids(&turns[2..], 0, 0).unwrap();
        wording.room.positions = alone.prompt.left.len() + alone.prompt.right.len() + 32 + 1;
        assert!(wording.ids(&turns, 2, 0).unwrap_err().contains("longer than the model can read"));
    }

    #[test]
    fn records_that_share_a_picture_share_its_number() {
        let record = |line, image: &str, exchanges: Vec<Exchange>| Record {
            place: Place::Line(line),
            image: PathBuf::from(image),
            exchanges,
        };
        let records = vec![
            record(1, "a", vec![exchange("", "one")]),
            record(2, "b", vec![exchange("what?", "two"), exchange("why?", "three")]),
            record(3, "a", vec![exchange("what?", "four")]),
        ];
        let mut pictures = Pictures::default();
        let asked = wording(4, Prompts::Asked);
        let (mut made, bad) = Examples::new(records.clone(), &asked, &mut pictures);
        let numbers: Vec<u32> = made.list.iter().map(|e| e.picture).collect();
        assert_eq!((numbers, bad.len()), (vec![0, 1, 1, 0], 0));
        assert_eq!(pictures.paths, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(made.exchanges(&made.list[2])[1], exchange("why?", "three"));
        assert_eq!(made.retain(|picture| picture == 0), 1);
        assert_eq!(made.list.len(), 2);

        let first = wording(1, Prompts::Published);
        let (made, bad) = Examples::new(records, &first, &mut Pictures::default());
        assert_eq!((made.list.len(), bad.len()), (1, 2));
        assert_eq!(bad[0].0, Place::Line(2));
    }
}
