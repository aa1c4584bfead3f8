//! Reads canonical captions back: how generated captions are judged.

use super::phrases;
use crate::train::scenes::{Colour, Kind, Scene, Setting};

/// What a canonical caption says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// How many there are of each kind in each colour, sorted.
    pub things: Vec<(usize, Kind, Colour)>,
    /// Where it is.
    pub setting: Setting,
}

impl Statement {
    /// What the canonical caption of a scene says.
    pub fn of(scene: &Scene) -> Self {
        let things = if scene.is_counted() {
            vec![(scene.things.len(), scene.things[0].kind, scene.things[0].colour)]
        } else {
            let mut things: Vec<_> =
                scene.things.iter().map(|thing| (1, thing.kind, thing.colour)).collect();
            things.sort_unstable();
            things
        };
        Self { things, setting: scene.setting }
    }
}

/// Reads a caption in the form of [`super::CaptionPlan::canonical`]; a full stop may be missing.
/// `None` for anything else: other words, other order, a wrong article, a number beyond six.
pub fn parse_caption(text: &str) -> Option<Statement> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Some(setting) = Setting::ALL.iter().copied().find(|&it| is_empty(text, it)) {
        return Some(Statement { things: Vec::new(), setting });
    }
    let (list, setting) = Setting::ALL.iter().find_map(|&setting| {
        let list = text.strip_suffix(phrases::place(setting))?.strip_suffix(' ')?;
        Some((list, setting))
    })?;
    let (head, last) = match list.split_once(" and ") {
        Some((head, last)) => (head, Some(last)),
        None => (list, None),
    };
    // Commas stand only before an "and".
    if last.is_none() && head.contains(',') {
        return None;
    }
    let items = head.split(", ").chain(last);
    let mut things = items.map(item).collect::<Option<Vec<_>>>()?;
    things.sort_unstable();
    Some(Statement { things, setting })
}

fn is_empty(text: &str, setting: Setting) -> bool {
    let bare = match phrases::scenery_article(setting, true) {
        Some(article) => text.strip_prefix(article).and_then(|it| it.strip_prefix(' ')),
        None => Some(text),
    };
    bare.and_then(|it| it.strip_prefix("empty ")) == Some(setting.name())
}

/// "a red car" or "three red cars".
fn item(text: &str) -> Option<(usize, Kind, Colour)> {
    let [number, colour, kind] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let read = Colour::ALL.iter().copied().find(|it| it.name() == colour)?;
    if number == phrases::article(colour) {
        let kind = Kind::ALL.iter().copied().find(|it| it.name() == kind)?;
        return Some((1, kind, read));
    }
    let count = phrases::read_number(number).filter(|&it| it > 1)?;
    let kind = Kind::ALL.iter().copied().find(|it| it.plural() == kind)?;
    Some((count, kind, read))
}
