//! The examination: which scenes, which captions, in which order.

use super::figures::Figure;
use super::judge::Judge;
use super::{answers, binding, captions, retrieval};
use crate::train::scenes::{Caption, CaptionPlan, Scene, Split};
use crate::vlm::Result;

/// Number of the first scene that is examined. Those before it are left to whoever trains: what
/// a training is steered by is no examination.
pub const FIRST: u64 = 1 << 32;

/// The most pictures among which one is to be found.
pub const GALLERY: usize = 1000;

/// Cases between two reports of progress.
const BATCH: usize = 256;

/// Hears how far an evaluation has come.
pub trait Reporter {
    /// A phase begins, of so many steps.
    fn begin(&mut self, phase: &'static str, steps: usize) {
        let _ = (phase, steps);
    }

    /// So many more steps of the phase are done.
    fn advance(&mut self, steps: usize) {
        let _ = steps;
    }
}

impl Reporter for () {}

/// What came of an evaluation on one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where the scenes come from.
    pub split: Split,
    /// How many were looked at.
    pub scenes: usize,
    /// Among how many a picture was to be found.
    pub gallery: usize,
    /// What was measured, part by part.
    pub figures: Vec<Figure>,
}

/// Shows `judge` the first `scenes` examination scenes of a split and measures what it says.
///
/// The same arguments give the same scenes, captions and questions, so a judge that always says
/// the same gets the same figures.
///
/// # Errors
///
/// Those of the judge.
pub fn evaluate(
    judge: &mut dyn Judge,
    split: Split,
    scenes: usize,
    reporter: &mut dyn Reporter,
) -> Result<Report> {
    let exam = Exam::new(split, scenes);
    let gallery = exam.gallery();
    judge.begin();
    reporter.begin("looking", scenes);
    for batch in exam.scenes.chunks(BATCH) {
        judge.look(batch)?;
        reporter.advance(batch.len());
    }
    let mut figures = retrieval::figures(judge, &exam, &gallery, reporter)?;
    figures.extend(binding::figures(judge, &exam, reporter)?);
    figures.extend(captions::figures(judge, &exam, reporter)?);
    figures.extend(answers::figures(judge, &exam, reporter)?);
    Ok(Report { split, scenes, gallery: gallery.len(), figures })
}

/// Scenes with a caption each.
pub(super) struct Exam {
    pub(super) scenes: Vec<Scene>,
    /// How each scene is described: everything in it, in varied wording.
    pub(super) plans: Vec<CaptionPlan>,
    /// Those descriptions.
    pub(super) captions: Vec<Caption>,
}

impl Exam {
    pub(super) fn new(split: Split, scenes: usize) -> Self {
        let scenes: Vec<Scene> =
            (FIRST..).take(scenes).map(|index| Scene::generate(split, index)).collect();
        let plans: Vec<CaptionPlan> =
            (FIRST..).zip(&scenes).map(|(index, scene)| CaptionPlan::full(scene, index)).collect();
        let captions = plans.iter().zip(&scenes).map(|(plan, scene)| plan.render(scene)).collect();
        Self { scenes, plans, captions }
    }

    /// Up to [`GALLERY`] scenes whose captions are each true of one of them only.
    pub(super) fn gallery(&self) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        for new in 0..self.scenes.len() {
            let ambiguous = chosen.iter().any(|&old| {
                self.captions[new].is_true_of(&self.scenes[old])
                    || self.captions[old].is_true_of(&self.scenes[new])
            });
            if !ambiguous {
                chosen.push(new);
            }
            if chosen.len() == GALLERY {
                break;
            }
        }
        chosen
    }
}

/// What `work` makes of each case, batch by batch, with a step of progress for each.
pub(super) fn in_batches<C, T>(
    cases: &[C],
    reporter: &mut dyn Reporter,
    mut work: impl FnMut(&[C]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(cases.len());
    for batch in cases.chunks(BATCH) {
        results.extend(work(batch)?);
        reporter.advance(batch.len());
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_of_the_gallery_is_true_of_one_picture_only() {
        let exam = Exam::new(Split::Test, 300);
        let gallery = exam.gallery();
        // Most scenes are told apart by their captions, and not all: a red car on a beach is
        // also in the picture of a red car and a cup on a beach.
        assert!((150..300).contains(&gallery.len()), "{}", gallery.len());
        for &one in &gallery {
            let fits = |&&of: &&usize| exam.captions[one].is_true_of(&exam.scenes[of]);
            let of: Vec<&usize> = gallery.iter().filter(fits).collect();
            assert_eq!(of, [&one], "{}", exam.captions[one].text);
        }
    }

    #[test]
    fn batches_keep_the_order_and_count_every_step() {
        struct Counter(usize);
        impl Reporter for Counter {
            fn advance(&mut self, steps: usize) {
                self.0 += steps;
            }
        }
        let (cases, mut counter) = ((0..600).collect::<Vec<i32>>(), Counter(0));
        let doubled = in_batches(&cases, &mut counter, |batch| {
            Ok(batch.iter().map(|case| 2 * case).collect())
        });
        assert_eq!(doubled.unwrap(), (0..600).map(|case| 2 * case).collect::<Vec<_>>());
        assert_eq!(counter.0, 600);
    }
}
