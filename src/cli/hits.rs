//! Photos as they are printed: for a person, and as JSON.

use std::io;
use std::ops::Range;

use serde::Serialize;

use super::printer::{FAINT, MATCHED, Printer, STRONG};
use crate::json::JsonMetadata;
pub(crate) use crate::json::JsonPath;
use crate::search::{Hit, NoteKind, Placed, SourceScores};

/// A hit as `search --json` prints it. The keys are part of the command line: they stay.
#[derive(Debug, Serialize)]
struct JsonHit<'a> {
    rank: usize,
    score: f32,
    #[serde(flatten)]
    path: JsonPath,
    caption: Option<&'a str>,
    /// Where in the caption words of the query stand: characters, the last not included.
    matches: Vec<[usize; 2]>,
    snippets: Vec<JsonSnippet<'a>>,
    #[serde(flatten)]
    metadata: JsonMetadata<'a>,
    scores: JsonScores,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<JsonExplanation>,
}

/// A piece of title, description, keywords or place with words of the query in it.
#[derive(Debug, Serialize)]
struct JsonSnippet<'a> {
    from: NoteKind,
    text: &'a str,
    matches: Vec<[usize; 2]>,
}

/// How the score of a hit came about.
#[derive(Debug, Serialize)]
struct JsonExplanation {
    words: Option<JsonPlaced>,
    meaning: Option<JsonPlaced>,
    fields: Option<JsonPlaced>,
}

#[derive(Debug, Serialize)]
struct JsonPlaced {
    rank: usize,
    score: f32,
    share: f32,
}

impl From<Placed> for JsonPlaced {
    fn from(Placed { rank, score, share }: Placed) -> Self {
        Self { rank, score, share }
    }
}

#[derive(Debug, Serialize)]
struct JsonScores {
    words: Option<f32>,
    meaning: Option<f32>,
}

impl<'a> JsonHit<'a> {
    fn new(hit: &'a Hit, explain: bool) -> Self {
        let snippets = hit.snippets.iter().map(|snippet| JsonSnippet {
            from: snippet.from,
            text: &snippet.text,
            matches: in_characters(&snippet.text, &snippet.highlights),
        });
        let SourceScores { words, meaning, fields } = hit.scores;
        Self {
            rank: hit.rank,
            score: hit.score,
            path: hit.path.as_path().into(),
            caption: hit.caption.as_deref(),
            matches: in_characters(hit.caption.as_deref().unwrap_or_default(), &hit.highlights),
            snippets: snippets.collect(),
            metadata: (&hit.metadata).into(),
            scores: JsonScores {
                words: words.map(|placed| placed.score),
                meaning: meaning.map(|placed| placed.score),
            },
            explain: explain.then(|| JsonExplanation {
                words: words.map(Into::into),
                meaning: meaning.map(Into::into),
                fields: fields.map(Into::into),
            }),
        }
    }
}

/// Ranges of bytes of `text` as ranges of characters, which is what scripts count.
fn in_characters(text: &str, ranges: &[Range<usize>]) -> Vec<[usize; 2]> {
    let count = |at: usize| text.get(..at).map_or(0, |before| before.chars().count());
    ranges.iter().map(|range| [count(range.start), count(range.end)]).collect()
}

/// `value` as one line of JSON on stdout.
pub(crate) fn print_json(printer: &mut Printer, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    printer.stdout().write_all(line.as_bytes())
}

/// Each hit as one line of JSON, with ranks and shares if `explain`.
pub(crate) fn print_hits_as_json(
    printer: &mut Printer,
    hits: &[Hit],
    explain: bool,
) -> io::Result<()> {
    hits.iter().try_for_each(|hit| print_json(printer, &JsonHit::new(hit, explain)))
}

/// Each hit as `rank  score  path`, its caption below with the matched words marked, then what
/// else holds such words, and if `explain`, how its score came about.
pub(crate) fn print_hits(printer: &mut Printer, hits: &[Hit], explain: bool) -> io::Result<()> {
    let width = hits.last().map_or(1, |hit| hit.rank.to_string().len());
    for hit in hits {
        let rank = printer.paint(STRONG, &format!("{:>width$}", hit.rank));
        let score = printer.paint(FAINT, &format!("{:.2}", hit.score));
        write!(printer.stdout(), "{rank}  {score}  ")?;
        printer.path(&hit.path)?;
        let mut lines = vec![match &hit.caption {
            Some(caption) => marked_line(printer, caption, &hit.highlights),
            None => printer.paint(FAINT, "(no caption yet)"),
        }];
        for snippet in &hit.snippets {
            let label = match snippet.from {
                NoteKind::Title => "title:",
                NoteKind::Description => "description:",
                NoteKind::Keyword => "keyword:",
                NoteKind::Place => "place:",
            };
            let text = marked_line(printer, &snippet.text, &snippet.highlights);
            lines.push(format!("{} {text}", printer.paint(FAINT, label)));
        }
        if explain {
            lines.push(printer.paint(FAINT, &explanation(hit.scores)));
        }
        for line in lines {
            write!(printer.stdout(), "\n{:width$}  {line}", "")?;
        }
        writeln!(printer.stdout())?;
    }
    Ok(())
}

/// Rank, score and share on each side, in words.
fn explanation(scores: SourceScores) -> String {
    let side = |name: &str, measure: &str, placed: Option<Placed>| {
        placed.map(|Placed { rank, score, share }| {
            format!("{name}: rank {rank}, {measure} {score:.3}, adds {share:.3}")
        })
    };
    let fields = scores.fields.map(|it| format!("fields: rank {}, adds {:.3}", it.rank, it.share));
    let sides =
        [side("words", "BM25", scores.words), side("meaning", "cosine", scores.meaning), fields];
    let sides: Vec<String> = sides.into_iter().flatten().collect();
    if sides.is_empty() { "fields only: newest first".to_owned() } else { sides.join("; ") }
}

/// `text` on one line, with what stands in `ranges` marked.
fn marked_line(printer: &Printer, text: &str, ranges: &[Range<usize>]) -> String {
    let text = one_line(text);
    let mut line = String::new();
    let mut done = 0;
    for range in ranges {
        let (Some(before), Some(word)) = (text.get(done..range.start), text.get(range.clone()))
        else {
            continue;
        };
        line.push_str(before);
        line.push_str(&printer.paint(MATCHED, word));
        done = range.end;
    }
    line.push_str(&text[done..]);
    line
}

/// `text` with spaces for every control character, byte for byte: ranges of the one fit the
/// other, and nothing that a model wrote moves a cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // U+0080 to U+009F, which some terminals obey too, are two bytes long.
            line.extend(std::iter::repeat_n(' ', c.len_utf8()));
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_characters_not_bytes() {
        assert_eq!(in_characters("été à été", &[0..5, 9..14]), [[0, 3], [6, 9]]);
        assert_eq!(in_characters("", &[]), [[0; 2]; 0]);
    }

    #[test]
    fn an_explanation_names_the_sides_that_found_the_photo() {
        let placed = |rank| Some(Placed { rank, score: 2.0, share: 0.25 });
        let scores = SourceScores { words: placed(3), meaning: None, fields: placed(1) };
        let expected = "words: rank 3, BM25 2.000, adds 0.250; fields: rank 1, adds 0.250";
        assert_eq!(explanation(scores), expected);
        assert_eq!(explanation(SourceScores::default()), "fields only: newest first");
    }

    #[test]
    fn control_characters_become_spaces_of_their_length() {
        assert_eq!(one_line("a\x1b[1m\nü\u{9b}2Jb\x7f"), "a [1m ü  2Jb ");
    }
}
