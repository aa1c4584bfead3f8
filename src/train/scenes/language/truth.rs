//! Whether a caption is true of a scene, told from its words alone.

use super::{Caption, Fact, phrases};
use crate::train::scenes::{Colour, Kind, Relation, Scene, Size, Thing};

/// What a caption says of one thing.
#[derive(Debug, Default, Clone)]
struct Said {
    kinds: Vec<Kind>,
    colours: Vec<Colour>,
    sizes: Vec<Size>,
    count: Option<usize>,
}

impl Said {
    fn fits(&self, thing: &Thing) -> bool {
        self.kinds.iter().all(|&kind| kind == thing.kind)
            && self.colours.iter().all(|&colour| colour == thing.colour)
            && self.sizes.iter().all(|&size| Some(size) == thing.size_word())
    }
}

impl Caption {
    /// The colour that it gives to a thing.
    pub fn stated_colour(&self, thing: usize) -> Option<Colour> {
        let mention = self.mentions.iter().find(|it| it.fact == Fact::Colour(thing))?;
        let words = &self.text[mention.range.clone()];
        Colour::ALL.iter().copied().find(|it| it.name() == words)
    }

    /// How it says that a thing stands to another one, with that one: as it says it of the thing,
    /// or the reverse of what it says of the other. `None` where it says it of several pairs.
    pub fn stated_relation(&self, thing: usize) -> Option<(Relation, usize)> {
        let mut stated = self.mentions.iter().filter_map(|mention| {
            let Fact::Relation(a, b) = mention.fact else { return None };
            let relation = phrases::read_relation(&self.text[mention.range.clone()])?;
            let turned = (b == thing).then(|| (relation.inverse(), a));
            if a == thing { Some((relation, b)) } else { turned }
        });
        stated.next().filter(|_| stated.next().is_none())
    }

    /// Whether everything it says is true of the scene: whether its things can be found among
    /// the scene's, each another one, so that all that is said of them holds. Read from its
    /// words, whatever scene it was made from.
    pub fn is_true_of(&self, scene: &Scene) -> bool {
        let mut said: Vec<Said> = Vec::new();
        let mut relations = Vec::new();
        for mention in &self.mentions {
            let words = &self.text[mention.range.clone()];
            let known = match mention.fact {
                Fact::Setting => phrases::read_setting(words) == Some(scene.setting),
                Fact::Time => phrases::time(scene.time) == words,
                Fact::Weather => phrases::weather(scene.weather) == words,
                Fact::Nothing => scene.things.is_empty(),
                Fact::Kind(thing) => {
                    let kind = phrases::read_kind(words);
                    of(&mut said, thing).kinds.extend(kind);
                    kind.is_some()
                }
                Fact::Colour(thing) => {
                    let colour = Colour::ALL.iter().copied().find(|it| it.name() == words);
                    of(&mut said, thing).colours.extend(colour);
                    colour.is_some()
                }
                Fact::Size(thing) => {
                    let size = Size::ALL.iter().copied().find(|it| it.name() == words);
                    of(&mut said, thing).sizes.extend(size);
                    size.is_some()
                }
                Fact::Count(thing) => {
                    of(&mut said, thing).count = phrases::read_number(words);
                    of(&mut said, thing).count.is_some()
                }
                Fact::Relation(a, b) => {
                    let relation = phrases::read_relation(words);
                    relations.extend(relation.map(|relation| (a, relation, b)));
                    relation.is_some()
                }
            };
            if !known {
                return false;
            }
        }
        let counted = said.iter().all(|said| {
            let number = scene.things.iter().filter(|thing| said.fits(thing)).count();
            said.count.is_none_or(|count| count == number)
        });
        counted && found(scene, &said, &relations, &mut Vec::new())
    }
}

fn of(said: &mut Vec<Said>, thing: usize) -> &mut Said {
    if said.len() <= thing {
        said.resize(thing + 1, Said::default());
    }
    &mut said[thing]
}

/// Whether the things that are `left` to find after the `chosen` ones can be found.
fn found(
    scene: &Scene,
    said: &[Said],
    relations: &[(usize, Relation, usize)],
    chosen: &mut Vec<usize>,
) -> bool {
    let Some(next) = said.get(chosen.len()) else {
        return relations
            .iter()
            .all(|&(a, relation, b)| scene.relation(chosen[a], chosen[b]) == Some(relation));
    };
    // A number that the caption skips is of a thing that it says nothing about.
    let silent = next.kinds.is_empty() && next.colours.is_empty() && next.sizes.is_empty();
    if silent {
        chosen.push(usize::MAX);
        let rest = found(scene, said, relations, chosen);
        chosen.pop();
        return rest;
    }
    (0..scene.things.len()).any(|thing| {
        if chosen.contains(&thing) || !next.fits(&scene.things[thing]) {
            return false;
        }
        chosen.push(thing);
        let rest = found(scene, said, relations, chosen);
        chosen.pop();
        rest
    })
}
