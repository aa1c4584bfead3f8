//! What is measured, and the arithmetic of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Pictures found by captions and captions by pictures.
    Retrieval,
    /// True captions told from such as are false in one fact.
    Binding,
    /// Captions that the model writes.
    Captions,
    /// Answers to questions.
    Answers,
}

impl Part {
    /// Its word, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retrieval => "retrieval",
            Self::Binding => "binding",
            Self::Captions => "captions",
            Self::Answers => "answers",
        }
    }
}

/// How a figure is read. All lie between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Part of the cases that were right.
    Share,
    /// Area under the curve of true against false positives: the chance that a true case scores
    /// above a false one.
    Auc,
}

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// More than this, where there is more than this.
    Above(f64),
}

/// One number of an evaluation, with what it must be compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The group that it belongs to.
    pub part: Part,
    /// What it is, in a few words, such as "colour swap, ITM".
    pub name: String,
    /// How it is read.
    pub unit: Unit,
    /// How many captions, pairs or questions it was taken from; for an [`Unit::Auc`], true and
    /// false ones together.
    pub cases: usize,
    /// What was measured; `None` where there were no cases.
    pub value: Option<f64>,
    /// What is reached without looking at the picture: by chance, or by always saying what is
    /// right most often.
    pub no_picture: Option<f64>,
    /// What is reached by looking at the picture without hearing more than which kind of
    /// question is asked; `None` where nothing is asked, or hearing adds nothing.
    pub no_question: Option<f64>,
    /// What it is to reach, if anything.
    pub goal: Option<Goal>,
}

impl Figure {
    /// The share of right cases, each counted from 0 (wrong) to 1 (right).
    pub(super) fn share(part: Part, name: impl Into<String>, cases: &[f64]) -> Self {
        Self {
            part,
            name: name.into(),
            unit: Unit::Share,
            cases: cases.len(),
            value: mean(cases),
            no_picture: None,
            no_question: None,
            goal: None,
        }
    }

    /// The figure with what is reached without the picture.
    pub(super) fn without_picture(self, no_picture: Option<f64>) -> Self {
        Self { no_picture, ..self }
    }

    /// The figure with a goal, if there is one.
    pub(super) fn with_goal(self, goal: Option<Goal>) -> Self {
        Self { goal, ..self }
    }

    /// Whether it reaches its goal; `None` where there is no goal or nothing was measured.
    pub fn is_met(&self) -> Option<bool> {
        let value = self.value?;
        Some(match self.goal? {
            Goal::AtLeast(goal) => value >= goal,
            Goal::Above(goal) => value > goal || value >= 1.0,
        })
    }
}

/// The mean; `None` of nothing.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Where the right one of several stands by its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    /// Others that score higher, or that have no number for a score.
    above: usize,
    /// Others that score the same.
    level: usize,
}

impl Rank {
    /// The rank of `scores[right]`. A right one without a number comes last.
    pub(super) fn of(scores: &[f32], right: usize) -> Self {
        let mut rank = Self { above: 0, level: 0 };
        for (at, score) in scores.iter().enumerate() {
            if at == right {
                continue;
            }
            match score.partial_cmp(&scores[right]) {
                Some(Ordering::Less) => {}
                Some(Ordering::Equal) => rank.level += 1,
                Some(Ordering::Greater) | None => rank.above += 1,
            }
        }
        rank
    }

    /// Chance, 0 to 1, that it is among the first `k` where equals come in random order: so
    /// scores that are all the same have the recall of guessing, and not a perfect one.
    pub(super) fn hit(self, k: usize) -> f64 {
        let places = k.saturating_sub(self.above) as f64;
        (places / (self.level + 1) as f64).min(1.0)
    }
}

/// 1 where the true one scores above the false one, 0.5 where they score the same, else 0.
pub(super) fn paired(truth: f32, falsehood: f32) -> f64 {
    match truth.partial_cmp(&falsehood) {
        Some(Ordering::Greater) => 1.0,
        Some(Ordering::Equal) => 0.5,
        Some(Ordering::Less) | None => 0.0,
    }
}

