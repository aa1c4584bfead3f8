//! The words for facts, both ways.

use crate::train::scenes::{Kind, Relation, Setting, TimeOfDay, Weather};

/// The words for 0 to 6.
pub(super) const NUMBERS: [&str; 7] = ["zero", "one", "two", "three", "four", "five", "six"];

/// Where something is: "on a beach".
pub(super) const fn place(setting: Setting) -> &'static str {
    match setting {
        Setting::Beach => "on a beach",
        Setting::Snow => "in the snow",
        Setting::NightSky => "in a night sky",
        Setting::Sea => "on the sea",
        Setting::Forest => "in a forest",
        Setting::City => "in a city",
        Setting::Desert => "in a desert",
        Setting::Field => "in a field",
        Setting::Room => "in a room",
        Setting::Kitchen => "in a kitchen",
        Setting::Road => "on a road",
        Setting::Mountain => "on a mountain",
    }
}

pub(super) const fn time(time: TimeOfDay) -> &'static str {
    match time {
        TimeOfDay::Day => "by day",
        TimeOfDay::Sunset => "at sunset",
        TimeOfDay::Night => "at night",
    }
}

pub(super) const fn weather(weather: Weather) -> &'static str {
    match weather {
        Weather::Clear => "in clear weather",
        Weather::Rain => "in the rain",
        Weather::Snowfall => "in falling snow",
        Weather::Fog => "in the fog",
    }
}

/// A relation in few words, or in more.
pub(super) const fn relation(relation: Relation, short: bool) -> &'static str {
    match (relation, short) {
        (Relation::LeftOf, true) => "left of",
        (Relation::LeftOf, false) => "to the left of",
        (Relation::RightOf, true) => "right of",
        (Relation::RightOf, false) => "to the right of",
        (Relation::Above, _) => "above",
        (Relation::Below, true) => "below",
        (Relation::Below, false) => "under",
    }
}

/// "a" or "an".
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// What stands before a setting's name: "a" beach, "the" sea, "an" empty sea, snow.
pub(super) fn scenery_article(setting: Setting, empty: bool) -> Option<&'static str> {
    match (setting, empty) {
        (Setting::Snow, _) => None,
        (Setting::Sea, false) => Some("the"),
        (_, false) => Some("a"),
        (_, true) => Some("an"),
    }
}

/// The kind of a word for one or several of it.
pub(super) fn read_kind(word: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == word || kind.plural() == word)
}

/// The setting of a phrase or of its bare name.
pub(super) fn read_setting(text: &str) -> Option<Setting> {
    Setting::ALL.iter().copied().find(|&it| place(it) == text || it.name() == text)
}

pub(super) fn read_relation(text: &str) -> Option<Relation> {
    let is = |&it: &Relation| relation(it, true) == text || relation(it, false) == text;
    Relation::ALL.iter().copied().find(is)
}

pub(super) fn read_number(word: &str) -> Option<usize> {
    NUMBERS.iter().position(|&number| number == word)
}
