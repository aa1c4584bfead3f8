//! Tokenizers and prompt templates.
//!
//! Phi-2 reads byte-level BPE, the retrieval Q-Former BERT's WordPiece. The text left and right
//! of the picture is tokenised apart and nothing is added to it at inference: no BOS, no special
//! tokens. Templates are those of the TinyGPT-V demos and of its evaluation script, character by
//! character, trailing spaces included: each of them is a token the model was trained on.

use tokenizers::{AddedToken, Tokenizer};

use crate::vlm::Turn;

/// Stands for the picture in a prompt.
pub const IMAGE_PLACEHOLDER: &str = "<ImageHere>";

/// What ends an answer, as text.
pub const END_OF_ANSWER: &str = "###";

/// Text that Phi-2 uses as BOS, EOS and padding alike.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Why a tokenizer could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A tokenizer's description is damaged.
    #[error("the {which} tokenizer cannot be read: {reason}")]
    Tokenizer {
        /// `phi` or `bert`.
        which: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A prompt must hold the picture once.
    #[error("the prompt holds `{IMAGE_PLACEHOLDER}` {found} times, not once")]
    Placeholder {
        /// How often it does.
        found: usize,
    },
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, PromptError>;

/// Byte-level BPE of Phi-2 (`CodeGen`): adds nothing to what it is given.
#[derive(Debug, Clone)]
pub struct PhiTokenizer {
    inner: Tokenizer,
    end_of_text: u32,
    end_of_answer: Option<u32>,
}

impl PhiTokenizer {
    /// A tokenizer from the text of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// When the text is no tokenizer or lacks `<|endoftext|>`.
    pub fn from_json(json: &str) -> Result<Self> {
        let broken = |reason: String| PromptError::Tokenizer { which: "phi", reason };
        let inner: Tokenizer = json.parse().map_err(|e| broken(format!("{e}")))?;
        let end_of_text = inner
            .token_to_id(END_OF_TEXT)
            .ok_or_else(|| broken(format!("`{END_OF_TEXT}` is not in its vocabulary")))?;
        let mut made = Self { inner, end_of_text, end_of_answer: None };
        if let [id] = made.encode(END_OF_ANSWER)[..] {
            made.end_of_answer = Some(id);
        }
        Ok(made)
    }

    /// Ids of `text`, nothing added.
    ///
    /// Byte-level BPE has ids for every text; where a damaged tokenizer has none, it is none.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        ids_of(&self.inner, text)
    }

    /// Text of `ids`, `<|endoftext|>` and ids without a token left out.
    ///
    /// Spaces before punctuation and inside English contractions are closed up, as the
    /// reference tokenizer does by default.
    pub fn decode(&self, ids: &[u32]) -> String {
        let known: Vec<u32> =
            ids.iter().copied().filter(|&id| self.inner.id_to_token(id).is_some()).collect();
        close_up_spaces(&self.inner.decode(&known, true).unwrap_or_default())
    }

    /// Tokens in its vocabulary, added ones with them.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of `<|endoftext|>`: 50256 in Phi-2.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// Id of `###` where it is one token: 21017 in Phi-2.
    pub fn end_of_answer(&self) -> Option<u32> {
        self.end_of_answer
    }

    /// Ids left and right of the picture in `prompt`.
    ///
    /// # Errors
    ///
    /// When `prompt` does not hold [`IMAGE_PLACEHOLDER`] exactly once.
    pub fn split(&self, prompt: &str) -> Result<PromptIds> {
        let parts: Vec<&str> = prompt.split(IMAGE_PLACEHOLDER).collect();
        match parts[..] {
            [left, right] => Ok(PromptIds { left: self.encode(left), right: self.encode(right) }),
            _ => Err(PromptError::Placeholder { found: parts.len() - 1 }),
        }
    }
}

/// Ids of `text`; none, with a warning, where the tokenizer fails.
fn ids_of(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    match tokenizer.encode_fast(text, false) {
        Ok(encoded) => encoded.get_ids().to_vec(),
        Err(error) => {
            tracing::warn!(%error, "the model's tokenizer cannot read a text");
            Vec::new()
        }
    }
}

/// The clean-up of Hugging Face tokenizers, in its order.
fn close_up_spaces(text: &str) -> String {
    const CLOSED: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    CLOSED.iter().fold(text.to_owned(), |text, (open, closed)| text.replace(open, closed))
}

