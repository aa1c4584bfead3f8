//! One ranking of what each side found.

use std::collections::{HashMap, HashSet};

use tinyfind_index::{DocId, RRF_K, reciprocal_rank_fusion};

/// How much each side counts; 0 leaves it out, only their ratio matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Of words: BM25 over caption, names and notes.
    pub words: f32,
    /// Of meaning: the cosine of query and photo.
    pub meaning: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { words: 1.0, meaning: 1.0 }
    }
}

/// What each side made of a hit; `None` where that side did not find it, or was not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SourceScores {
    /// By BM25 over caption, names and notes: above 0, without bound.
    pub words: Option<Placed>,
    /// By the cosine of the query and the nearest of the photo's vectors: -1 to 1.
    pub meaning: Option<Placed>,
    /// Among the photos of alternatives with fields only, newest first; they all score 1.
    pub fields: Option<Placed>,
}

/// The place of a photo in one list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Its rank there; the best has 1.
    pub rank: usize,
    /// Its score there.
    pub score: f32,
    /// What that adds to the score of the hit, 0 to 1; nothing behind the first
    /// [`CANDIDATES`](super::CANDIDATES).
    pub share: f32,
}

/// A list of photos with their scores, best first.
pub(super) type Ranking = Vec<(DocId, f32)>;

/// What each side found; `None` where it was not asked.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) words: Option<Ranking>,
    pub(super) meaning: Option<Ranking>,
    pub(super) fields: Option<Ranking>,
    pub(super) weights: Weights,
}

impl Lists {
    /// The lists there are, with their weights.
    fn weighted(&self) -> impl Iterator<Item = (f32, &Ranking)> {
        // Alternatives with fields only count as much as the side that counts most.
        let fields = self.weights.words.max(self.weights.meaning);
        let all = [
            (self.weights.words, &self.words),
            (self.weights.meaning, &self.meaning),
            (fields, &self.fields),
        ];
        all.into_iter().filter_map(|(weight, list)| Some((weight, list.as_ref()?)))
    }

    /// One ranking of all lists, with scores from 0 to 1.
    pub(super) fn fused(&self, depth: usize) -> Ranking {
        let lists: Vec<(f32, Vec<DocId>)> = self
            .weighted()
            .map(|(weight, list)| (weight, list.iter().map(|(doc, _)| *doc).collect()))
            .collect();
        fuse(&lists, depth)
    }

    /// What each side made of each of `docs`.
    pub(super) fn scores(&self, depth: usize, docs: &[DocId]) -> HashMap<DocId, SourceScores> {
        let best = best_score(self.weighted().map(|(weight, _)| weight));
        let mut scores: HashMap<DocId, SourceScores> =
            docs.iter().map(|doc| (*doc, SourceScores::default())).collect();
        let mut note = |weight: f32, list: &Option<Ranking>, set: fn(&mut SourceScores, Placed)| {
            for (rank, (doc, score)) in (1..).zip(list.iter().flatten()) {
                let Some(scores) = scores.get_mut(doc) else { continue };
                let share = weight / (RRF_K + rank as f32) / best;
                let share = if rank <= depth { share } else { 0.0 };
                set(scores, Placed { rank, score: *score, share });
            }
        };
        let Weights { words, meaning } = self.weights;
        note(words, &self.words, |scores, placed| scores.words = Some(placed));
        note(meaning, &self.meaning, |scores, placed| scores.meaning = Some(placed));
        note(words.max(meaning), &self.fields, |scores, placed| scores.fields = Some(placed));
        scores
    }
}

/// The best of several rankings: each photo once, with its highest score, best first, equal
/// scores by ascending number, `limit` at most. The first `limit` of each are enough to tell.
pub(super) fn merge(rankings: Vec<Ranking>, limit: usize) -> Ranking {
    let mut rankings = rankings;
    if rankings.len() == 1 {
        return rankings.remove(0);
    }
    let mut merged: Ranking = rankings.into_iter().flatten().collect();
    let best_first = |a: &(DocId, f32), b: &(DocId, f32)| b.1.total_cmp(&a.1);
    merged.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(best_first(a, b)));
    merged.dedup_by_key(|(doc, _)| *doc);
    merged.sort_unstable_by(|a, b| best_first(a, b).then(a.0.cmp(&b.0)));
    merged.truncate(limit);
    merged
}

/// What reciprocal rank fusion gives to the first of every list.
fn best_score(weights: impl Iterator<Item = f32>) -> f32 {
    weights.sum::<f32>() / (RRF_K + 1.0)
}

