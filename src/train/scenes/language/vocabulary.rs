//! The closed list of words, for tokenizers that are trained on it.

use std::collections::BTreeSet;

use super::phrases;
use crate::train::scenes::{Colour, Kind, Relation, Setting, Size, TimeOfDay, Weather};

/// Words that carry no fact of their own.
const OTHER_WORDS: &[&str] = &[
    "a", "an", "and", "any", "are", "can", "color", "do", "does", "empty", "have", "how", "in",
    "is", "it", "many", "no", "of", "picture", "place", "see", "show", "the", "there", "they",
    "thing", "things", "this", "true", "we", "what", "where", "which", "with", "yes", "you",
];

/// Every word that captions, questions, answers and dialogues can hold, sorted, each once, without
/// the signs `,`, `.`, `:` and `?`.
pub fn corpus_words() -> Vec<&'static str> {
    let mut words: BTreeSet<&'static str> = OTHER_WORDS.iter().copied().collect();
    for kind in Kind::ALL {
        words.extend([kind.name(), kind.plural()]);
    }
    words.extend(Colour::ALL.iter().map(|it| it.name()));
    words.extend(Size::ALL.iter().map(|it| it.name()));
    words.extend(phrases::NUMBERS);
    let settings = Setting::ALL.iter().flat_map(|&it| [phrases::place(it), it.name()]);
    let times = TimeOfDay::ALL.iter().map(|&it| phrases::time(it));
    // Clear weather is not spoken of.
    let weather = Weather::ALL.iter().filter(|&&it| it != Weather::Clear);
    let weather = weather.map(|&it| phrases::weather(it));
    let relations = Relation::ALL
        .iter()
        .flat_map(|&it| [phrases::relation(it, true), phrases::relation(it, false)]);
    for phrase in settings.chain(times).chain(weather).chain(relations) {
        words.extend(phrase.split(' '));
    }
    words.into_iter().collect()
}