/// Token ids of a prompt around the place of its picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIds {
    /// Before the picture.
    pub left: Vec<u32>,
    /// After it.
    pub right: Vec<u32>,
}

/// `WordPiece` of bert-base-uncased with `[DEC]` as last token.
#[derive(Debug, Clone)]
pub struct BertTokenizer {
    inner: Tokenizer,
    cls: u32,
    sep: u32,
    pad: u32,
}

impl BertTokenizer {
    /// A tokenizer from the text of a `vocab.txt`: one token a line, its number the id.
    ///
    /// # Errors
    ///
    /// When one of `[UNK] [CLS] [SEP] [PAD]` is missing.
    pub fn from_vocab(vocabulary: &str) -> Result<Self> {
        let broken = |reason: String| PromptError::Tokenizer { which: "bert", reason };
        let ids: serde_json::Map<String, serde_json::Value> = vocabulary
            .lines()
            .zip(0_u32..)
            .map(|(token, id)| (token.trim_end().to_owned(), id.into()))
            .collect();
        let description = serde_json::json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": true,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": ids,
            },
        });
        let mut inner: Tokenizer =
            description.to_string().parse().map_err(|e| broken(format!("{e}")))?;
        let id = |token: &str| {
            inner
                .token_to_id(token)
                .ok_or_else(|| broken(format!("`{token}` is not in its vocabulary")))
        };
        let (cls, sep, pad) = (id("[CLS]")?, id("[SEP]")?, id("[PAD]")?);
        let special: Vec<AddedToken> = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[DEC]"]
            .into_iter()
            .filter(|token| inner.token_to_id(token).is_some())
            .map(|token| AddedToken::from(token, true))
            .collect();
        inner.add_special_tokens(special).map_err(|e| broken(e.to_string()))?;
        Ok(Self { inner, cls, sep, pad })
    }

    /// `[CLS]`, the ids of `text`, `[SEP]`: at most `max_len` in all, `[SEP]` kept.
    ///
    /// # Panics
    ///
    /// When `max_len` is below 2; never for a text: unknown words become `[UNK]`.
    pub fn encode(&self, text: &str, max_len: usize) -> Vec<u32> {
        assert!(max_len >= 2, "room for [CLS] and [SEP]");
        let words = ids_of(&self.inner, text).into_iter().take(max_len - 2);
        std::iter::once(self.cls).chain(words).chain(std::iter::once(self.sep)).collect()
    }

    /// Id of `[PAD]`.
    pub fn pad(&self) -> u32 {
        self.pad
    }
}

/// How a question is wrapped for the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// `demo.py`, stages 1 to 3: `CONV_VISION_Vicuna0`, turns parted by `###`.
    Chat,
    /// `demo_v2.py`, stage 4: `[INST]` tags.
    Instruct,
    /// `eval_vqa.py`: `###Human: ...###Assistant: ` without a system text.
    Evaluation,
}

impl Template {
    /// The template that the demo of a stage uses.
    pub fn of_stage(stage: u8) -> Self {
        if stage == 4 { Self::Instruct } else { Self::Chat }
    }

    /// The whole prompt for `question` after the turns of `history`, the picture once in it.
    ///
    /// A conversation is written as the reference writes it: the picture stands in the first
    /// question, each answer after its role.
    pub fn render(self, history: &[Turn], question: &str) -> String {
        let (system, user, assistant, separator) = match self {
            Self::Chat => (
                "Give the following image: <Img>ImageContent</Img>. You will be able to see the \
                 image once I provide it to you. Please answer my questions.###",
                "Human: ",
                "Assistant: ",
                "###",
            ),
            Self::Instruct => ("", "<s>[INST] ", " [/INST]", ""),
            Self::Evaluation => ("###", "Human: ", "Assistant: ", "###"),
        };
        let mut prompt = system.to_owned();
        let mut image = format!("<Img>{IMAGE_PLACEHOLDER}</Img> ");
        for turn in history {
            let (question, answer) = (plain(&turn.question), plain(&turn.answer));
            prompt.extend([user, &image, &question, separator, assistant, &answer, separator]);
            image.clear();
        }
        prompt.extend([user, &image, &plain(question), separator, assistant]);
        prompt
    }
}

/// What a model of a training stage is asked for a caption.
///
/// Stages 1 to 3 know the alignment prompts only; stage 4 was trained with short captions.
pub fn caption_question(stage: u8) -> &'static str {
    match stage {
        4 => "[caption] Briefly describe this image.",
        _ => "Describe this image in detail.",
    }
}

