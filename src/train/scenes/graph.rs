//! The scene graph: what is in a picture, and where.

use super::{
    drawings::Drawing,
    layout,
    names::{Colour, Kind, Setting, Size, Style, TimeOfDay, Weather},
};

/// Which scenes a number names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training: no held-out combination and not the held-out style.
    Train,
    /// Drawn like [`Split::Train`], with other numbers.
    Test,
    /// Each scene has a pair of kind and colour, or of two kinds and their relation, that is
    /// never seen in training.
    Combinations,
    /// Each scene is drawn in the style that is never seen in training.
    Style,
}

/// Where one thing is, seen from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// "to the left of"
    LeftOf,
    /// "to the right of"
    RightOf,
    /// "above"
    Above,
    /// "below"
    Below,
}

impl Relation {
    /// Every one, in the order of `as usize`.
    pub const ALL: &[Self] = &[Self::LeftOf, Self::RightOf, Self::Above, Self::Below];

    /// The relation of the second thing to the first.
    #[must_use]
    pub const fn inverse(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// One thing of a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its main colour.
    pub colour: Colour,
    /// Middle of the drawn shape from the left, as a fraction of the picture's width.
    pub x: f32,
    /// Middle of the drawn shape from the top, as a fraction of the picture's height.
    pub y: f32,
    /// Extent of the drawn shape from left to right, as a fraction of the side of a square
    /// picture; in another picture, of its shorter side.
    pub width: f32,
    /// Extent of the drawn shape from top to bottom, in the measure of `width`.
    pub height: f32,
    /// The size that was asked for: about the square root of `width * height`.
    pub size: f32,
    /// How the drawing is turned and stretched.
    pub(super) pose: Pose,
}

/// How a drawing is put into a picture, apart from its place and size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    /// Tangent of half the angle by which it is turned clockwise.
    pub(super) turn: f32,
    /// Factor of the width; the height is divided by it.
    pub(super) stretch: f32,
    /// Whether it looks the other way.
    pub(super) mirrored: bool,
}

impl Pose {
    /// The matrix `[a, b, c, d]` of `x' = a x + b y`, `y' = c x + d y` for a drawing of `size`.
    pub(super) fn matrix(self, size: f32) -> [f32; 4] {
        // Sine and cosine from the tangent of half the angle: no trigonometry.
        let square = self.turn * self.turn;
        let (cos, sin) = ((1.0 - square) / (1.0 + square), 2.0 * self.turn / (1.0 + square));
        let across = size * if self.mirrored { -self.stretch } else { self.stretch };
        let down = size / self.stretch;
        [cos * across, -sin * down, sin * across, cos * down]
    }
}

impl Thing {
    /// A thing with its middle at (0, 0), as wide and high as its drawing comes out.
    pub(super) fn new(kind: Kind, colour: Colour, size: f32, pose: Pose) -> Self {
        let extent = Drawing::of(kind).extent(pose.matrix(size));
        let (width, height) = (extent.right - extent.left, extent.bottom - extent.top);
        Self { kind, colour, x: 0.0, y: 0.0, width, height, size, pose }
    }

    /// How big it is, where that is clear: below 0.27 of the picture or above 0.42.
    pub fn size_word(&self) -> Option<Size> {
        match self.size {
            size if size < 0.27 => Some(Size::Small),
            size if size > 0.42 => Some(Size::Large),
            _ => None,
        }
    }
}

/// A scene: everything that is true of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Where it is.
    pub setting: Setting,
    /// The light. Inside it is always day, in the night sky always night.
    pub time: TimeOfDay,
    /// The weather. Inside it is always clear.
    pub weather: Weather,
    /// The drawing style.
    pub style: Style,
    /// Up to six things. Several of one kind and colour come only alone, as a count.
    pub things: Vec<Thing>,
    /// Seeds what the graph does not say: the backdrop's details, the camera's faults.
    pub(super) seed: u64,
}

impl Scene {
    /// The scene of that number. The same on every machine.
    pub fn generate(split: Split, index: u64) -> Self {
        layout::generate(split, index)
    }

    /// Where thing `a` is, seen from thing `b`: only when one axis clearly dominates, by half
    /// as much again, and the middles are more than 0.15 of the picture apart.
    ///
    /// `None` also when there is no such thing.
    pub fn relation(&self, a: usize, b: usize) -> Option<Relation> {
        let (a, b) = (self.things.get(a)?, self.things.get(b)?);
        let (across, down) = (a.x - b.x, a.y - b.y);
        if across.abs() > 1.5 * down.abs() && across.abs() > 0.15 {
            return Some(if across < 0.0 { Relation::LeftOf } else { Relation::RightOf });
        }
        if down.abs() > 1.5 * across.abs() && down.abs() > 0.15 {
            return Some(if down < 0.0 { Relation::Above } else { Relation::Below });
        }
        None
    }

    /// Whether it shows two to six things of one kind in one colour.
    pub fn is_counted(&self) -> bool {
        self.things.len() > 1
            && self
                .things
                .iter()
                .all(|it| (it.kind, it.colour) == (self.things[0].kind, self.things[0].colour))
    }

    /// How many things are of this kind, in whatever colour.
    pub fn count(&self, kind: Kind) -> usize {
        self.things.iter().filter(|thing| thing.kind == kind).count()
    }
}
