//! Two ranked lists become one.

use std::collections::HashMap;

use crate::document::DocId;

/// How little the first ranks weigh over later ones: the value of the paper.
const RRF_K: f32 = 60.0;

/// Fuses ranked lists into one by reciprocal rank fusion.
///
/// A document at rank `r` (the best is 1) of a list adds `1 / (60 + r)` to its score; a
/// document a list lacks gets nothing from it. No list may repeat a document.
///
/// Returns each document once, best first, equal scores by ascending [`DocId`]. Scores lie
/// in `(0, lists.len() / 61]`.
///
/// Source: Cormack, Clarke and Buettcher, SIGIR 2009.
pub fn reciprocal_rank_fusion(lists: &[&[DocId]]) -> Vec<(DocId, f32)> {
    let mut scores: HashMap<DocId, f32> = HashMap::new();
    for list in lists {
        for (rank, &doc) in (1_u32..).zip(*list) {
            *scores.entry(doc).or_default() += 1.0 / (RRF_K + rank as f32);
        }
    }
    let mut fused: Vec<(DocId, f32)> = scores.into_iter().collect();
    fused.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs(numbers: &[u64]) -> Vec<DocId> {
        numbers.iter().copied().map(DocId).collect()
    }

    #[test]
    fn fusion_prefers_a_document_both_lists_hold() {
        let fused = reciprocal_rank_fusion(&[&docs(&[1, 2, 3]), &docs(&[4, 2, 5])]);
        assert_eq!(fused[0].0, DocId(2));
        assert!((fused[0].1 - 2.0 / 62.0).abs() < 1e-6);
    }

    #[test]
    fn equal_scores_come_by_ascending_number() {
        let fused = reciprocal_rank_fusion(&[&docs(&[9, 1]), &docs(&[3, 2])]);
        let order: Vec<u64> = fused.iter().map(|(doc, _)| doc.0).collect();
        assert_eq!(order, [3, 9, 1, 2]);
    }

    #[test]
    fn the_order_of_the_lists_does_not_matter() {
        let (a, b) = (docs(&[5, 1, 7, 2]), docs(&[2, 8, 5]));
        assert_eq!(reciprocal_rank_fusion(&[&a, &b]), reciprocal_rank_fusion(&[&b, &a]));
    }

    #[test]
    fn no_lists_fuse_to_nothing() {
        assert!(reciprocal_rank_fusion(&[]).is_empty());
        assert!(reciprocal_rank_fusion(&[&[]]).is_empty());
    }
}
