//! The examination examined: who knows everything must get every mark, who sees nothing no more
//! than guessing is worth.

use super::*;
use crate::train::scenes::{Caption, CaptionPlan, Question, Scene};
use crate::vlm::Result;

/// Scenes of a test: enough for every kind of edit and question.
const SCENES: usize = 150;

/// Reads every answer off the scene graph.
#[derive(Default)]
struct Oracle(Vec<Scene>);

impl Oracle {
    fn truth(&self, picture: usize, caption: &Caption) -> f32 {
        if caption.is_true_of(&self.0[picture]) { 1.0 } else { 0.0 }
    }
}

impl Judge for Oracle {
    fn begin(&mut self) {
        self.0.clear();
    }

    fn look(&mut self, scenes: &[Scene]) -> Result<()> {
        self.0.extend_from_slice(scenes);
        Ok(())
    }

    fn itc(&mut self, pictures: &[usize], captions: &[&Caption]) -> Result<Vec<Vec<f32>>> {
        let row = |caption: &&Caption| pictures.iter().map(|&it| self.truth(it, caption)).collect();
        Ok(captions.iter().map(row).collect())
    }

    fn itm(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        Ok(pairs.iter().map(|&(picture, caption)| self.truth(picture, caption)).collect())
    }

    fn match_probability(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        self.itm(pairs)
    }

    fn caption(&mut self, pictures: &[usize]) -> Result<Vec<String>> {
        let canonical = |&it: &usize| CaptionPlan::canonical(&self.0[it]).render(&self.0[it]).text;
        Ok(pictures.iter().map(canonical).collect())
    }

    fn answer(&mut self, questions: &[(usize, &Question)]) -> Result<Vec<String>> {
        Ok(questions.iter().map(|(_, question)| question.answer.clone()).collect())
    }
}

/// Says the same whatever it is shown.
struct Blind;

impl Judge for Blind {
    fn begin(&mut self) {}

    fn look(&mut self, _: &[Scene]) -> Result<()> {
        Ok(())
    }

    fn itc(&mut self, pictures: &[usize], captions: &[&Caption]) -> Result<Vec<Vec<f32>>> {
        Ok(vec![vec![0.3; pictures.len()]; captions.len()])
    }

    fn itm(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        Ok(vec![-1.0; pairs.len()])
    }

    fn match_probability(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        Ok(vec![0.5; pairs.len()])
    }

    fn caption(&mut self, pictures: &[usize]) -> Result<Vec<String>> {
        Ok(vec!["a red car on a beach.".to_owned(); pictures.len()])
    }

    fn answer(&mut self, questions: &[(usize, &Question)]) -> Result<Vec<String>> {
        Ok(questions.iter().map(|(_, question)| question.guess.to_owned()).collect())
    }
}

#[test]
fn an_oracle_gets_everything_right_on_every_split() {
    for split in HELD_OUT {
        let report = evaluate(&mut Oracle::default(), split, SCENES, &mut ()).unwrap();
        for figure in &report.figures {
            // No scene of nothing holds a new combination.
            let is_empty = split == Split::Combinations && figure.name == "nothing there";
            let value = if is_empty { None } else { Some(1.0) };
            assert_eq!(figure.value, value, "{split:?}: {figure:?}");
            assert_ne!(figure.is_met(), Some(false), "{split:?}: {figure:?}");
        }
    }
}

#[test]
fn the_blind_get_what_guessing_is_worth() {
    let report = evaluate(&mut Blind, Split::Test, SCENES, &mut ()).unwrap();
    for figure in &report.figures {
        let (value, guess) = (figure.value.unwrap(), figure.no_picture.unwrap());
        if figure.part == Part::Captions {
            // They do not know what is most frequent here.
            assert!(value <= guess, "{figure:?}");
        } else {
            assert!((value - guess).abs() < 1e-9, "{figure:?}");
        }
        assert!(figure.is_met() != Some(true), "{figure:?}");
    }
}

#[test]
fn guessing_does_not_reach_the_goals() {
    let report = evaluate(&mut Blind, Split::Test, SCENES, &mut ()).unwrap();
    for figure in &report.figures {
        let levels = [figure.no_picture, figure.no_question].into_iter().flatten();
        if let Some(Goal::AtLeast(goal)) = figure.goal {
            for level in levels {
                assert!(level < goal, "{figure:?}");
            }
        }
    }
}

#[test]
fn another_split_shows_other_scenes() {
    let scenes = |split| scenes::Exam::new(split, 20).scenes;
    for split in HELD_OUT {
        assert!(scenes(split).iter().all(|scene| split.admits(scene)));
        let train = scenes(Split::Train);
        assert!(scenes(split).iter().all(|scene| !train.contains(scene)));
    }
}