/// A person's words without what would be read as the picture or as the end of a turn.
fn plain(words: &str) -> String {
    words.replace(IMAGE_PLACEHOLDER, " ").replace(END_OF_ANSWER, " ").trim().to_owned()
}

/// The answer in `generated`: what stands before `###` and after the last `Assistant:`.
pub fn clean_answer(generated: &str) -> String {
    let answer = generated.split(END_OF_ANSWER).next().unwrap_or_default();
    let answer = answer.rsplit("Assistant:").next().unwrap_or_default();
    answer.trim().to_owned()
}

/// `caption` up to its last whole sentence, where it holds one: a caption that was cut off by
/// its token budget does not end in half a sentence.
pub fn whole_sentences(caption: &str) -> &str {
    let caption = caption.trim();
    let ends = |(at, c): (usize, char)| {
        let after = caption[at + c.len_utf8()..].chars().next();
        (matches!(c, '.' | '!' | '?') && after.is_none_or(char::is_whitespace))
            .then_some(at + c.len_utf8())
    };
    caption.char_indices().filter_map(ends).next_back().map_or(caption, |end| &caption[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n##s\n,\n[DEC]\n";

    #[test]
    fn bert_adds_cls_and_sep_and_splits_words() {
        let tokenizer = BertTokenizer::from_vocab(VOCAB).unwrap();
        assert_eq!(tokenizer.encode("A dogs, zebra", 32), [2, 4, 5, 6, 7, 1, 3]);
    }

    #[test]
    fn bert_truncation_keeps_sep_at_the_end() {
        let tokenizer = BertTokenizer::from_vocab(VOCAB).unwrap();
        assert_eq!(tokenizer.encode("a a a a a a", 4), [2, 4, 4, 3]);
    }

    #[test]
    fn bert_without_cls_is_refused() {
        let error = BertTokenizer::from_vocab("[UNK]\n[PAD]\n[SEP]\n").unwrap_err().to_string();
        assert!(error.contains("[CLS]"), "{error}");
    }

    #[test]
    fn templates_are_those_of_the_reference() {
        assert_eq!(
            Template::Chat.render(&[], "Describe this image in detail."),
            "Give the following image: <Img>ImageContent</Img>. You will be able to see the image \
             once I provide it to you. Please answer my questions.###Human: <Img><ImageHere></Img> \
             Describe this image in detail.###Assistant: "
        );
        assert_eq!(
            Template::Instruct.render(&[], "[vqa] what color is the dog"),
            "<s>[INST] <Img><ImageHere></Img> [vqa] what color is the dog [/INST]"
        );
        assert_eq!(
            Template::Evaluation.render(&[], "is it red?"),
            "###Human: <Img><ImageHere></Img> is it red?###Assistant: "
        );
    }

    #[test]
    fn a_conversation_holds_the_picture_once() {
        let turns = [
            Turn { question: "what is it?".into(), answer: "a dog".into() },
            Turn { question: "<ImageHere> which?###".into(), answer: "brown".into() },
        ];
        for template in [Template::Chat, Template::Instruct, Template::Evaluation] {
            let prompt = template.render(&turns, "how old?");
            assert_eq!(prompt.matches(IMAGE_PLACEHOLDER).count(), 1, "{prompt}");
        }
        assert_eq!(
            Template::Instruct.render(&turns[..1], "how old?"),
            "<s>[INST] <Img><ImageHere></Img> what is it? [/INST]a dog<s>[INST] how old? [/INST]"
        );
    }

    #[test]
    fn an_answer_ends_at_the_hashes_and_starts_after_the_role() {
        assert_eq!(clean_answer(" Assistant: two dogs ###Human: more"), "two dogs");
        assert_eq!(clean_answer("###"), "");
    }

    #[test]
    fn a_cut_caption_ends_with_its_last_whole_sentence() {
        assert_eq!(whole_sentences("A dog runs. It is 3.5 m from the"), "A dog runs.");
        assert_eq!(whole_sentences("a dog that runs"), "a dog that runs");
        assert_eq!(whole_sentences("Is it? Yes!"), "Is it? Yes!");
    }

    #[test]
    fn decoding_closes_up_spaces_before_punctuation() {
        assert_eq!(close_up_spaces("it 's red , is n't it ?"), "it's red, isn't it?");
    }
}
