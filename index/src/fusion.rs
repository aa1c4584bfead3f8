//! Several ranked lists become one.

use crate::document::DocId;

/// How little the first ranks weigh over later ones: the value of the paper.
pub const RRF_K: f32 = 60.0;

/// Fuses ranked lists, each with its weight, into one by reciprocal rank fusion.
///
/// A document at rank `r` (the best is 1) of a list adds `weight / (60 + r)` to its score; a
/// document a list lacks gets nothing from it. No list may repeat a document, and no weight may
/// be negative or infinite; a list of weight 0 takes no part.
///
/// Returns each document once, best first, equal scores by ascending [`DocId`]. Scores lie
/// above 0 and up to the sum of the weights over 61. The order of the lists makes no difference,
/// to the last bit.
///
/// Source: Cormack, Clarke and Buettcher, SIGIR 2009, where every weight is 1.
pub fn reciprocal_rank_fusion(lists: &[(f32, &[DocId])]) -> Vec<(DocId, f32)> {
    let lists = lists.iter().filter(|(weight, _)| *weight > 0.0);
    let mut shares: Vec<(DocId, f32)> = lists
        .flat_map(|(weight, list)| {
            (1_u32..).zip(*list).map(move |(rank, &doc)| (doc, weight / (RRF_K + rank as f32)))
        })
        .collect();
    // Sums of floats depend on their order, so the order is that of their size.
    shares.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let of_one = shares.chunk_by(|a, b| a.0 == b.0);
    let mut fused: Vec<(DocId, f32)> =
        of_one.map(|own| (own[0].0, own.iter().map(|(_, share)| share).sum())).collect();
    fused.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn docs(numbers: &[u64]) -> Vec<DocId> {
        numbers.iter().copied().map(DocId).collect()
    }

    fn fuse(lists: &[(f32, Vec<DocId>)]) -> Vec<(DocId, f32)> {
        let lists: Vec<(f32, &[DocId])> =
            lists.iter().map(|(weight, list)| (*weight, list.as_slice())).collect();
        reciprocal_rank_fusion(&lists)
    }

    #[test]
    fn fusion_prefers_a_document_both_lists_hold() {
        let fused = fuse(&[(1.0, docs(&[1, 2, 3])), (1.0, docs(&[4, 2, 5]))]);
        assert_eq!(fused[0].0, DocId(2));
        assert!((fused[0].1 - 2.0 / 62.0).abs() < 1e-6);
    }

    #[test]
    fn equal_scores_come_by_ascending_number() {
        let fused = fuse(&[(1.0, docs(&[9, 1])), (1.0, docs(&[3, 2]))]);
        let order: Vec<u64> = fused.iter().map(|(doc, _)| doc.0).collect();
        assert_eq!(order, [3, 9, 1, 2]);
    }

    #[test]
    fn a_heavier_list_decides_and_one_without_weight_takes_no_part() {
        let fused = fuse(&[(1.0, docs(&[1, 2])), (2.0, docs(&[3])), (0.0, docs(&[4]))]);
        let order: Vec<u64> = fused.iter().map(|(doc, _)| doc.0).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn no_lists_fuse_to_nothing() {
        assert!(reciprocal_rank_fusion(&[]).is_empty());
        assert!(reciprocal_rank_fusion(&[(1.0, &[])]).is_empty());
    }

    fn lists() -> impl Strategy<Value = Vec<(f32, Vec<DocId>)>> {
        let list = proptest::sample::subsequence((0..20).collect::<Vec<u64>>(), 0..20)
            .prop_shuffle()
            .prop_map(|numbers| docs(&numbers));
        proptest::collection::vec((0.01_f32..100.0, list), 0..6)
    }

    proptest! {
        #[test]
        fn the_order_of_the_lists_makes_no_difference(
            (lists, shuffled) in lists().prop_flat_map(|lists| (Just(lists.clone()), Just(lists).prop_shuffle())),
        ) {
            prop_assert_eq!(fuse(&lists), fuse(&shuffled));
        }

        #[test]
        fn scores_are_bounded_fall_and_belong_to_one_document_each(lists in lists()) {
            let fused = fuse(&lists);
            let most = lists.iter().map(|(weight, _)| weight).sum::<f32>() / (RRF_K + 1.0);
            prop_assert!(fused.iter().all(|(_, score)| 0.0 < *score && *score <= most * 1.0001));
            let order = |a: &(DocId, f32), b: &(DocId, f32)| {
                a.1 > b.1 || (a.1.to_bits() == b.1.to_bits() && a.0 < b.0)
            };
            prop_assert!(fused.is_sorted_by(order));
            let mut all: Vec<DocId> = lists.iter().flat_map(|(_, list)| list.clone()).collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(fused.len(), all.len());
        }

        #[test]
        fn a_better_rank_never_scores_less(mut lists in lists(), at in 0_usize..20) {
            let Some((_, list)) = lists.first_mut() else { return Ok(()) };
            if list.len() < 2 { return Ok(()) }
            let at = at % (list.len() - 1) + 1;
            let risen = list[at];
            let score = |lists: &[(f32, Vec<DocId>)]| {
                fuse(lists).into_iter().find(|(doc, _)| *doc == risen).map(|(_, score)| score)
            };
            let before = score(&lists);
            lists[0].1.swap(at - 1, at);
            prop_assert!(score(&lists) >= before);
        }
    }
}
