//! Pictures found by captions, and captions by pictures.

use std::collections::{BTreeMap, BTreeSet};

use super::figures::{Figure, Goal, Part, Rank};
use super::judge::Judge;
use super::scenes::{Exam, Reporter, in_batches};
use crate::train::scenes::Caption;
use crate::vlm::Result;

/// How many of the best by ITC are put in a new order by ITM.
const SHORTLIST: usize = 10;

/// What recall is measured at, with the goals for captions that look for a picture.
const RECALLS: [(usize, f64); 2] = [(1, 0.90), (5, 0.98)];

/// Recall among the gallery, whose captions are each true of one of its pictures only.
pub(super) fn figures(
    judge: &mut dyn Judge,
    exam: &Exam,
    gallery: &[usize],
    reporter: &mut dyn Reporter,
) -> Result<Vec<Figure>> {
    let captions: Vec<&Caption> = gallery.iter().map(|&scene| &exam.captions[scene]).collect();
    // By caption and picture; both are named by their place in the gallery.
    let by_caption = judge.itc(gallery, &captions)?;
    let by_picture: Vec<Vec<f32>> = (0..gallery.len())
        .map(|picture| by_caption.iter().map(|row| row[picture]).collect())
        .collect();
    let pictures_of: Vec<Vec<usize>> = by_caption.iter().map(|row| best(row)).collect();
    let captions_of: Vec<Vec<usize>> = by_picture.iter().map(|row| best(row)).collect();
    let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
    for place in 0..gallery.len() {
        pairs.extend(pictures_of[place].iter().map(|&picture| (picture, place)));
        pairs.extend(captions_of[place].iter().map(|&caption| (place, caption)));
    }
    // In the order of the pictures, so that each is looked at once.
    let asked: Vec<(usize, &Caption)> =
        pairs.iter().map(|&(picture, caption)| (gallery[picture], captions[caption])).collect();
    reporter.begin("retrieval", asked.len());
    let scores = in_batches(&asked, reporter, |batch| judge.itm(batch))?;
    let matching: BTreeMap<(usize, usize), f32> = pairs.into_iter().zip(scores).collect();
    let score = |picture: usize, caption: usize| {
        matching.get(&(picture, caption)).copied().unwrap_or(f32::NAN)
    };
    let to_image = ranks(&by_caption);
    let to_image_again = ranks_again(&pictures_of, |caption, picture| score(picture, caption));
    let to_text = ranks(&by_picture);
    let to_text_again = ranks_again(&captions_of, score);
    let mut figures = Vec::new();
    for (k, goal) in RECALLS {
        let chance = (k as f64 / gallery.len().max(1) as f64).min(1.0);
        let recall = |name: &str, ranks: &[Option<Rank>]| {
            let hits: Vec<f64> =
                ranks.iter().map(|rank| rank.map_or(0.0, |rank| rank.hit(k))).collect();
            Figure::share(Part::Retrieval, name, &hits).without_picture(Some(chance))
        };
        // Looking closer must help.
        let above = |figure: &Figure| figure.value.map(Goal::Above);
        let found = recall(&format!("text to image, R@{k}, ITC"), &to_image);
        let found = found.with_goal(Some(Goal::AtLeast(goal)));
        let again = recall(&format!("text to image, R@{k}, ITM of 10"), &to_image_again);
        let again = again.with_goal(if k == 1 { above(&found) } else { None });
        figures.extend([found, again]);
        figures.push(recall(&format!("image to text, R@{k}, ITC"), &to_text));
        figures.push(recall(&format!("image to text, R@{k}, ITM of 10"), &to_text_again));
    }
    Ok(figures)
}

/// Places of the highest scores, best first, equal ones by their place.
fn best(scores: &[f32]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    // What is no number comes last.
    let key = |place: usize| if scores[place].is_nan() { f32::NEG_INFINITY } else { scores[place] };
    places.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    places.truncate(SHORTLIST);
    places
}

/// The rank of the right one in each row, which stands at the row's own place.
fn ranks(rows: &[Vec<f32>]) -> Vec<Option<Rank>> {
    rows.iter().enumerate().map(|(right, row)| Some(Rank::of(row, right))).collect()
}

/// The same among each row's shortlist by a second score; `None` where the right one is not on
/// it.
fn ranks_again(
    shortlists: &[Vec<usize>],
    score: impl Fn(usize, usize) -> f32,
) -> Vec<Option<Rank>> {
    let rank = |(row, shortlist): (usize, &Vec<usize>)| {
        let right = shortlist.iter().position(|&place| place == row)?;
        let scores: Vec<f32> = shortlist.iter().map(|&place| score(row, place)).collect();
        Some(Rank::of(&scores, right))
    };
    shortlists.iter().enumerate().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortlist_holds_the_best_in_their_order() {
        assert_eq!(best(&[0.1, f32::NAN, 0.9, 0.1]), [2, 0, 3, 1]);
        let scores: Vec<f32> = (0..30).map(|it| it as f32).collect();
        assert_eq!(best(&scores), [29, 28, 27, 26, 25, 24, 23, 22, 21, 20]);
    }

    #[test]
    fn a_second_look_changes_the_order_of_the_shortlist_only() {
        // Row 0: right one second of its list, best by the second score. Row 1: not on the list.
        let ranks = ranks_again(&[vec![2, 0], vec![0, 2]], |_, place| -(place as f32));
        assert_eq!(ranks[0].map(|rank| rank.hit(1)), Some(1.0));
        assert_eq!(ranks[1], None);
    }
}
