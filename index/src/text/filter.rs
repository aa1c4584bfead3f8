//! Which documents pass a filter.

use tantivy::columnar::{Column, DynamicColumn, HasAssociatedColumnType};
use tantivy::postings::SegmentPostings;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, Searcher, SegmentReader, TERMINATED, Term as IndexTerm};

use super::schema::{DOC, Fields, HEIGHT, LATITUDE, LONGITUDE, ORIENTATION, TAKEN, WIDTH};
use super::words;
use crate::query::{Clause, Filter, Orientation, Pixels, Term};

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

    pub(super) fn retain(&mut self, other: &Self, when: bool) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= if when { *other } else { !*other };
        }
    }

    fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    /// How many members there are.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
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

/// One tantivy segment and what reading it needs.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) searcher: &'a Searcher,
    pub(super) reader: &'a SegmentReader,
    pub(super) fields: &'a Fields,
}

impl Segment<'_> {
    /// Every photo: neither deleted documents nor failures.
    pub(super) fn photos(self) -> tantivy::Result<Bits> {
        let mut passed = Bits::empty(self.reader.max_doc());
        if let Some(numbers) = self.reader.fast_fields().column_opt::<u64>(DOC)? {
            for id in self.reader.doc_ids_alive() {
                if numbers.first(id).is_some() {
                    passed.insert(id);
                }
            }
        }
        Ok(passed)
    }

    /// Those of `photos` that pass `filter`.
    pub(super) fn passing(self, mut photos: Bits, filter: &Filter) -> tantivy::Result<Bits> {
        self.narrow(&mut photos, filter)?;
        Ok(photos)
    }

    /// Removes the documents that do not pass `filter`.
    fn narrow(self, passed: &mut Bits, filter: &Filter) -> tantivy::Result<()> {
        let required = filter.require.iter().map(|clause| (clause, true));
        let excluded = filter.exclude.iter().map(|clause| (clause, false));
        for (clause, holds) in required.chain(excluded) {
            if let Some(matching) = self.matching(clause)? {
                passed.retain(&matching, holds);
            }
        }
        Ok(())
    }

    /// The documents for which `clause` holds; none where it says nothing.
    fn matching(self, clause: &Clause) -> tantivy::Result<Option<Bits>> {
        let fields = self.fields;
        Ok(Some(match clause {
            Clause::Term(term) => return self.holding(term_query(fields, term)),
            Clause::Caption(term) => return self.holding(caption_query(fields, term)),
            Clause::Path(text) => {
                let wanted = text.to_lowercase();
                self.with_text(fields.path_text, |path| path.contains(&wanted))?
            }
            Clause::PathEnd(end) => self.with_term(fields.path, |path| {
                let before = path.strip_suffix(end.as_bytes());
                before.is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
            })?,
            Clause::Name(text) => {
                let wanted = text.to_lowercase();
                self.with_text(fields.path_text, |path| {
                    path.rsplit('/').next().is_some_and(|name| name.contains(&wanted))
                })?
            }
            Clause::Camera(text) => return self.with_beginnings(fields.camera, text),
            Clause::Lens(text) => return self.with_beginnings(fields.lens, text),
            Clause::Format(name) => {
                self.with_term(fields.format, |format| format == name.as_bytes())?
            }
            Clause::Taken { from, until } => self.where_column(TAKEN, |time: i64| {
                from.is_none_or(|from| from <= time) && until.is_none_or(|until| time < until)
            })?,
            Clause::Width(pixels) => self.where_column(WIDTH, |width| pixels.contain(width))?,
            Clause::Height(pixels) => self.where_column(HEIGHT, |height| pixels.contain(height))?,
            Clause::Orientation(wanted) => {
                if self.reader.schema().get_field(ORIENTATION).is_ok() {
                    self.where_column(ORIENTATION, |code: u64| code == wanted.code())?
                } else {
                    // A text that an earlier version wrote.
                    self.where_columns(WIDTH, HEIGHT, |width: u64, height: u64| {
                        Orientation::of(width as u32, height as u32) == *wanted
                    })?
                }
            }
            Clause::Near(circle) => {
                self.where_columns(LATITUDE, LONGITUDE, |latitude, longitude| {
                    circle.contains(latitude, longitude)
                })?
            }
            Clause::Any(filters) => {
                let mut any = Bits::empty(self.reader.max_doc());
                for filter in filters {
                    let mut passed = Bits::full(self.reader.max_doc());
                    self.narrow(&mut passed, filter)?;
                    any.add(&passed);
                }
                any
            }
        }))
    }

    /// The documents that `query` finds; none without one.
    fn holding(self, query: Option<Box<dyn Query>>) -> tantivy::Result<Option<Bits>> {
        let Some(query) = query else { return Ok(None) };
        let mut bits = Bits::empty(self.reader.max_doc());
        let weight = query.weight(EnableScoring::disabled_from_searcher(self.searcher))?;
        weight.for_each_no_score(self.reader, &mut |ids| {
            for id in ids {
                bits.insert(*id);
            }
        })?;
        Ok(Some(bits))
    }

    /// The documents with a term of `field` for which `wanted` holds.
    fn with_term(self, field: Field, wanted: impl Fn(&[u8]) -> bool) -> tantivy::Result<Bits> {
        let mut bits = Bits::empty(self.reader.max_doc());
        let inverted = self.reader.inverted_index(field)?;
        let mut terms = inverted.terms().stream()?;
        while let Some((term, info)) = terms.next() {
            if wanted(term) {
                let postings =
                    inverted.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
                bits.insert_all(postings);
            }
        }
        Ok(bits)
    }

    fn with_text(self, field: Field, wanted: impl Fn(&str) -> bool) -> tantivy::Result<Bits> {
        self.with_term(field, |term| std::str::from_utf8(term).is_ok_and(&wanted))
    }

    /// The documents in whose `field` every word of `text` begins a word.
    fn with_beginnings(self, field: Field, text: &str) -> tantivy::Result<Option<Bits>> {
        let starts = words::exact_words(text);
        if starts.is_empty() {
            return Ok(None);
        }
        let mut bits = Bits::full(self.reader.max_doc());
        for start in &starts {
            let with_word = self.with_term(field, |word| word.starts_with(start.as_bytes()))?;
            bits.retain(&with_word, true);
        }
        Ok(Some(bits))
    }

    /// The documents whose value in a column is `wanted`.
    fn where_column<T: HasAssociatedColumnType>(
        self,
        name: &str,
        wanted: impl Fn(T) -> bool,
    ) -> tantivy::Result<Bits>
    where
        DynamicColumn: Into<Option<Column<T>>>,
    {
        let mut bits = Bits::empty(self.reader.max_doc());
        if let Some(column) = self.reader.fast_fields().column_opt::<T>(name)? {
            for id in 0..self.reader.max_doc() {
                if column.first(id).is_some_and(&wanted) {
                    bits.insert(id);
                }
            }
        }
        Ok(bits)
    }

    /// The documents whose values in two columns are `wanted`.
    fn where_columns<T: HasAssociatedColumnType>(
        self,
        first: &str,
        second: &str,
        wanted: impl Fn(T, T) -> bool,
    ) -> tantivy::Result<Bits>
    where
        DynamicColumn: Into<Option<Column<T>>>,
    {
        let mut bits = Bits::empty(self.reader.max_doc());
        let columns = self.reader.fast_fields();
        let (first, second) = (columns.column_opt::<T>(first)?, columns.column_opt::<T>(second)?);
        let (Some(first), Some(second)) = (first, second) else { return Ok(bits) };
        for id in 0..self.reader.max_doc() {
            if let (Some(a), Some(b)) = (first.first(id), second.first(id))
                && wanted(a, b)
            {
                bits.insert(id);
            }
        }
        Ok(bits)
    }
}

