//! JSON objects to pictures and what is said about them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Exchange, Layout};
use crate::model::prompt::{END_OF_ANSWER, IMAGE_PLACEHOLDER};

/// What stands for the picture in `LLaVA`'s questions.
const LLAVA_IMAGE: &str = "<image>";

/// A picture and what is said about it.
pub(super) type Read = (PathBuf, Vec<Exchange>);

/// Reads one record whose pictures lie in `folder`: a caption, a question with its answer, or
/// both, or a conversation.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub(super) fn read(item: &Value, folder: &Path, layout: Layout) -> Result<Vec<Read>, String> {
    let Value::Object(fields) = item else {
        return Err(format!("it is {}, not an object", kind(item)));
    };
    let image = match layout {
        Layout::Align => folder.join(format!("{}.jpg", image_id(fields)?)),
        Layout::Lines | Layout::List => picture(text(fields, "image")?, folder)?,
    };
    let mut read = Vec::new();
    if let Some(turns) = fields.get("conversations") {
        read.push(conversation(turns)?);
    }
    if fields.contains_key("caption") {
        let answer = words(text(fields, "caption")?, "caption")?;
        read.push(vec![Exchange { question: None, answer }]);
    }
    if fields.contains_key("question") || fields.contains_key("answer") {
        let question = Some(words(text(fields, "question")?, "question")?);
        let answer = words(text(fields, "answer")?, "answer")?;
        read.push(vec![Exchange { question, answer }]);
    }
    if read.is_empty() {
        return Err("it has no `caption`, `question` or `conversations`".to_owned());
    }
    match std::fs::metadata(&image) {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Err(format!("`{}` is no file", image.display())),
        Err(error) => return Err(format!("`{}`: {error}", image.display())),
    }
    Ok(read.into_iter().map(|exchanges| (image.clone(), exchanges)).collect())
}

fn picture(name: &str, folder: &Path) -> Result<PathBuf, String> {
    if name.trim().is_empty() {
        return Err("`image` is empty".to_owned());
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(format!("`{name}` is on the web, and only files are read"));
    }
    Ok(folder.join(name))
}

fn image_id(fields: &Map<String, Value>) -> Result<String, String> {
    match fields.get("image_id") {
        Some(Value::String(id)) if !id.trim().is_empty() => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        Some(other) => Err(format!("`image_id` is {}, not text or a number", kind(other))),
        None => Err("it has no `image_id`".to_owned()),
    }
}

/// Turns of `human` and `gpt`, one after the other.
fn conversation(turns: &Value) -> Result<Vec<Exchange>, String> {
    let Value::Array(turns) = turns else {
        return Err(format!("`conversations` is {}, not a list", kind(turns)));
    };
    let mut exchanges = Vec::with_capacity(turns.len() / 2);
    let mut asked: Option<String> = None;
    for (at, turn) in turns.iter().enumerate() {
        let Value::Object(fields) = turn else {
            return Err(format!("turn {} is {}, not an object", at + 1, kind(turn)));
        };
        let value = text(fields, "value")?;
        asked = match (text(fields, "from")?, asked.take()) {
            ("human" | "user", None) => {
                Some(words(&value.replace(LLAVA_IMAGE, " "), &format!("turn {}", at + 1))?)
            }
            ("gpt" | "assistant", Some(question)) => {
                let answer = words(value, &format!("turn {}", at + 1))?;
                exchanges.push(Exchange { question: Some(question), answer });
                None
            }
            (from, _) => {
                return Err(format!("turn {} is of `{from}`, out of its place", at + 1));
            }
        };
    }
    if asked.is_some() || exchanges.is_empty() {
        return Err("its conversation has no answer to the last question".to_owned());
    }
    Ok(exchanges)
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("`{name}` is {}, not text", kind(other))),
        None => Err(format!("it has no `{name}`")),
    }
}

/// Words to learn, without the blanks around them. What the model reads as the picture or as the
/// end of an answer cannot be among them.
fn words(text: &str, what: &str) -> Result<String, String> {
    let words = text.trim();
    if words.is_empty() {
        return Err(format!("its {what} is empty"));
    }
    for reserved in [IMAGE_PLACEHOLDER, END_OF_ANSWER] {
        if words.contains(reserved) {
            return Err(format!("its {what} holds `{reserved}`, which the model reserves"));
        }
    }
    Ok(words.to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
