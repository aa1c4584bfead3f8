//! How much of the exact answer the first stage of a large collection keeps.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod common;

use std::collections::HashSet;

use common::vectors::Library;
use common::{features_of, photo, spec};
use tinyfind_index::{Clause, DocId, Filter, IndexReader, IndexWriter, ModelSpec};

const PHOTOS: u64 = 50_000;
const QUERIES: u64 = 25;
/// Half of BLIP-2's vectors, of half their length: a quarter of the work.
const ROWS: usize = 16;
const DIM: usize = 128;

#[test]
fn recall_at_10_of_50_000_photos_is_at_least_98_percent_of_exact() {
    let spec = ModelSpec { embedding_rows: ROWS, embedding_dim: DIM, token_rows: 1, ..spec() };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let library = Library::of_size(PHOTOS, ROWS, DIM);
    let mut writer = IndexWriter::open(dir.path(), &spec).unwrap();
    let template = features_of(&ModelSpec { embedding_rows: 1, ..spec.clone() }, 1);
    for number in 0..PHOTOS {
        let features = tinyfind_index::Features {
            embedding: library.embedding(number),
            visual_tokens: template.visual_tokens.clone(),
        };
        // One in four lies in a folder of its own, one in a hundred in another.
        let folder = if number % 100 == 7 { "c" } else { ["a", "b"][usize::from(number % 4 == 0)] };
        writer.add(photo(format!("/{folder}/{number}.jpg"), number), features).unwrap();
        if number % 5000 == 4999 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    // A search never returns what was deleted since.
    for number in (0..PHOTOS).step_by(50) {
        writer.remove(format!("/b/{number}.jpg").as_ref()).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);

    let mut reader = IndexReader::open(dir.path()).unwrap();
    reader.compare_all_up_to(0);
    let mut exactly = IndexReader::open(dir.path()).unwrap();
    exactly.compare_all_up_to(u64::MAX);
    let folder =
        |name: &str| Filter { require: vec![Clause::Path(format!("/{name}/"))], exclude: vec![] };
    for (name, filter) in [("all", Filter::default()), ("most", folder("a")), ("few", folder("c"))]
    {
        for (kind, query) in [
            ("text", Library::text_query as fn(&Library, u64) -> Vec<f32>),
            ("image", Library::image_query),
        ] {
            let (mut found, mut wanted) = (0, 0);
            for number in 0..QUERIES {
                let query = query(&library, number);
                let exact = exactly.by_vector(&query, &filter, 10).unwrap();
                let fast = reader.by_vector(&query, &filter, 10).unwrap();
                assert_eq!(fast.len(), 10);
                assert!(fast.is_sorted_by(|a, b| a.1 >= b.1));
                assert_eq!(reader.by_vector(&query, &filter, 5).unwrap(), fast[..5]);
                let truth: HashSet<DocId> = exact.iter().map(|(doc, _)| *doc).collect();
                wanted += truth.len();
                found += fast.iter().filter(|(doc, _)| truth.contains(doc)).count();
                for (doc, score) in &fast {
                    if let Some((_, same)) = exact.iter().find(|(other, _)| other == doc) {
                        assert_eq!(score.to_bits(), same.to_bits(), "scores are exact");
                    }
                }
            }
            let recall = f64::from(found as u32) / f64::from(wanted as u32);
            println!("{name}, {kind}: recall at 10 is {recall:.4}");
            assert!(recall >= 0.98, "{name}, {kind}: {recall}");
        }
    }
    let (mut found, mut wanted) = (0, 0);
    for number in 0..QUERIES {
        let like = library.embedding(1 + 1999 * number);
        let exact = exactly.by_rows(&like, &Filter::default(), 10).unwrap();
        let fast = reader.by_rows(&like, &Filter::default(), 10).unwrap();
        assert_eq!(fast.len(), 10);
        let truth: HashSet<DocId> = exact.iter().map(|(doc, _)| *doc).collect();
        wanted += truth.len();
        found += fast.iter().filter(|(doc, _)| truth.contains(doc)).count();
    }
    let recall = f64::from(found as u32) / f64::from(wanted as u32);
    println!("all, photo: recall at 10 is {recall:.4}");
    assert!(recall >= 0.98, "photos like another: {recall}");
    assert_eq!(reader.check().unwrap().problems, Vec::<String>::new());
}
