//! What can be asked of an index.

use std::cmp::Ordering;

/// Something a photo's caption, path or notes must say.
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
#[derive(Debug, Clone, Default, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Clause {
    /// The caption, the path or the notes ([`PhotoMetadata::notes`](crate::PhotoMetadata::notes))
    /// say so. A term without a letter or digit says nothing and is ignored, in `require` and
    /// in `exclude`.
    Term(Term),
    /// The caption says so; a term without a letter or digit is ignored.
    Caption(Term),
    /// The path contains this text, upper or lower case.
    Path(String),
    /// The path ends with these components, letter for letter: `beach/a.jpg`.
    PathEnd(String),
    /// The last component of the path contains this text, upper or lower case.
    Name(String),
    /// Every word of this text begins a word of the camera's name: `fuji x` is
    /// `FUJIFILM X-T3`.
    Camera(String),
    /// Every word of this text begins a word of the lens's name.
    Lens(String),
    /// The format has this name: `jpeg`.
    Format(String),
    /// The photo was taken between two times, in `local_seconds` of
    /// [`Taken`](crate::Taken). A photo without a date was taken at no time.
    Taken {
        /// First second that counts; none for the beginning of time.
        from: Option<i64>,
        /// First second that no longer counts; none for the end of time.
        until: Option<i64>,
    },
    /// The upright photo is so many pixels wide.
    Width(Pixels),
    /// The upright photo is so many pixels high.
    Height(Pixels),
    /// The upright photo stands or lies.
    Orientation(Orientation),
    /// The photo was taken in this circle. A photo without a position was taken nowhere.
    Near(Circle),
    /// At least one of these filters lets the photo through.
    Any(Vec<Filter>),
}

/// A range of pixels, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels {
    /// The fewest that count.
    pub least: u32,
    /// The most that count.
    pub most: u32,
}

/// Whether a photo stands or lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// Higher than wide.
    Portrait,
    /// Wider than high.
    Landscape,
    /// As wide as high.
    Square,
}

impl Orientation {
    /// That of an upright photo of so many pixels.
    pub(crate) fn of(width: u32, height: u32) -> Self {
        match width.cmp(&height) {
            Ordering::Less => Self::Portrait,
            Ordering::Greater => Self::Landscape,
            Ordering::Equal => Self::Square,
        }
    }

    /// What stands for it in the text index.
    pub(crate) fn code(self) -> u64 {
        match self {
            Self::Portrait => 0,
            Self::Landscape => 1,
            Self::Square => 2,
        }
    }
}

/// A circle on the earth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circle {
    /// Latitude of the centre in degrees, -90 to 90, north positive.
    pub latitude: f64,
    /// Longitude of the centre in degrees, -180 to 180, east positive.
    pub longitude: f64,
    /// Radius in metres along the ground.
    pub radius_in_metres: f64,
}

/// Mean radius of the earth in metres, as the IUGG gives it.
const EARTH_RADIUS_IN_METRES: f64 = 6_371_008.8;

impl Circle {
    /// Great-circle distance in metres from the centre to a place in degrees, on a round earth:
    /// within 0.6 % of that on the real one.
    pub fn distance_in_metres(&self, latitude: f64, longitude: f64) -> f64 {
        let (from, to) = (self.latitude.to_radians(), latitude.to_radians());
        let half = |difference: f64| (difference.to_radians() / 2.0).sin().powi(2);
        let haversine = half(latitude - self.latitude)
            + from.cos() * to.cos() * half(longitude - self.longitude);
        2.0 * EARTH_RADIUS_IN_METRES * haversine.clamp(0.0, 1.0).sqrt().asin()
    }

    /// Whether a place lies in it.
    pub fn contains(&self, latitude: f64, longitude: f64) -> bool {
        self.distance_in_metres(latitude, longitude) <= self.radius_in_metres
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_follow_great_circles() {
        let distance = |from: (f64, f64), to: (f64, f64)| {
            let circle = Circle { latitude: from.0, longitude: from.1, radius_in_metres: 0.0 };
            circle.distance_in_metres(to.0, to.1)
        };
        // London to Paris: 343.5 km; half the earth; across the date line: 0.2 degrees.
        let (london, paris) = ((51.5074, -0.1278), (48.8566, 2.3522));
        assert!((distance(london, paris) - 343_556.0).abs() < 100.0);
        assert_eq!(distance(london, paris).round(), distance(paris, london).round());
        let half = std::f64::consts::PI * EARTH_RADIUS_IN_METRES;
        assert!((distance((0.0, 0.0), (0.0, 180.0)) - half).abs() < 1.0);
        assert!((distance((90.0, 0.0), (-90.0, 33.0)) - half).abs() < 1.0);
        assert!((distance((0.0, 179.9), (0.0, -179.9)) - 22_239.0).abs() < 1.0);
        assert_eq!(distance(london, london), 0.0);
    }
}
