//! An index that grows by the same with every commit, so that each generation says what it holds.

use std::path::Path;

use tinyfind_index::{
    Counts, DocId, Filter, IndexReader, IndexWriter, ModelSpec, OpenError, Term, WriteError,
};

use super::{features_of, photo, stamp};

/// Opens the index in `dir` for writing; returns its generation as well.
pub(crate) fn open(dir: &Path, spec: &ModelSpec) -> Result<(IndexWriter, u64), OpenError> {
    let mut writer = IndexWriter::open(dir, spec)?;
    // Nothing is pending, so nothing is committed.
    let generation = writer.commit().unwrap();
    Ok((writer, generation))
}

/// Makes the commit after `generation`: generation `g` holds `3 g` photos, the first `g` of them
/// captioned, and one failure, whose reason is new each time.
pub(crate) fn grow(
    writer: &mut IndexWriter,
    spec: &ModelSpec,
    generation: u64,
) -> Result<u64, WriteError> {
    for content in 3 * generation..3 * generation + 3 {
        writer.add(photo(format!("/p/{content}.jpg"), content), features_of(spec, content))?;
    }
    writer.set_caption(DocId(generation), &format!("caption {generation}"))?;
    let next = generation + 1;
    writer.fail("/broken".as_ref(), stamp(1), &format!("try {next}"))?;
    assert_eq!(writer.commit()?, next);
    Ok(next)
}

/// Compares all that `reader` says with what its generation holds.
pub(crate) fn assert_grown(reader: &IndexReader) {
    let generation = reader.generation();
    let features = |content| features_of(reader.spec(), content);
    let (photos, failed) = (3 * generation, u64::from(generation > 0));
    assert_eq!(reader.counts(), Counts { photos, captioned: generation, failed });
    assert_eq!(reader.by_filter(&Filter::default(), usize::MAX).unwrap().len() as u64, photos);
    let captions = [Term::Word("caption".to_owned())];
    let captioned = reader.by_words(&captions, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(captioned.len() as u64, generation);
    let query = features(0).embedding.row(0).to_vec();
    let near = reader.by_vector(&query, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(near.len() as u64, photos);
    if generation > 0 {
        assert_eq!(reader.failures().unwrap()[0].reason, format!("try {generation}"));
        let last = DocId(photos - 1);
        let expected = features(photos - 1).visual_tokens.values[0];
        assert!((reader.visual_tokens(last).unwrap().values[0] - expected).abs() < 0.01);
        assert_eq!(reader.photo(DocId(photos)).unwrap(), None);
    }
}
