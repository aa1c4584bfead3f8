//! Answers to questions.

use super::figures::{Figure, Goal, Part, mean};
use super::judge::Judge;
use super::scenes::{Exam, FIRST, Reporter, in_batches};
use crate::train::scenes::{Question, QuestionKind, Scene, questions};
use crate::vlm::Result;

/// The words for numbers, in their order.
const NUMBERS: [&str; 7] = ["zero", "one", "two", "three", "four", "five", "six"];

/// How often each kind of question is answered as the scene says.
pub(super) fn figures(
    judge: &mut dyn Judge,
    exam: &Exam,
    reporter: &mut dyn Reporter,
) -> Result<Vec<Figure>> {
    let asked: Vec<Vec<Question>> =
        exam.scenes.iter().zip(FIRST..).map(|(scene, seed)| questions(scene, seed)).collect();
    let asked: Vec<(usize, &Question)> = asked
        .iter()
        .enumerate()
        .flat_map(|(scene, questions)| questions.iter().map(move |question| (scene, question)))
        .collect();
    reporter.begin("questions", asked.len());
    let answers = in_batches(&asked, reporter, |batch| judge.answer(batch))?;
    let figure = |&kind: &QuestionKind| {
        let of: Vec<(&Scene, &Question, &String)> = asked
            .iter()
            .zip(&answers)
            .filter(|((_, question), _)| question.kind == kind)
            .map(|(&(scene, question), answer)| (&exam.scenes[scene], question, answer))
            .collect();
        let right: Vec<f64> =
            of.iter().map(|(_, question, answer)| mark(question, answer)).collect();
        let guessed: Vec<f64> =
            of.iter().map(|(_, question, _)| mark(question, question.guess)).collect();
        let unasked: Option<Vec<f64>> =
            of.iter().map(|(scene, question, _)| without_question(scene, question)).collect();
        Figure {
            no_question: unasked.as_deref().and_then(mean),
            ..Figure::share(Part::Answers, name(kind), &right)
                .without_picture(mean(&guessed))
                .with_goal(goal(kind).map(Goal::AtLeast))
        }
    };
    Ok(QuestionKind::ALL.iter().map(figure).collect())
}

/// 1 for the right answer, else 0. Case and a full stop do not matter; other words do.
fn mark(question: &Question, answer: &str) -> f64 {
    let answer = answer.trim().to_lowercase();
    if answer.strip_suffix('.').unwrap_or(&answer) == question.answer { 1.0 } else { 0.0 }
}

/// How likely somebody is right who sees the picture and knows which kind of question is asked,
/// but not of what: who names the colour or kind of some thing, and counts the most frequent
/// kind. `None` where there is nothing else to hear.
fn without_question(scene: &Scene, question: &Question) -> Option<f64> {
    let share = |fits: &dyn Fn(usize) -> bool| {
        let things = scene.things.len();
        (0..things).filter(|&thing| fits(thing)).count() as f64 / things.max(1) as f64
    };
    match question.kind {
        QuestionKind::Colour => {
            Some(share(&|thing| scene.things[thing].colour.name() == question.answer))
        }
        QuestionKind::Relation | QuestionKind::What => {
            Some(share(&|thing| scene.things[thing].kind.name() == question.answer))
        }
        QuestionKind::Count => {
            let most = scene.things.iter().map(|thing| scene.count(thing.kind)).max().unwrap_or(0);
            let answer = NUMBERS.iter().position(|&number| number == question.answer);
            Some(if answer == Some(most) { 1.0 } else { 0.0 })
        }
        QuestionKind::Exists
        | QuestionKind::ExistsColour
        | QuestionKind::TrueFalse
        | QuestionKind::Match => Some(0.5),
        QuestionKind::Setting => None,
    }
}

fn name(kind: QuestionKind) -> &'static str {
    match kind {
        QuestionKind::Colour => "colour",
        QuestionKind::Exists => "exists",
        QuestionKind::ExistsColour => "exists with colour",
        QuestionKind::Count => "count",
        QuestionKind::Relation => "relation",
        QuestionKind::TrueFalse => "true or false",
        QuestionKind::What => "what has the colour",
        QuestionKind::Setting => "setting",
        QuestionKind::Match => "match",
    }
}

fn goal(kind: QuestionKind) -> Option<f64> {
    match kind {
        QuestionKind::Colour => Some(0.90),
        QuestionKind::Exists => Some(0.95),
        QuestionKind::Count => Some(0.85),
        QuestionKind::Relation => Some(0.80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::{Colour, Kind, Split};

    fn question(kind: QuestionKind, answer: &str) -> Question {
        let answer = answer.to_owned();
        Question { kind, text: String::new(), answer, short: None, guess: kind.guess() }
    }

    #[test]
    fn an_answer_is_right_word_for_word() {
        let asked = question(QuestionKind::Setting, "night sky");
        for right in ["night sky", " Night sky.\n"] {
            assert_eq!(mark(&asked, right), 1.0, "{right}");
        }
        for wrong in ["", "night", "a night sky", "night sky.."] {
            assert_eq!(mark(&asked, wrong), 0.0, "{wrong}");
        }
    }

    #[test]
    fn without_the_question_one_thing_is_as_likely_as_another() {
        let mut scenes = (0..100).map(|index| Scene::generate(Split::Test, index));
        let mut scene = scenes.find(|it| it.things.len() == 3 && !it.is_counted()).unwrap();
        let (one, other) = (Colour::Red, Colour::Blue);
        for (thing, colour) in [one, other, one].into_iter().enumerate() {
            scene.things[thing].colour = colour;
            scene.things[thing].kind = Kind::ALL[thing];
        }
        let level = |kind, answer: &str| without_question(&scene, &question(kind, answer));
        assert_eq!(level(QuestionKind::Colour, "red"), Some(2.0 / 3.0));
        assert_eq!(level(QuestionKind::Colour, "blue"), Some(1.0 / 3.0));
        assert_eq!(level(QuestionKind::Relation, Kind::ALL[1].name()), Some(1.0 / 3.0));
        assert_eq!(level(QuestionKind::Count, "one"), Some(1.0));
        assert_eq!(level(QuestionKind::Count, "three"), Some(0.0));
        assert_eq!(level(QuestionKind::Match, "no"), Some(0.5));
        assert_eq!(level(QuestionKind::Setting, "beach"), None);
    }
}
