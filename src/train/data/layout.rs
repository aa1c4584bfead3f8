//! Bytes to JSON objects and their places.

use serde_json::Value;

use super::{Layout, Place};

/// What a file holds before its records are looked at.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) layout: Layout,
    /// Each record, or why it is none.
    pub(super) items: Vec<(Place, Result<Value, String>)>,
}

/// Stands for bytes that are no text.
const REPLACEMENT: char = '\u{fffd}';

/// Reads `bytes` in `layout`, or in the one that they are in.
///
/// # Errors
///
/// A sentence that says why they are in none, or not in this one.
pub(super) fn parse(bytes: Vec<u8>, layout: Option<Layout>) -> Result<Found, String> {
    let (text, damaged) = decode(bytes)?;
    let mut found = match layout.map_or_else(|| detect(&text), Ok)? {
        Layout::Lines => lines(&text),
        Layout::List => list(&text)?,
        Layout::Align => align(&text)?,
    };
    if damaged {
        for (_, item) in &mut found.items {
            if item.as_ref().is_ok_and(holds_replacement) {
                *item = Err("it holds bytes that are not UTF-8".to_owned());
            }
        }
    }
    Ok(found)
}

/// The text of a file in UTF-8 or, with a byte order mark, UTF-16; and whether some of it had to
/// be replaced.
fn decode(bytes: Vec<u8>) -> Result<(String, bool), String> {
    let units = |read: fn([u8; 2]) -> u16| -> Result<(String, bool), String> {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        if !rest.is_empty() {
            return Err("it begins as UTF-16 but has an odd length".to_owned());
        }
        let units: Vec<u16> = pairs.iter().map(|&pair| read(pair)).collect();
        let text = String::from_utf16_lossy(&units);
        let damaged = String::from_utf16(&units).is_err();
        Ok((text, damaged))
    };
    match bytes.as_slice() {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => Ok(match String::from_utf8(bytes) {
            Ok(text) => (text.trim_start_matches('\u{feff}').to_owned(), false),
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes());
                (text.trim_start_matches('\u{feff}').to_owned(), true)
            }
        }),
    }
}

fn holds_replacement(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(REPLACEMENT),
        Value::Array(items) => items.iter().any(holds_replacement),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains(REPLACEMENT) || holds_replacement(value))
        }
        _ => false,
    }
}

fn detect(text: &str) -> Result<Layout, String> {
    let text = text.trim_start();
    match text.chars().next() {
        // No records: whoever reads the lines will say so.
        None => Ok(Layout::Lines),
        Some('[') => Ok(Layout::List),
        Some('{') => {
            let first = text.lines().next().unwrap_or_default();
            let object = |text| serde_json::from_str::<serde_json::Map<String, Value>>(text);
            // A file in MiniGPT-4's layout is one object, on one line or on many.
            let is_align = match object(first) {
                Ok(first) => first.contains_key("annotations"),
                Err(_) => object(text).is_ok_and(|whole| whole.contains_key("annotations")),
            };
            Ok(if is_align { Layout::Align } else { Layout::Lines })
        }
        Some(c) => Err(format!(
            "it begins with {c:?}, while JSON lines and annotations begin with a brace and lists \
             with a bracket"
        )),
    }
}

fn lines(text: &str) -> Found {
    let items = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let items = items.map(|(at, line)| {
        let value = serde_json::from_str(line.trim()).map_err(|e| format!("it is no JSON: {e}"));
        (Place::Line(at + 1), value)
    });
    Found { layout: Layout::Lines, items: items.collect() }
}

fn list(text: &str) -> Result<Found, String> {
    let items: Vec<Value> =
        serde_json::from_str(text).map_err(|e| format!("it is no JSON list: {e}"))?;
    Ok(Found { layout: Layout::List, items: entries(items) })
}

fn align(text: &str) -> Result<Found, String> {
    let whole: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    let Value::Object(mut whole) = whole else {
        return Err("it is no JSON object".to_owned());
    };
    match whole.remove("annotations") {
        Some(Value::Array(items)) => Ok(Found { layout: Layout::Align, items: entries(items) }),
        Some(_) => Err("its `annotations` are no list".to_owned()),
        None => Err("it has no `annotations`".to_owned()),
    }
}

fn entries(items: Vec<Value>) -> Vec<(Place, Result<Value, String>)> {
    items.into_iter().enumerate().map(|(at, item)| (Place::Entry(at + 1), Ok(item))).collect()
}
