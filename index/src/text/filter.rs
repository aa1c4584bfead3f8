//! Which documents pass a filter.

use tantivy::postings::SegmentPostings;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, Searcher, SegmentReader, TERMINATED, Term as IndexTerm};

use super::schema::{DOC, Fields, TAKEN};
use super::words;
use crate::query::{Clause, Filter, Term};

/// A set of documents of one tantivy segment.
#[derive(Debug, Clone)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    fn empty(len: u32) -> Self {
        Self(vec![0; (len as usize).div_ceil(64)])
    }

    fn full(len: u32) -> Self {
        Self(vec![u64::MAX; (len as usize).div_ceil(64)])
    }

    fn insert(&mut self, id: u32) {
        self.0[id as usize / 64] |= 1 << (id % 64);
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.0[id as usize / 64] >> (id % 64) & 1 == 1
    }

    fn retain(&mut self, other: &Self, when: bool) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= if when { *other } else { !*other };
        }
    }

    /// The members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().zip((0_u32..).step_by(64)).flat_map(|(word, base)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                // Clears the lowest set bit.
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(base + bit)
            })
        })
    }

    fn insert_all(&mut self, mut postings: SegmentPostings) {
        while postings.doc() != TERMINATED {
            self.insert(postings.doc());
            postings.advance();
        }
    }
}

/// The photos of one segment that pass `filter`; deleted documents and failures do not.
pub(super) fn photos(
    searcher: &Searcher,
    segment: &SegmentReader,
    fields: &Fields,
    filter: &Filter,
) -> tantivy::Result<Bits> {
    let mut passed = Bits::empty(segment.max_doc());
    if let Some(numbers) = segment.fast_fields().column_opt::<u64>(DOC)? {
        for id in segment.doc_ids_alive() {
            if numbers.first(id).is_some() {
                passed.insert(id);
            }
        }
    }
    let required = filter.require.iter().map(|clause| (clause, true));
    for (clause, holds) in required.chain(filter.exclude.iter().map(|clause| (clause, false))) {
        if let Some(matching) = matching(searcher, segment, fields, clause)? {
            passed.retain(&matching, holds);
        }
    }
    Ok(passed)
}

/// The documents for which `clause` holds; none where it says nothing.
fn matching(
    searcher: &Searcher,
    segment: &SegmentReader,
    fields: &Fields,
    clause: &Clause,
) -> tantivy::Result<Option<Bits>> {
    let mut bits = Bits::empty(segment.max_doc());
    match clause {
        Clause::Term(term) => {
            let Some(query) = term_query(fields, term) else { return Ok(None) };
            let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
            weight.for_each_no_score(segment, &mut |ids| {
                for id in ids {
                    bits.insert(*id);
                }
            })?;
        }
        Clause::Path(text) => {
            let wanted = text.to_lowercase();
            add_terms(segment, fields.path_text, &mut bits, |path| {
                std::str::from_utf8(path).is_ok_and(|path| path.contains(&wanted))
            })?;
        }
        Clause::Camera(text) => {
            let starts = words::exact_words(text);
            if starts.is_empty() {
                return Ok(None);
            }
            bits = Bits::full(segment.max_doc());
            for start in &starts {
                let mut with_word = Bits::empty(segment.max_doc());
                add_terms(segment, fields.camera, &mut with_word, |word| {
                    word.starts_with(start.as_bytes())
                })?;
                bits.retain(&with_word, true);
            }
        }
        Clause::Taken { from, until } => {
            if let Some(times) = segment.fast_fields().column_opt::<i64>(TAKEN)? {
                for id in 0..segment.max_doc() {
                    let is_inside = times.first(id).is_some_and(|time| {
                        from.is_none_or(|from| from <= time)
                            && until.is_none_or(|until| time < until)
                    });
                    if is_inside {
                        bits.insert(id);
                    }
                }
            }
        }
    }
    Ok(Some(bits))
}

/// Adds the documents of every term of a field for which `wanted` holds.
fn add_terms(
    segment: &SegmentReader,
    field: Field,
    bits: &mut Bits,
    wanted: impl Fn(&[u8]) -> bool,
) -> tantivy::Result<()> {
    let inverted = segment.inverted_index(field)?;
    let mut terms = inverted.terms().stream()?;
    while let Some((term, info)) = terms.next() {
        if wanted(term) {
            bits.insert_all(inverted.read_postings_from_terminfo(info, IndexRecordOption::Basic)?);
        }
    }
    Ok(())
}

/// The documents whose caption or path holds `term`; none where it has no letter or digit.
pub(super) fn term_query(fields: &Fields, term: &Term) -> Option<Box<dyn Query>> {
    let (words, in_caption, in_path) = match term {
        Term::Word(word) => (words::stems(word), fields.caption_stem, fields.path_stem),
        Term::Phrase(phrase) => {
            (words::exact_words(phrase), fields.caption_exact, fields.path_exact)
        }
    };
    if words.is_empty() {
        return None;
    }
    let either = [in_caption, in_path].map(|field| (Occur::Should, words_query(field, &words)));
    Some(Box::new(BooleanQuery::new(either.into())))
}

/// The documents whose `field` holds `words`, one after the other.
fn words_query(field: Field, words: &[String]) -> Box<dyn Query> {
    let mut terms = words.iter().map(|word| IndexTerm::from_field_text(field, word));
    match (terms.next(), words.len()) {
        (Some(term), 1) => Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)),
        (first, _) => Box::new(PhraseQuery::new(first.into_iter().chain(terms).collect())),
    }
}

/// The documents that hold every phrase of `terms` and, where there is none, one of the
/// words; none where nothing is asked. Scores are BM25.
pub(super) fn any_of(fields: &Fields, terms: &[Term]) -> Option<Box<dyn Query>> {
    let clauses: Vec<(Occur, Box<dyn Query>)> = terms
        .iter()
        .filter_map(|term| {
            let occur = match term {
                Term::Word(_) => Occur::Should,
                Term::Phrase(_) => Occur::Must,
            };
            Some((occur, term_query(fields, term)?))
        })
        .collect();
    if clauses.is_empty() { None } else { Some(Box::new(BooleanQuery::new(clauses))) }
}
