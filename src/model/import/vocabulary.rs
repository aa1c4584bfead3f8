//! The two tokenizers as text: what a bundle carries instead of a folder of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::{ImportError, Result};

/// Ends a text in Phi-2's vocabulary, as in that of GPT-2.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a caption in BLIP-2's vocabulary; BERT's own lacks it.
const DEC: &str = "[DEC]";

/// A tokenizer and the files it came from.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) text: String,
    pub(super) files: Vec<PathBuf>,
}

/// Phi-2's `tokenizer.json` in `path`, that file itself, or one made from `vocab.json`,
/// `merges.txt` and `added_tokens.json`, which gives the same ids.
///
/// All ids lie below `rows`, the rows of the token table.
pub(super) fn phi(path: &Path, rows: usize) -> Result<Vocabulary> {
    let whole = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
    let (text, files) = if whole.is_file() {
        (read(&whole)?, vec![whole])
    } else {
        let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| path.join(name));
        if !vocab.is_file() || !merges.is_file() {
            let what = "it holds neither tokenizer.json nor vocab.json and merges.txt";
            return Err(ImportError::format(path, what));
        }
        let added = path.join("added_tokens.json");
        let added = added.is_file().then_some(added);
        (
            assemble(&vocab, &merges, added.as_deref())?,
            [vocab, merges].into_iter().chain(added).collect(),
        )
    };
    let broken = |what: String| ImportError::format(&files[0], what);
    let tokenizer: tokenizers::Tokenizer =
        text.parse().map_err(|e| broken(format!("it is no tokenizer: {e}")))?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
    if largest as usize >= rows {
        return Err(broken(format!("it has the id {largest}, the token table has {rows} rows")));
    }
    Ok(Vocabulary { text, files })
}

/// The text of a byte-level `tokenizer.json` as `transformers` converts `CodeGen`'s files.
fn assemble(vocab: &Path, merges: &Path, added: Option<&Path>) -> Result<String> {
    let ids = |path: &Path| -> Result<BTreeMap<String, u32>> {
        serde_json::from_str(&read(path)?)
            .map_err(|e| ImportError::format(path, format!("it is no vocabulary: {e}")))
    };
    let vocabulary = ids(vocab)?;
    let mut extra = match added {
        Some(path) => ids(path)?,
        None => BTreeMap::new(),
    };
    let end = vocabulary.get(END_OF_TEXT).copied().or_else(|| extra.remove(END_OF_TEXT));
    let end = end.ok_or_else(|| {
        ImportError::format(vocab, format!("its vocabulary lacks `{END_OF_TEXT}`"))
    })?;
    // Whitespace runs match before splitting into words; in order of id, as that decides ties.
    let mut tokens: Vec<(u32, String, bool)> = vec![(end, END_OF_TEXT.to_owned(), true)];
    tokens.extend(extra.into_iter().map(|(token, id)| (id, token, false)));
    tokens.sort_unstable();
    let tokens = tokens.into_iter().map(|(id, content, special)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": !special, "special": special,
        })
    });
    let merges = read(merges)?;
    let merges = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let byte_level = |prefix: bool, trim: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": tokens.collect::<Vec<Value>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level(false, true),
        "post_processor": byte_level(true, false),
        "decoder": byte_level(true, true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": merges.collect::<Vec<&str>>(),
        },
    })
    .to_string())
}

/// BERT's `vocab.txt`, one token a line, with `[DEC]` as the last one; as many lines as the word
/// table has rows.
pub(super) fn bert(path: &Path, rows: usize) -> Result<Vocabulary> {
    let text = read(path)?;
    let mut lines: Vec<&str> = text.lines().collect();
    if !lines.contains(&DEC) {
        lines.push(DEC);
    }
    if lines.len() != rows {
        let what = format!(
            "it has {} tokens with `{DEC}`, the model's word table has {rows} rows",
            lines.len()
        );
        return Err(ImportError::format(path, what));
    }
    Ok(Vocabulary { text: lines.join("\n") + "\n", files: vec![path.to_owned()] })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| ImportError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prompt::PhiTokenizer;

    fn goldens() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens")
    }

    /// The slow tokenizer's three files, taken out of a `tokenizer.json`.
    fn taken_apart(json: &str, folder: &Path) {
        let json: Value = serde_json::from_str(json).unwrap();
        let merges: Vec<&str> = json["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m.as_str().unwrap())
            .collect();
        let added: BTreeMap<&str, u64> = json["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|token| !token["special"].as_bool().unwrap())
            .map(|token| (token["content"].as_str().unwrap(), token["id"].as_u64().unwrap()))
            .collect();
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("vocab.json", json["model"]["vocab"].to_string());
        write("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")));
        write("added_tokens.json", serde_json::to_string(&added).unwrap());
    }

    #[test]
    fn a_tokenizer_from_parts_gives_the_ids_of_the_whole_one() {
        let cases = std::fs::read_to_string(goldens().join("tokenizer/cases.json")).unwrap();
        let cases: Value = serde_json::from_str(&cases).unwrap();
        let mut texts = Vec::new();
        strings(&cases, &mut texts);
        assert!(texts.len() >= 34);
        for (file, rows) in [("tokenizer/tokenizer.json", 51200), ("a1/phi-2/tokenizer.json", 448)]
        {
            let whole = phi(&goldens().join(file), rows).unwrap().text;
            let folder = tempfile::tempdir().unwrap();
            taken_apart(&whole, folder.path());
            let parts = phi(folder.path(), rows).unwrap();
            assert_eq!(parts.files.len(), 3);
            let whole = PhiTokenizer::from_json(&whole).unwrap();
            let parts = PhiTokenizer::from_json(&parts.text).unwrap();
            for text in &texts {
                assert_eq!(parts.encode(text), whole.encode(text), "{text:?}");
            }
        }
    }

    fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
            Value::Object(items) => items.values().for_each(|item| strings(item, found)),
            _ => {}
        }
    }

    #[test]
    fn a_tokenizer_with_more_ids_than_the_table_has_rows_is_refused() {
        let error = phi(&goldens().join("a1/phi-2"), 412).unwrap_err().to_string();
        assert!(error.contains("has the id 412") && error.contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn dec_is_appended_once_and_the_number_of_words_must_fit() {
        let path = goldens().join("b1/bert/vocab.txt");
        let made = bert(&path, 102).unwrap().text;
        assert!(made.ends_with("\n[DEC]\n"));
        let folder = tempfile::tempdir().unwrap();
        let again = folder.path().join("vocab.txt");
        std::fs::write(&again, &made).unwrap();
        assert_eq!(bert(&again, 102).unwrap().text, made);
        let error = bert(&path, 103).unwrap_err().to_string();
        assert!(error.contains("102 tokens") && error.contains("103 rows"), "{error}");
    }

    #[test]
    fn a_folder_without_a_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = phi(folder.path(), 448).unwrap_err().to_string();
        assert!(error.contains("neither tokenizer.json nor vocab.json"), "{error}");
    }
}
