//! The byte-level BPE of `nano`'s language model.

use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

use crate::{
    model::prompt::{END_OF_ANSWER, Template},
    train::scenes::{CaptionPlan, Scene, Split, questions},
};

/// Tokens that the vocabulary may have: enough for every word of the scenes with the space
/// before it.
const MOST_TOKENS: usize = 1200;
/// Scenes whose sentences it is trained on.
const SCENES: u64 = 4000;

type Bpe = TokenizerImpl<
    ModelWrapper,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// A tokenizer trained on the sentences, questions and templates of the scenes, as the text of
/// a `tokenizer.json`. Always the same.
///
/// # Errors
///
/// What the tokenizer library says; never for these settings.
pub fn train() -> tokenizers::Result<String> {
    let mut tokenizer = Bpe::new(ModelWrapper::BPE(BPE::default()));
    let pieces = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(pieces)));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(MOST_TOKENS)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .build()
        .into();
    tokenizer.train(&mut trainer, corpus().into_iter())?;
    tokenizer.add_tokens([AddedToken::from(END_OF_ANSWER, false)])?;
    tokenizer.to_string(false)
}

fn corpus() -> Vec<String> {
    let mut lines = Vec::new();
    for template in [Template::Instruct, Template::Evaluation, Template::Chat] {
        for question in
            ["[caption] Briefly describe this image.", "[vqa] what is it?", "Describe this image."]
        {
            lines.extend(std::iter::repeat_n(template.render(&[], question), 100));
        }
    }
    for index in 0..SCENES {
        let scene = Scene::generate(Split::Train, index);
        for text in [
            CaptionPlan::canonical(&scene).render(&scene).text,
            CaptionPlan::full(&scene, index).render(&scene).text,
        ] {
            lines.push(format!(" {text}"));
            lines.push(text);
        }
        for question in questions(&scene, index) {
            lines.push(format!("[vqa] {}", question.text));
            lines.push(question.text);
            lines.push(format!(" {}", question.answer));
            lines.push(question.answer);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prompt::PhiTokenizer;

    #[test]
    fn common_words_are_one_token_and_all_text_comes_back() {
        let json = train().unwrap();
        assert_eq!(json, train().unwrap());
        let tokenizer = PhiTokenizer::from_json(&json).unwrap();
        for word in [" red", " car", " umbrella", "yes", " left"] {
            assert_eq!(tokenizer.encode(word).len(), 1, "{word}");
        }
        for text in ["a red car and zwölf größere Öfen", "###", "[vqa] what color is the cup?"]
        {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        }
        assert!(tokenizer.end_of_answer().is_some());
    }
}
