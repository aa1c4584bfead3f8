//! The ranking by words in a collection where not every match is looked at.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod common;

use common::{features, noise, photo, spec};
use tinyfind_index::{Clause, Filter, IndexReader, IndexWriter, Term};

const PHOTOS: u64 = 6000;
const WORDS: [&str; 9] =
    ["dog", "beach", "red", "umbrella", "street", "night", "boat", "river", "snow"];

/// Captions of two to nine words, longer ones in later photos, some words twice.
fn caption(content: u64) -> String {
    let longest = 3 + content * 6 / PHOTOS;
    let picks = noise(content + 1, 10);
    let count = 2 + ((picks[9] + 1.0) * 0.5 * longest as f32) as usize;
    let word = |pick: &f32| WORDS[((pick + 1.0) * 4.495) as usize];
    picks[..count.min(9)].iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_best_by_words_are_those_of_a_ranking_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    for content in 0..PHOTOS {
        let path = format!("/{}/{content}.jpg", content % 2);
        let doc = writer.add(photo(path, content), features(content)).unwrap();
        writer.set_caption(doc, &caption(content)).unwrap();
        if content % 1500 == 1499 {
            writer.commit().unwrap();
        }
    }
    for content in (0..PHOTOS).step_by(7) {
        writer.remove(format!("/{}/{content}.jpg", content % 2).as_ref()).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);

    let reader = IndexReader::open(dir.path()).unwrap();
    let half = Filter { require: vec![Clause::Path("/1/".into())], exclude: vec![] };
    let mut most = 0;
    for filter in [Filter::default(), half] {
        for words in [&WORDS[..1], &WORDS[..2], &WORDS[2..5], &WORDS[..6], &["dogs", "absent"]] {
            let terms: Vec<Term> = words.iter().map(|word| Term::Word((*word).into())).collect();
            let all = reader.by_words(&terms, &filter, usize::MAX).unwrap();
            most = most.max(all.len());
            let best = reader.by_words(&terms, &filter, 10).unwrap();
            assert_eq!(best.len(), 10);
            assert_eq!(reader.by_words(&terms, &filter, 5).unwrap(), best[..5]);
            // Sums are made in another order: equal scores may differ in their last bit.
            for ((doc, score), (_, wanted)) in best.iter().zip(&all) {
                assert!((score - wanted).abs() < 1e-4, "{words:?}: {score} for {wanted}");
                let own = all.iter().find(|(other, _)| other == doc).unwrap().1;
                assert!((score - own).abs() < 1e-4, "{words:?}: {score} for {own}");
            }
        }
    }
    // Enough that blocks were passed over.
    assert!(most > 3000, "{most}");
}
