//! How texts are written before a model learns from them.
//!
//! Source: LAVIS `blip_processors.py`, which the published stages were trained with.

/// Most words of a text.
const MOST_WORDS: usize = 50;

/// A caption in lower case, with spaces for `.!"()*#:;~`, runs of white space as one space, at
/// most 50 words.
pub fn caption(text: &str) -> String {
    let spaced: String =
        text.to_lowercase().chars().map(|c| if is_dropped(c) { ' ' } else { c }).collect();
    let words: Vec<&str> = spaced.split_whitespace().take(MOST_WORDS).collect();
    words.join(" ")
}

/// A question in lower case, without `.!"()*#:;~` and without spaces at its end, at most 50
/// words.
pub fn question(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|&c| !is_dropped(c)).collect();
    let words: Vec<&str> = kept.trim_end_matches(' ').split(' ').take(MOST_WORDS).collect();
    words.join(" ")
}

/// Characters that no text keeps.
fn is_dropped(c: char) -> bool {
    ".!\"()*#:;~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_plain_words() {
        assert_eq!(caption("  A dog; (brown)... ON a-road!\n"), "a dog brown on a-road");
        assert_eq!(caption(&"Word ".repeat(60)), ["word"; 50].join(" "));
        assert_eq!(caption("?!"), "?");
    }

    #[test]
    fn a_question_loses_signs_without_a_gap() {
        assert_eq!(question("What's this: \"a\" dog?  "), "what's this a dog?");
        assert_eq!(question("a.b"), "ab");
        assert_eq!(question(&"why ".repeat(60)), ["why"; 50].join(" "));
    }
}
