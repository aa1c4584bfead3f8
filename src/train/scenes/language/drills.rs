//! Exercises that nobody asks for, but that lead to what people ask.
//!
//! Whether one thing is left of another takes three steps: where is the one, where is the other,
//! which is further to the left. A small model does not find all three at once behind a plain yes
//! or no. So the place of a thing is asked for at the word that names it, and which of two things
//! lies further to a side at the word that names the second.

use super::{phrases, questions::the};
use crate::train::scenes::{Relation, Scene, random::Random};

/// An exercise: its answer follows its last word at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// "how far right is the car"
    pub text: String,
    /// "four"
    pub answer: String,
}

/// Up to `count` exercises about a scene; none where things cannot be told apart by name.
pub fn drills(scene: &Scene, seed: u64, count: usize) -> Vec<Drill> {
    let mut random = Random::new(&[0xD2, seed]);
    if scene.is_counted() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (number, thing) in scene.things.iter().enumerate() {
        let the = the(scene, number);
        let mut place = |way: &str, at: f32| {
            let step = (at.clamp(0.0, 1.0) * phrases::NUMBERS.len() as f32) as usize;
            let answer = phrases::NUMBERS[step.min(phrases::NUMBERS.len() - 1)].to_owned();
            all.push(Drill { text: format!("how far {way} is {the}"), answer });
        };
        place("right", thing.x);
        place("down", thing.y);
    }
    for a in 0..scene.things.len() {
        for b in 0..scene.things.len() {
            let Some(relation) = scene.relation(a, b).filter(|_| a != b) else { continue };
            let asked = if random.chance(0.5) { relation } else { relation.inverse() };
            let further = if asked == relation { a } else { b };
            let side = match asked {
                Relation::LeftOf => "left",
                Relation::RightOf => "right",
                Relation::Above => "above",
                Relation::Below => "below",
            };
            let (one, other) = (the(scene, a), the(scene, b));
            all.push(Drill {
                text: format!("{side}, {one} or {other}"),
                answer: scene.things[further].kind.name().to_owned(),
            });
        }
    }
    random.shuffle(&mut all);
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::Split;

    #[test]
    fn exercises_say_where_things_are() {
        let (mut places, mut sides) = (0, 0);
        for index in 0..400 {
            let scene = Scene::generate(Split::Train, index);
            let found = drills(&scene, index, 100);
            assert_eq!(found, drills(&scene, index, 100));
            assert!(drills(&scene, index, 2).len() <= 2);
            for drill in found {
                let named = |text: &str| {
                    (0..scene.things.len())
                        .filter(|&it| the(&scene, it) == text)
                        .collect::<Vec<_>>()
                };
                if let Some(name) = drill.text.strip_prefix("how far right is ") {
                    let [thing] = named(name)[..] else { panic!("{}", drill.text) };
                    let step = phrases::NUMBERS.iter().position(|n| *n == drill.answer).unwrap();
                    let x = scene.things[thing].x.clamp(0.0, 1.0) * 7.0;
                    assert!((step as f32..=step as f32 + 1.0).contains(&x), "{} {x}", drill.answer);
                    places += 1;
                } else if let Some(names) = drill.text.strip_prefix("left, ") {
                    let names: Vec<&str> = names.split(" or ").collect();
                    let (a, b) = (named(names[0])[0], named(names[1])[0]);
                    let left = if scene.things[a].x < scene.things[b].x { a } else { b };
                    assert_eq!(drill.answer, scene.things[left].kind.name(), "{}", drill.text);
                    sides += 1;
                }
            }
        }
        assert!(places > 300 && sides > 50, "{places} {sides}");
    }
}