impl Pixels {
    fn contain(self, pixels: u64) -> bool {
        (u64::from(self.least)..=u64::from(self.most)).contains(&pixels)
    }
}

/// The documents whose caption, path or notes hold `term`; none where it has no letter or digit.
pub(super) fn term_query(fields: &Fields, term: &Term) -> Option<Box<dyn Query>> {
    let any = places(fields, term)?.into_iter().map(|query| (Occur::Should, query));
    Some(Box::new(BooleanQuery::new(any.collect())))
}

/// A query for each field in which `term` may stand.
fn places(fields: &Fields, term: &Term) -> Option<[Box<dyn Query>; 3]> {
    let stems = [fields.caption_stem, fields.path_stem, fields.notes_stem];
    let exact = [fields.caption_exact, fields.path_exact, fields.notes_exact];
    let (words, fields) = match term {
        Term::Word(word) => (words::stems(word), stems),
        Term::Phrase(phrase) => (words::exact_words(phrase), exact),
    };
    (!words.is_empty()).then(|| fields.map(|field| words_query(field, &words)))
}

/// The documents whose caption holds `term`; none where it has no letter or digit.
fn caption_query(fields: &Fields, term: &Term) -> Option<Box<dyn Query>> {
    let (words, field) = match term {
        Term::Word(word) => (words::stems(word), fields.caption_stem),
        Term::Phrase(phrase) => (words::exact_words(phrase), fields.caption_exact),
    };
    (!words.is_empty()).then(|| words_query(field, &words))
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
    // Words stand side by side, one query for each field, and not one below the other: only such a
    // union does tantivy search without looking at every document.
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    for term in terms {
        match term {
            Term::Word(_) => {
                let places = places(fields, term).into_iter().flatten();
                clauses.extend(places.map(|query| (Occur::Should, query)));
            }
            Term::Phrase(_) => {
                clauses.extend(term_query(fields, term).map(|query| (Occur::Must, query)));
            }
        }
    }
    if clauses.is_empty() { None } else { Some(Box::new(BooleanQuery::new(clauses))) }
}
