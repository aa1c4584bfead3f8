//! Words that say how others belong together and not what a photo shows.

use tinyfind_index::Term;

/// Nearly every caption holds some of these, so that they tell photos apart by chance alone.
/// Numbers and words of place (`under`, `left`) are none: they say what a photo shows.
const FUNCTION_WORDS: [&str; 23] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "its", "of",
    "on", "or", "that", "the", "there", "this", "to", "with",
];

/// `terms` without bare function words, or all of them where nothing else is there. Quoted words
/// stay as they are.
pub(super) fn without(terms: Vec<Term>) -> Vec<Term> {
    let is_other = |term: &Term| match term {
        Term::Word(word) => !FUNCTION_WORDS.contains(&word.to_lowercase().as_str()),
        Term::Phrase(_) => true,
    };
    if terms.iter().any(is_other) { terms.into_iter().filter(is_other).collect() } else { terms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_words_count_only_where_nothing_else_does() {
        let words = |text: &str| -> Vec<Term> {
            text.split(' ').map(|word| Term::Word(word.to_owned())).collect()
        };
        assert_eq!(without(words("A boat on the sea")), words("boat sea"));
        assert_eq!(without(words("to be or")), words("to be or"));
        let quoted = vec![Term::Word("the".to_owned()), Term::Phrase("the who".to_owned())];
        assert_eq!(without(quoted.clone()), quoted[1..]);
        assert!(FUNCTION_WORDS.is_sorted());
    }
}
