//! Captions that the model writes.

use super::figures::{Figure, Goal, Part, best_constant};
use super::judge::Judge;
use super::scenes::{Exam, Reporter, in_batches};
use crate::train::scenes::{CaptionPlan, Scene, Setting, Statement, parse_caption};
use crate::vlm::Result;

/// Share of scenes of up to three things of which all is named.
const GOAL: f64 = 0.90;

/// What a caption got right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    /// Every thing is named with its colour and, of several, their number, and nothing else is.
    things: bool,
    /// It names the setting and no other.
    setting: bool,
    /// It is the canonical caption, letter for letter.
    exact: bool,
}

/// Scenes by how much there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// One to three different things.
    Different(usize),
    /// Two to six of a kind.
    Counted,
    /// Nothing.
    Empty,
}

impl Group {
    fn of(scene: &Scene) -> Self {
        match scene.things.len() {
            0 => Self::Empty,
            _ if scene.is_counted() => Self::Counted,
            count => Self::Different(count),
        }
    }
}

/// How often captions say all there is, and nothing else.
pub(super) fn figures(
    judge: &mut dyn Judge,
    exam: &Exam,
    reporter: &mut dyn Reporter,
) -> Result<Vec<Figure>> {
    let pictures: Vec<usize> = (0..exam.scenes.len()).collect();
    reporter.begin("captions", pictures.len());
    let captions = in_batches(&pictures, reporter, |batch| judge.caption(batch))?;
    let marks: Vec<(&Scene, Marks)> = exam
        .scenes
        .iter()
        .zip(&captions)
        .map(|(scene, caption)| (scene, marks(scene, caption)))
        .collect();
    let things = |name: &str, is_in: &dyn Fn(Group) -> bool| {
        let of: Vec<&(&Scene, Marks)> =
            marks.iter().filter(|(scene, _)| is_in(Group::of(scene))).collect();
        let right = share(name, of.iter().map(|(_, marks)| marks.things));
        right
            .without_picture(best_constant(of.iter().map(|(scene, _)| Statement::of(scene).things)))
    };
    let different =
        things("all things, up to three", &|group| matches!(group, Group::Different(_)));
    let exact = share("canonical word for word", marks.iter().map(|(_, marks)| marks.exact));
    let setting = share("setting", marks.iter().map(|(_, marks)| marks.setting));
    Ok(vec![
        different.with_goal(Some(Goal::AtLeast(GOAL))),
        things("all things, one", &|group| group == Group::Different(1)),
        things("all things, two", &|group| group == Group::Different(2)),
        things("all things, three", &|group| group == Group::Different(3)),
        things("two to six of a kind", &|group| group == Group::Counted),
        things("nothing there", &|group| group == Group::Empty),
        setting.without_picture(best_constant(exam.scenes.iter().map(|scene| scene.setting))),
        exact.without_picture(best_constant(exam.scenes.iter().map(canonical))),
    ])
}

fn share(name: &str, right: impl Iterator<Item = bool>) -> Figure {
    let cases: Vec<f64> = right.map(|right| if right { 1.0 } else { 0.0 }).collect();
    Figure::share(Part::Captions, name, &cases)
}

fn canonical(scene: &Scene) -> String {
    CaptionPlan::canonical(scene).render(scene).text
}

/// Compares a caption, read as the canonical form, with the scene.
fn marks(scene: &Scene, caption: &str) -> Marks {
    let caption = caption.trim().to_lowercase();
    let said = parse_caption(&caption);
    Marks {
        things: said.is_some_and(|said| said.things == Statement::of(scene).things),
        setting: settings_named(&caption) == [scene.setting],
        exact: caption == canonical(scene),
    }
}

/// The settings whose names stand in a text as whole words.
fn settings_named(text: &str) -> Vec<Setting> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let named = |setting: &Setting| {
        let name: Vec<&str> = setting.name().split(' ').collect();
        words.windows(name.len()).any(|window| *window == name[..])
    };
    Setting::ALL.iter().copied().filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::{Colour, Kind, Split};

    /// A scene of this group.
    fn scene(group: Group) -> Scene {
        (0..1000)
            .map(|index| Scene::generate(Split::Test, index))
            .find(|it| Group::of(it) == group)
            .unwrap()
    }

    #[test]
    fn the_canonical_caption_gets_every_mark_in_any_case() {
        for group in
            [1, 2, 3].map(Group::Different).into_iter().chain([Group::Counted, Group::Empty])
        {
            let scene = scene(group);
            let caption = canonical(&scene);
            let full = Marks { things: true, setting: true, exact: true };
            assert_eq!(marks(&scene, &caption), full, "{caption}");
            assert_eq!(marks(&scene, &format!(" {}\n", caption.to_uppercase())), full);
            // Without its full stop it says the same, in other letters.
            assert_eq!(
                marks(&scene, caption.trim_end_matches('.')),
                Marks { exact: false, ..full }
            );
        }
    }

    #[test]
    fn a_thing_too_many_too_few_or_in_another_colour_is_wrong() {
        let scene = scene(Group::Different(2));
        let said = |change: &dyn Fn(&mut Scene)| {
            let mut told = scene.clone();
            change(&mut told);
            marks(&scene, &canonical(&told)).things
        };
        assert!(said(&|_| ()));
        assert!(!said(&|told| told.things.truncate(1)));
        assert!(!said(&|told| {
            let mut new = told.things[0].clone();
            new.kind = *Kind::ALL.iter().find(|&&kind| scene.count(kind) == 0).unwrap();
            told.things.push(new);
        }));
        assert!(!said(&|told| {
            let taken = scene.things[0].colour;
            told.things[0].colour = *Colour::ALL.iter().find(|&&it| it != taken).unwrap();
        }));
        assert!(!marks(&scene, "I see a picture.").things);
    }

    #[test]
    fn a_setting_is_named_by_whole_words() {
        assert_eq!(settings_named("a red mushroom in a forest."), [Setting::Forest]);
        assert_eq!(settings_named("a blue car in a night sky"), [Setting::NightSky]);
        assert_eq!(
            settings_named("a cup on a beach, in the snow"),
            [Setting::Beach, Setting::Snow]
        );
        assert_eq!(settings_named("night and sky"), []);
    }
}
