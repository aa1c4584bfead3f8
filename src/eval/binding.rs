//! True captions told from such as are false in one fact.

use super::figures::{Figure, Goal, Part, Unit, auc, paired};
use super::judge::Judge;
use super::scenes::{Exam, FIRST, Reporter, in_batches};
use crate::train::scenes::{Caption, EditKind, edits};
use crate::vlm::Result;

/// Share of colour swaps and reversed relations to be told from the truth.
const PAIRED_GOAL: f64 = 0.90;
/// The goal over all edits.
const AUC_GOAL: f64 = 0.95;

/// The false captions of a scene whose true one says something that can be falsified.
struct Case {
    scene: usize,
    edits: Vec<(EditKind, Caption)>,
}

/// How a caption's score comes about.
struct Scores {
    name: &'static str,
    /// Whether scores of different pictures can be compared, and goals are set for them.
    is_verdict: bool,
    /// The true caption's, then those of the edits.
    of_cases: Vec<Vec<f32>>,
}

/// How often each score puts the true caption above an edit of each kind, and the area under
/// the curve over all of them.
pub(super) fn figures(
    judge: &mut dyn Judge,
    exam: &Exam,
    reporter: &mut dyn Reporter,
) -> Result<Vec<Figure>> {
    let cases = cases(exam);
    let pairs: Vec<(usize, &Caption)> = cases
        .iter()
        .flat_map(|case| case.captions(exam).into_iter().map(|caption| (case.scene, caption)))
        .collect();
    reporter.begin("binding", 3 * pairs.len());
    let mut itc = Vec::with_capacity(cases.len());
    for case in &cases {
        let captions = case.captions(exam);
        let rows = judge.itc(&[case.scene], &captions)?;
        itc.push(rows.iter().map(|row| row.first().copied().unwrap_or(f32::NAN)).collect());
        reporter.advance(captions.len());
    }
    let itm = in_batches(&pairs, reporter, |batch| judge.itm(batch))?;
    let language = in_batches(&pairs, reporter, |batch| judge.match_probability(batch))?;
    let scores = [
        Scores { name: "ITC", is_verdict: false, of_cases: itc },
        Scores { name: "ITM", is_verdict: true, of_cases: by_case(&cases, &itm) },
        Scores { name: "LM", is_verdict: true, of_cases: by_case(&cases, &language) },
    ];
    let mut figures = Vec::new();
    for &kind in EditKind::ALL {
        figures.extend(scores.iter().map(|scores| scores.told_apart(kind, &cases)));
    }
    figures.extend(scores.iter().filter(|scores| scores.is_verdict).map(Scores::auc));
    Ok(figures)
}

/// Of each scene at most one edit of each kind, not always of the first thing.
fn cases(exam: &Exam) -> Vec<Case> {
    let mut cases = Vec::new();
    for (scene, seed) in (0..exam.scenes.len()).zip(FIRST..) {
        let all = edits(&exam.scenes[scene], &exam.plans[scene], seed);
        let one = |&kind: &EditKind| {
            let same: Vec<&Caption> =
                all.iter().filter(|edit| edit.kind == kind).map(|edit| &edit.caption).collect();
            same.get(scene % same.len().max(1)).map(|&caption| (kind, caption.clone()))
        };
        let edits: Vec<(EditKind, Caption)> = EditKind::ALL.iter().filter_map(one).collect();
        if !edits.is_empty() {
            cases.push(Case { scene, edits });
        }
    }
    cases
}

impl Case {
    /// The true caption, then the false ones.
    fn captions<'a>(&'a self, exam: &'a Exam) -> Vec<&'a Caption> {
        let edits = self.edits.iter().map(|(_, caption)| caption);
        std::iter::once(&exam.captions[self.scene]).chain(edits).collect()
    }
}

/// Scores in one list as a list for each case.
fn by_case(cases: &[Case], scores: &[f32]) -> Vec<Vec<f32>> {
    let mut rest = scores;
    let mut lists = Vec::with_capacity(cases.len());
    for case in cases {
        let (list, after) = rest.split_at(rest.len().min(case.edits.len() + 1));
        lists.push(list.to_vec());
        rest = after;
    }
    lists
}

