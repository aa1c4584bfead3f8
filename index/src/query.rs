//! What can be asked of an index.

/// Something a photo's caption or path must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// A bare word: any form of it counts (`run` finds `running`), upper or lower case.
    ///
    /// What splits into several words (`x-t3`) counts where they follow one another.
    Word(String),
    /// Quoted words: these very forms in this order, upper or lower case.
    Phrase(String),
}

/// What a photo must and must not be to count: all of `require`, none of `exclude`.
///
/// The default lets every photo through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Every one of these holds.
    pub require: Vec<Clause>,
    /// None of these holds.
    pub exclude: Vec<Clause>,
}

impl Filter {
    /// Whether every photo passes.
    pub fn is_empty(&self) -> bool {
        self.require.is_empty() && self.exclude.is_empty()
    }
}

/// One condition on a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clause {
    /// The caption or the path says so. A term without a letter or digit says nothing and
    /// is ignored, in `require` and in `exclude`.
    Term(Term),
    /// The path contains this text, upper or lower case.
    Path(String),
    /// Every word of this text begins a word of the camera's name: `fuji x` is
    /// `FUJIFILM X-T3`.
    Camera(String),
    /// The photo was taken between two times, in `local_seconds` of
    /// [`Taken`](crate::Taken). A photo without a date was taken at no time.
    Taken {
        /// First second that counts; none for the beginning of time.
        from: Option<i64>,
        /// First second that no longer counts; none for the end of time.
        until: Option<i64>,
    },
}