/// Area under the ROC curve, as the rank-sum of Mann and Whitney (1947) over the number of
/// pairs; equal scores count half. `None` without true or without false ones.
///
/// What is no number scores lowest among the true and highest among the false.
pub(super) fn auc(truths: &[f32], falsehoods: &[f32]) -> Option<f64> {
    if truths.is_empty() || falsehoods.is_empty() {
        return None;
    }
    let orderly = |score: f32, otherwise: f32| if score.is_nan() { otherwise } else { score };
    let mut scores: Vec<(f32, bool)> =
        truths.iter().map(|&score| (orderly(score, f32::NEG_INFINITY), true)).collect();
    scores.extend(falsehoods.iter().map(|&score| (orderly(score, f32::INFINITY), false)));
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0.0, 0.0);
    for equals in scores.chunk_by(|a, b| a.0 == b.0) {
        let of_truth = equals.iter().filter(|(_, is_true)| *is_true).count() as f64;
        let of_falsehood = equals.len() as f64 - of_truth;
        sum += of_truth * (below + of_falsehood / 2.0);
        below += of_falsehood;
    }
    Some(sum / (truths.len() as f64 * falsehoods.len() as f64))
}

/// The share that always giving the most frequent answer gets right; `None` without answers.
pub(super) fn best_constant<T: Ord>(answers: impl IntoIterator<Item = T>) -> Option<f64> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    counts.values().max().map(|&most| most as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_a_right_one_among_the_first() {
        let scores = [0.1, 0.9, 0.5, 0.7];
        let hits = |right: usize| [1, 2, 3].map(|k| Rank::of(&scores, right).hit(k));
        assert_eq!(hits(1), [1.0, 1.0, 1.0]);
        assert_eq!(hits(3), [0.0, 1.0, 1.0]);
        assert_eq!(hits(0), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn equal_scores_are_worth_a_guess() {
        let rank = Rank::of(&[0.5; 4], 2);
        assert_eq!([1, 2, 4, 9].map(|k| rank.hit(k)), [0.25, 0.5, 1.0, 1.0]);
        // One above, one equal: the second place is won every other time.
        let rank = Rank::of(&[0.9, 0.5, 0.5, 0.1], 1);
        assert_eq!([1, 2, 3].map(|k| rank.hit(k)), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn what_is_no_number_is_never_right() {
        assert_eq!(Rank::of(&[f32::NAN, 0.1, 0.2], 0), Rank { above: 2, level: 0 });
        assert_eq!(Rank::of(&[0.1, f32::NAN], 0), Rank { above: 1, level: 0 });
        assert_eq!(paired(f32::NAN, 0.0), 0.0);
        assert_eq!(auc(&[f32::NAN], &[0.0]), Some(0.0));
        assert_eq!(auc(&[1.0], &[f32::NAN]), Some(0.0));
    }

    #[test]
    fn pairs_count_one_half_or_nothing() {
        assert_eq!(paired(0.6, 0.4), 1.0);
        assert_eq!(paired(0.4, 0.4), 0.5);
        assert_eq!(paired(0.4, 0.6), 0.0);
    }

    #[test]
    fn auc_is_the_share_of_pairs_in_order() {
        assert_eq!(auc(&[0.9, 0.8], &[0.1, 0.2]), Some(1.0));
        assert_eq!(auc(&[0.1], &[0.9]), Some(0.0));
        assert_eq!(auc(&[0.5; 3], &[0.5; 7]), Some(0.5));
        // 3 > 1, 2, half of 3; 2 > 1, half of 2; of six pairs 4 are in order.
        assert_eq!(auc(&[3.0, 2.0], &[1.0, 2.0, 3.0]), Some(4.0 / 6.0));
        assert_eq!(auc(&[], &[1.0]), None);
        assert_eq!(auc(&[1.0], &[]), None);
    }

    #[test]
    fn the_most_frequent_answer_is_the_best_without_looking() {
        assert_eq!(best_constant(["red", "blue", "red", "green"]), Some(0.5));
        assert_eq!(best_constant::<u8>([]), None);
    }

    #[test]
    fn goals_are_met_at_their_number_or_above_it() {
        let figure = |value: f64, goal| {
            Figure::share(Part::Answers, "x", &[value]).with_goal(Some(goal)).is_met()
        };
        assert_eq!(figure(0.9, Goal::AtLeast(0.9)), Some(true));
        assert_eq!(figure(0.89, Goal::AtLeast(0.9)), Some(false));
        assert_eq!(figure(0.9, Goal::Above(0.9)), Some(false));
        assert_eq!(figure(1.0, Goal::Above(1.0)), Some(true));
        assert_eq!(Figure::share(Part::Answers, "x", &[1.0]).is_met(), None);
        let nothing = Figure::share(Part::Answers, "x", &[]).with_goal(Some(Goal::AtLeast(0.9)));
        assert_eq!((nothing.value, nothing.is_met()), (None, None));
    }
}