impl Scores {
    /// How often the true caption stands above its edit of this kind.
    fn told_apart(&self, kind: EditKind, cases: &[Case]) -> Figure {
        let mut pairs = Vec::new();
        for (case, scores) in cases.iter().zip(&self.of_cases) {
            let Some((truth, falsehoods)) = scores.split_first() else { continue };
            let edits = case.edits.iter().zip(falsehoods);
            let edits = edits.filter(|((of, _), _)| *of == kind);
            pairs.extend(edits.map(|(_, falsehood)| paired(*truth, *falsehood)));
        }
        let is_hard = matches!(kind, EditKind::ColourSwap | EditKind::Relation);
        let goal = (self.is_verdict && is_hard).then_some(Goal::AtLeast(PAIRED_GOAL));
        Figure::share(Part::Binding, format!("{}, {}", name(kind), self.name), &pairs)
            .without_picture(Some(0.5))
            .with_goal(goal)
    }

    /// Area under the curve of all true captions against all edits.
    fn auc(&self) -> Figure {
        let lists = || self.of_cases.iter().filter_map(|scores| scores.split_first());
        let truths: Vec<f32> = lists().map(|(truth, _)| *truth).collect();
        let falsehoods: Vec<f32> = lists().flat_map(|(_, rest)| rest).copied().collect();
        Figure {
            part: Part::Binding,
            name: format!("AUC over all edits, {}", self.name),
            unit: Unit::Auc,
            cases: truths.len() + falsehoods.len(),
            value: auc(&truths, &falsehoods),
            no_picture: Some(0.5),
            no_question: None,
            goal: Some(Goal::AtLeast(AUC_GOAL)),
        }
    }
}

/// What is false.
fn name(kind: EditKind) -> &'static str {
    match kind {
        EditKind::Colour => "colour",
        EditKind::Kind => "kind",
        EditKind::Setting => "setting",
        EditKind::Count => "count",
        EditKind::ColourSwap => "colour swap",
        EditKind::Relation => "relation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::Split;

    #[test]
    fn every_kind_of_edit_comes_often_enough_to_be_measured() {
        let exam = Exam::new(Split::Test, 400);
        let cases = cases(&exam);
        for &kind in EditKind::ALL {
            let edits = cases.iter().flat_map(|case| &case.edits);
            let count = edits.filter(|(of, _)| *of == kind).count();
            assert!(count >= 40, "{kind:?}: {count}");
        }
    }

    #[test]
    fn scores_are_compared_within_a_case_and_the_curve_is_drawn_over_all() {
        let caption = Caption { text: String::new(), mentions: Vec::new() };
        let case = |scene, kinds: &[EditKind]| Case {
            scene,
            edits: kinds.iter().map(|&kind| (kind, caption.clone())).collect(),
        };
        let cases = [
            case(0, &[EditKind::Colour, EditKind::Relation]),
            case(1, &[EditKind::Relation]),
            case(2, &[EditKind::Relation]),
        ];
        let of_cases = by_case(&cases, &[0.9, 0.1, 0.95, 0.3, 0.2, 0.4, 0.4]);
        assert_eq!(of_cases, [vec![0.9, 0.1, 0.95], vec![0.3, 0.2], vec![0.4, 0.4]]);
        let scores = Scores { name: "ITM", is_verdict: true, of_cases };
        let relation = scores.told_apart(EditKind::Relation, &cases);
        assert_eq!((relation.cases, relation.value), (3, Some(0.5)));
        assert_eq!(scores.told_apart(EditKind::Colour, &cases).value, Some(1.0));
        assert_eq!(scores.told_apart(EditKind::Count, &cases).value, None);
        // 0.9 beats 3 of 4, 0.3 beats 2, 0.4 beats 2 and draws with one: 7.5 of 12 pairs.
        let auc = scores.auc();
        assert_eq!((auc.cases, auc.value), (7, Some(7.5 / 12.0)));
    }
}