/// One ranking of several weighted ones, with scores from 0 to 1: the first `depth` of each list
/// are fused, what stands below follows by its best rank, and scores less than anything fused.
fn fuse(lists: &[(f32, Vec<DocId>)], depth: usize) -> Ranking {
    let lists: Vec<&(f32, Vec<DocId>)> = lists.iter().filter(|(weight, _)| *weight > 0.0).collect();
    let heads: Vec<(f32, &[DocId])> =
        lists.iter().map(|(weight, list)| (*weight, &list[..list.len().min(depth)])).collect();
    let mut ranked = reciprocal_rank_fusion(&heads);
    let mut seen: HashSet<DocId> = ranked.iter().map(|(doc, _)| *doc).collect();
    let longest = lists.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
    let lightest = lists.iter().map(|(weight, _)| *weight).fold(f32::INFINITY, f32::min);
    for place in depth..longest {
        let mut here: Vec<DocId> =
            lists.iter().filter_map(|(_, list)| list.get(place)).copied().collect();
        here.sort_unstable();
        here.retain(|doc| seen.insert(*doc));
        let score = lightest / (RRF_K + 1.0 + place as f32);
        ranked.extend(here.into_iter().map(|doc| (doc, score)));
    }
    let best = best_score(lists.iter().map(|(weight, _)| *weight));
    for (_, score) in &mut ranked {
        *score = (*score / best).min(1.0);
    }
    ranked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::CANDIDATES;
    use super::*;

    fn docs(numbers: &[u64]) -> (f32, Vec<DocId>) {
        (1.0, numbers.iter().copied().map(DocId).collect())
    }

    #[test]
    fn first_in_every_list_scores_one() {
        let both = fuse(&[docs(&[7, 1]), docs(&[7, 2])], CANDIDATES);
        assert_eq!(both[0], (DocId(7), 1.0));
        let single = fuse(&[docs(&[7, 1])], CANDIDATES);
        assert_eq!(single[0], (DocId(7), 1.0));
        let one_of_two = fuse(&[docs(&[7]), docs(&[])], CANDIDATES);
        assert!((one_of_two[0].1 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_weight_moves_the_ranking_and_a_weight_of_zero_leaves_out() {
        let heavy = fuse(&[(3.0, docs(&[1]).1), docs(&[2])], CANDIDATES);
        assert_eq!((heavy[0].0, heavy[1].0), (DocId(1), DocId(2)));
        assert!((heavy[0].1 - 0.75).abs() < 1e-6 && (heavy[1].1 - 0.25).abs() < 1e-6);
        assert_eq!(fuse(&[(0.0, docs(&[1]).1), docs(&[2])], CANDIDATES), [(DocId(2), 1.0)]);
    }

    #[test]
    fn tenth_in_both_scores_as_documented() {
        let list: Vec<u64> = (0..20).collect();
        let ranked = fuse(&[docs(&list), docs(&list)], CANDIDATES);
        assert!((ranked[9].1 - 0.87).abs() < 0.005, "{}", ranked[9].1);
    }

    #[test]
    fn no_lists_rank_nothing() {
        assert!(fuse(&[docs(&[]), docs(&[])], 3).is_empty());
        assert!(fuse(&[], 3).is_empty());
    }

    #[test]
    fn shares_add_up_to_the_score() {
        let ranking = |numbers: &[u64]| -> Option<Ranking> {
            Some(numbers.iter().map(|number| (DocId(*number), 0.5)).collect())
        };
        let lists = Lists {
            words: ranking(&[4, 5, 6]),
            meaning: ranking(&[6, 7, 4]),
            fields: ranking(&[5, 8]),
            weights: Weights { words: 2.0, meaning: 0.5 },
        };
        let fused = lists.fused(CANDIDATES);
        let docs: Vec<DocId> = fused.iter().map(|(doc, _)| *doc).collect();
        let scores = lists.scores(CANDIDATES, &docs);
        for (doc, score) in fused {
            let SourceScores { words, meaning, fields } = scores[&doc];
            let shares = [words, meaning, fields].into_iter().flatten().map(|it| it.share);
            assert!((shares.sum::<f32>() - score).abs() < 1e-5, "{doc:?}");
        }
        assert_eq!(scores[&DocId(4)].meaning.unwrap().rank, 3);
        let some = lists.scores(CANDIDATES, &docs[1..2]);
        assert_eq!(some, HashMap::from([(docs[1], scores[&docs[1]])]));
    }

    #[test]
    fn a_photo_of_several_rankings_keeps_its_highest_score() {
        let rankings = vec![
            vec![(DocId(1), 0.9), (DocId(2), 0.1)],
            vec![(DocId(2), 0.9), (DocId(3), 0.2), (DocId(1), 0.1)],
        ];
        let merged = merge(rankings, 2);
        assert_eq!(merged, [(DocId(1), 0.9), (DocId(2), 0.9)]);
        assert!(merge(Vec::new(), 2).is_empty());
    }

    fn list() -> impl Strategy<Value = (f32, Vec<DocId>)> {
        let all: Vec<u64> = (0..30).collect();
        let list = proptest::sample::subsequence(all, 0..30)
            .prop_shuffle()
            .prop_map(|numbers| numbers.into_iter().map(DocId).collect());
        (0.1_f32..10.0, list)
    }

    proptest! {
        #[test]
        fn the_best_k_are_the_head_of_the_best_2k(
            words in list(), meaning in list(), depth in 1_usize..10, top in 0_usize..30,
        ) {
            let cut = |limit: usize| {
                let limit = limit.max(depth);
                let head = |(weight, list): &(f32, Vec<DocId>)| {
                    (*weight, list[..list.len().min(limit)].to_vec())
                };
                fuse(&[head(&words), head(&meaning)], depth)
            };
            let (short, long) = (cut(top), cut(2 * top));
            let n = top.min(long.len());
            prop_assert!(short.len() >= n);
            prop_assert_eq!(&short[..n], &long[..n]);
        }

        #[test]
        fn scores_fall_and_lie_between_zero_and_one(
            words in list(), meaning in list(), depth in 1_usize..10,
        ) {
            let ranked = fuse(&[words, meaning], depth);
            prop_assert!(ranked.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
            prop_assert!(ranked.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let distinct: HashSet<DocId> = ranked.iter().map(|(doc, _)| *doc).collect();
            prop_assert_eq!(distinct.len(), ranked.len());
        }

        #[test]
        fn the_order_of_the_lists_makes_no_difference(
            a in list(), b in list(), c in list(), depth in 1_usize..10,
        ) {
            let docs = |ranked: Ranking| ranked.into_iter().map(|(doc, _)| doc).collect::<Vec<_>>();
            let forth = docs(fuse(&[a.clone(), b.clone(), c.clone()], depth));
            prop_assert_eq!(forth, docs(fuse(&[c, a, b], depth)));
        }
    }
}
