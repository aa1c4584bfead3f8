//! Sizes and places as a query names them.

use std::fmt;

use tinyfind_index::{Circle, Orientation, Pixels};

/// A number of pixels, or a range of them: `4000`, `>4000`, `>=4000`, `<4000`, `<=4000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What stands before the number.
    sign: &'static str,
    number: u32,
}

/// Signs of sizes, those first that begin with another.
const SIGNS: [&str; 6] = [">=", "<=", ">", "<", "=", ""];

impl Size {
    /// Reads a size of at most nine digits; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (sign, digits) =
            SIGNS.into_iter().find_map(|sign| Some((sign, text.strip_prefix(sign)?)))?;
        let is_number = digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { sign, number: digits.parse().ok().filter(|_| is_number)? })
    }

    /// The sizes that it means.
    pub(super) fn pixels(self) -> Pixels {
        let Self { sign, number } = self;
        match sign {
            ">=" => Pixels { least: number, most: u32::MAX },
            "<=" => Pixels { least: 0, most: number },
            ">" => Pixels { least: number + 1, most: u32::MAX },
            // Nothing is smaller than 0.
            "<" if number == 0 => Pixels { least: 1, most: 0 },
            "<" => Pixels { least: 0, most: number - 1 },
            _ => Pixels { least: number, most: number },
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.sign, self.number)
    }
}

/// A distance around a place: `51.5,-0.12,5km`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    latitude: f64,
    longitude: f64,
    distance: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Metre,
    Kilometre,
    Mile,
}

/// Units by name, those first that end with another.
const UNITS: [(&str, Unit, f64); 3] =
    [("km", Unit::Kilometre, 1000.0), ("mi", Unit::Mile, 1609.344), ("m", Unit::Metre, 1.0)];

/// The longest distance in any unit: in metres it goes round the earth.
const MAX_DISTANCE: f64 = 1e8;

impl Near {
    /// Reads latitude, longitude and a distance above 0 with its unit; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let latitude = decimal(parts.next()?).filter(|it| it.abs() <= 90.0)?;
        let longitude = decimal(parts.next()?).filter(|it| it.abs() <= 180.0)?;
        let last = parts.next()?.to_ascii_lowercase();
        let (number, unit) =
            UNITS.into_iter().find_map(|(name, unit, _)| Some((last.strip_suffix(name)?, unit)))?;
        let distance = decimal(number).filter(|it| 0.0 < *it && *it <= MAX_DISTANCE)?;
        parts.next().is_none().then_some(Self { latitude, longitude, distance, unit })
    }

    /// The circle that it means.
    pub(super) fn circle(self) -> Circle {
        let Self { latitude, longitude, distance, unit } = self;
        let metres = UNITS.iter().find(|(_, known, _)| *known == unit).map_or(1.0, |it| it.2);
        Circle { latitude, longitude, radius_in_metres: distance * metres }
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, known, _)| *known == self.unit).map_or("m", |it| it.0);
        write!(f, "{},{},{}{unit}", self.latitude, self.longitude, self.distance)
    }
}

/// A number as people write it: digits, at most one point behind the first of them, perhaps a
/// sign, 20 characters at most.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain && text.len() <= 20)
}

/// The orientations by name.
pub(super) const ORIENTATIONS: [(&str, Orientation); 3] = [
    ("portrait", Orientation::Portrait),
    ("landscape", Orientation::Landscape),
    ("square", Orientation::Square),
];
