//! Short talks about a scene, in which later questions lean on earlier ones.

use super::{
    CaptionPlan, phrases,
    questions::{only_one, the},
};
use crate::train::scenes::{Relation, Scene, random::Random};

/// Two to four questions with their answers; "it", "they" and "this" mean what was asked about
/// before. An answer in few words, but for the description that may come first.
pub fn dialogue(scene: &Scene, seed: u64) -> Vec<(String, String)> {
    let mut random = Random::new(&[0xD1, seed]);
    let mut turns: Vec<(String, String)> = Vec::new();
    let mut say =
        |question: &str, answer: &str| turns.push((question.to_owned(), answer.to_owned()));
    if random.chance(0.4) {
        let question = random.pick(&["what do you see?", "what is in the picture?"]);
        say(question, &CaptionPlan::canonical(scene).render(scene).text);
    }
    let place = phrases::place(scene.setting);
    if scene.things.is_empty() {
        say("how many things are there?", phrases::NUMBERS[0]);
        say("where is this?", scene.setting.name());
    } else if scene.is_counted() {
        let thing = &scene.things[0];
        if random.chance(0.5) {
            say(&format!("are there any {}?", thing.kind.plural()), "yes");
            say("how many are there?", phrases::NUMBERS[scene.things.len()]);
        } else {
            let question = format!("how many {} are there?", thing.kind.plural());
            say(&question, phrases::NUMBERS[scene.things.len()]);
        }
        say("what color are they?", thing.colour.name());
        if random.chance(0.5) {
            say("where are they?", place);
        }
    } else {
        let about = random.below(scene.things.len());
        let (kind, colour) = (scene.things[about].kind, scene.things[about].colour);
        if scene.count(kind) == 1 {
            let article = phrases::article(kind.name());
            say(&format!("is there {article} {}?", kind.name()), "yes");
            say("what color is it?", colour.name());
        } else {
            let the = the(scene, about);
            say(&format!("do you see {the}?"), "yes");
        }
        let mut relations = Relation::ALL.to_vec();
        random.shuffle(&mut relations);
        let beside = relations
            .into_iter()
            .find_map(|relation| Some((relation, only_one(scene, relation, about)?)));
        match beside {
            Some((relation, other)) if random.chance(0.7) => {
                let question = format!("what is {} it?", phrases::relation(relation, true));
                say(&question, scene.things[other].kind.name());
            }
            _ => say("where is it?", place),
        }
    }
    turns.truncate(4);
    turns
}
