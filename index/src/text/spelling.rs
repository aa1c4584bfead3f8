//! The word that a misspelt one was meant to be.

use std::collections::HashMap;

use tantivy::Searcher;
use tantivy::collector::Count;

use super::schema::Fields;
use super::{filter, words};
use crate::query::Term;

/// How many letters may be wrong in a word of `letters` letters. Shorter words come near too
/// many others. (The lengths are those of Lucene's `fuzziness: AUTO`, from one letter on.)
fn tolerance(letters: usize) -> usize {
    match letters {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// The word of captions, paths and notes that is spelt most like `word`, if no photo holds that
/// in any form. Of words that are equally near the one that most photos hold, then the first in
/// the alphabet.
pub(super) fn respell(
    searcher: &Searcher,
    fields: &Fields,
    word: &str,
) -> tantivy::Result<Option<String>> {
    let holders = |word: &str| match filter::term_query(fields, &Term::Word(word.to_owned())) {
        Some(query) => searcher.search(&query, &Count),
        None => Ok(0),
    };
    let [wanted] = words::exact_words(word).try_into().unwrap_or_default();
    let wanted: Vec<char> = wanted.chars().collect();
    let tolerance = tolerance(wanted.len());
    if tolerance == 0 || !wanted.iter().all(|c| c.is_alphabetic()) || holders(word)? > 0 {
        return Ok(None);
    }
    // Distance and number of photos, copies in several fields counted each.
    let mut near: HashMap<String, (usize, u32)> = HashMap::new();
    for field in [fields.caption_exact, fields.path_exact, fields.notes_exact] {
        for segment in searcher.segment_readers() {
            let inverted = segment.inverted_index(field)?;
            let mut terms = inverted.terms().stream()?;
            while let Some((term, info)) = terms.next() {
                let Ok(term) = std::str::from_utf8(term) else { continue };
                if let Some(distance) = distance(&wanted, term, tolerance) {
                    near.entry(term.to_owned()).or_insert((distance, 0)).1 += info.doc_freq;
                }
            }
        }
    }
    let mut near: Vec<(String, (usize, u32))> = near.into_iter().collect();
    near.sort_unstable_by(|(a, (a_far, a_photos)), (b, (b_far, b_photos))| {
        a_far.cmp(b_far).then(b_photos.cmp(a_photos)).then(a.cmp(b))
    });
    for (word, _) in near {
        // The last photo that held it may have been deleted.
        if holders(&word)? > 0 {
            return Ok(Some(word));
        }
    }
    Ok(None)
}

/// Letters to add, remove, change or swap with their neighbour to make `word` of `wanted`, no
/// letter touched twice; none where it takes more than `most` or `word` has something else than
/// letters.
fn distance(wanted: &[char], word: &str, most: usize) -> Option<usize> {
    // A word has as many bytes as letters at least.
    if word.len() + most < wanted.len() || !word.chars().all(char::is_alphabetic) {
        return None;
    }
    let word: Vec<char> = word.chars().take(wanted.len() + most + 1).collect();
    if word.len().abs_diff(wanted.len()) > most {
        return None;
    }
    // Rows of the table of distances between all beginnings: of two letters ago, one, and now.
    let mut rows: [Vec<usize>; 3] = [vec![], (0..=word.len()).collect(), vec![]];
    for (i, a) in wanted.iter().enumerate() {
        let [before, last, row] = &mut rows;
        row.clear();
        row.push(i + 1);
        for (j, b) in word.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == word[j - 1] && wanted[i - 1] == *b {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        if row.iter().all(|cost| *cost > most) {
            return None;
        }
        rows.rotate_left(1);
    }
    rows[1].last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn far(a: &str, b: &str) -> Option<usize> {
        distance(&a.chars().collect::<Vec<_>>(), b, 2)
    }

    #[test]
    fn one_wrong_letter_is_a_distance_of_one() {
        for word in ["beach", "beeach", "baech", "bech", "reach", "peach"] {
            assert_eq!(far("beach", word), Some(usize::from(word != "beach")), "{word}");
        }
        assert_eq!(far("umbrella", "umberela"), Some(2));
        assert_eq!(far("beach", "tree"), None);
        assert_eq!(far("beach", "beaches"), Some(2));
        assert_eq!(far("beach", "b3ach"), None);
        assert_eq!(far("été", "ete"), Some(2));
    }

    proptest! {
        #[test]
        fn the_distance_is_the_same_in_both_directions(a in "[a-dé]{0,8}", b in "[a-dé]{0,8}") {
            prop_assert_eq!(far(&a, &b), far(&b, &a));
            prop_assert_eq!(far(&a, &b) == Some(0), a == b);
        }
    }
}
