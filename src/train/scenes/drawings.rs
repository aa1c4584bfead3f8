//! The drawings: each kind as two to a dozen and a half shapes, painted by role.
//!
//! Coordinates are whole numbers in a box of 100 by 100, from the top left. [`Drawing`] holds
//! them as paths around (0, 0), scaled so that every kind fills about as much of a picture.

mod animals;
mod household;
mod nature;
mod vehicles;

use std::sync::LazyLock;

use tiny_skia::{
    LineCap, LineJoin, Path, PathBuilder, PathSegment, Point, Rect, Stroke, Transform,
};

use super::names::Kind;

/// A point of a drawing, in hundredths.
type Spot = (i16, i16);

/// What a shape is painted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The thing's colour, which fills most of it.
    Main,
    /// The same, darker.
    Dark,
    /// The same, lighter.
    Light,
    /// White on a strong colour, dark on a light one.
    Mark,
    Ink,
    White,
    Cream,
    Glass,
    Wood,
    Metal,
    Gold,
    Leaf,
    Skin,
}

/// A shape. Boxes are left, top, right, bottom.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Closed, with corners.
    Poly(&'static [Spot]),
    /// Closed and round: a Catmull-Rom spline through the points.
    Smooth(&'static [Spot]),
    /// Middle and half axes.
    Oval(i16, i16, i16, i16),
    /// The upper half of an oval: middle of its base and half axes.
    Dome(i16, i16, i16, i16),
    Rect(i16, i16, i16, i16),
    /// A box with round corners of a radius.
    Round(i16, i16, i16, i16, i16),
    /// Middle, radius and width of a circle's line.
    Ring(i16, i16, i16, i16),
    /// A line of a width through points.
    Line(i16, &'static [Spot]),
    /// A line of a width, as a spline through points.
    Curve(i16, &'static [Spot]),
}

type Primitive = (Role, Form);

/// Width of outlines, as a fraction of a drawing of size 1.
const RIM: f32 = 0.045;

/// A shape, ready to fill.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) fill: Path,
    /// A line around it.
    pub(super) rim: Option<Path>,
}

/// A kind, drawn around (0, 0) about as big as 1.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) parts: Vec<Part>,
    /// Points of the edges of all parts, close enough to tell the extent of the drawing.
    points: Vec<(f32, f32)>,
}

/// How far a drawing reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

static DRAWINGS: LazyLock<Vec<Drawing>> =
    LazyLock::new(|| Kind::ALL.iter().map(|&kind| Drawing::build(primitives(kind))).collect());

impl Drawing {
    /// The drawing of a kind.
    pub(super) fn of(kind: Kind) -> &'static Self {
        &DRAWINGS[kind as usize]
    }

    /// How far it reaches when drawn with a matrix as [`super::graph::Pose::matrix`] makes it.
    pub(super) fn extent(&self, [a, b, c, d]: [f32; 4]) -> Extent {
        let start = Extent {
            left: f32::INFINITY,
            top: f32::INFINITY,
            right: f32::NEG_INFINITY,
            bottom: f32::NEG_INFINITY,
        };
        self.points.iter().fold(start, |extent, &(x, y)| {
            let (x, y) = (a * x + b * y, c * x + d * y);
            Extent {
                left: extent.left.min(x),
                top: extent.top.min(y),
                right: extent.right.max(x),
                bottom: extent.bottom.max(y),
            }
        })
    }

    fn build(primitives: &[Primitive]) -> Self {
        let fills = || primitives.iter().filter_map(|&(role, form)| Some((role, form.path()?)));
        let raw: Vec<(f32, f32)> = fills().flat_map(|(_, path)| edge_points(&path)).collect();
        let extent = Self { parts: Vec::new(), points: raw }.extent([1.0, 0.0, 0.0, 1.0]);
        let (width, height) = (extent.right - extent.left, extent.bottom - extent.top);
        // Long things come out a little longer than square ones are wide, but not much, or
        // they would not fit.
        let scale = (0.92 / (width * height).sqrt()).min(1.12 / width.max(height));
        let to_middle = Transform::from_row(
            scale,
            0.0,
            0.0,
            scale,
            -scale * f32::midpoint(extent.left, extent.right),
            -scale * f32::midpoint(extent.top, extent.bottom),
        );
        let line = Stroke { line_join: LineJoin::Round, width: RIM, ..Stroke::default() };
        let parts: Vec<Part> = fills()
            .filter_map(|(role, path)| {
                let fill = path.transform(to_middle)?;
                let rim = fill.stroke(&line, 8.0);
                Some(Part { role, fill, rim })
            })
            .collect();
        let points = parts.iter().flat_map(|part| edge_points(&part.fill)).collect();
        Self { parts, points }
    }
}

impl Form {
    fn path(self) -> Option<Path> {
        let mut builder = PathBuilder::new();
        match self {
            Self::Poly(spots) => trace(&mut builder, spots, true),
            Self::Smooth(spots) => spline(&mut builder, spots, true),
            Self::Oval(x, y, across, down) => {
                builder.push_oval(bounds(x - across, y - down, x + across, y + down)?);
            }
            Self::Dome(x, y, across, down) => {
                dome(&mut builder, [x, y, across, down].map(f32::from));
            }
            Self::Rect(left, top, right, bottom) => {
                builder.push_rect(bounds(left, top, right, bottom)?);
            }
            Self::Round(left, top, right, bottom, radius) => {
                round(&mut builder, [left, top, right, bottom, radius].map(f32::from));
            }
            Self::Ring(x, y, radius, width) => {
                builder.push_circle(x.into(), y.into(), radius.into());
                return line(builder, width);
            }
            Self::Line(width, spots) => {
                trace(&mut builder, spots, false);
                return line(builder, width);
            }
            Self::Curve(width, spots) => {
                spline(&mut builder, spots, false);
                return line(builder, width);
            }
        }
        builder.finish()
    }
}

/// The outline of a line of a width along what was traced.
fn line(builder: PathBuilder, width: i16) -> Option<Path> {
    let (line_cap, line_join) = (LineCap::Round, LineJoin::Round);
    let stroke = Stroke { width: width.into(), line_cap, line_join, ..Stroke::default() };
    builder.finish()?.stroke(&stroke, 1.0)
}

fn bounds(left: i16, top: i16, right: i16, bottom: i16) -> Option<Rect> {
    Rect::from_ltrb(left.into(), top.into(), right.into(), bottom.into())
}

fn trace(builder: &mut PathBuilder, spots: &[Spot], closed: bool) {
    for (number, &(x, y)) in spots.iter().enumerate() {
        let (x, y) = (f32::from(x), f32::from(y));
        if number == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
    }
    if closed {
        builder.close();
    }
}

/// A Catmull-Rom spline through the points, as cubic curves. An open one ends with its first
/// and last point.
fn spline(builder: &mut PathBuilder, spots: &[Spot], closed: bool) {
    let count = spots.len() as isize;
    let at = |number: isize| {
        let number = if closed { number.rem_euclid(count) } else { number.clamp(0, count - 1) };
        let (x, y) = spots[number as usize];
        (f32::from(x), f32::from(y))
    };
    let (x, y) = at(0);
    builder.move_to(x, y);
    for number in 0..if closed { count } else { count - 1 } {
        let (before, from, to, after) =
            (at(number - 1), at(number), at(number + 1), at(number + 2));
        builder.cubic_to(
            from.0 + (to.0 - before.0) / 6.0,
            from.1 + (to.1 - before.1) / 6.0,
            to.0 - (after.0 - from.0) / 6.0,
            to.1 - (after.1 - from.1) / 6.0,
            to.0,
            to.1,
        );
    }
    if closed {
        builder.close();
    }
}

/// How far the handles of a cubic curve reach that stands for a quarter of a circle.
const QUARTER: f32 = 0.552_284_8;

fn dome(builder: &mut PathBuilder, [x, y, across, down]: [f32; 4]) {
    let (wide, high) = (QUARTER * across, QUARTER * down);
    builder.move_to(x - across, y);
    builder.cubic_to(x - across, y - high, x - wide, y - down, x, y - down);
    builder.cubic_to(x + wide, y - down, x + across, y - high, x + across, y);
    builder.close();
}

fn round(builder: &mut PathBuilder, [left, top, right, bottom, radius]: [f32; 5]) {
    let inner = radius * (1.0 - QUARTER);
    builder.move_to(left + radius, top);
    builder.line_to(right - radius, top);
    builder.cubic_to(right - inner, top, right, top + inner, right, top + radius);
    builder.line_to(right, bottom - radius);
    builder.cubic_to(right, bottom - inner, right - inner, bottom, right - radius, bottom);
    builder.line_to(left + radius, bottom);
    builder.cubic_to(left + inner, bottom, left, bottom - inner, left, bottom - radius);
    builder.line_to(left, top + radius);
    builder.cubic_to(left, top + inner, left + inner, top, left + radius, top);
    builder.close();
}

/// Points along the edge of a path: its corners, and four of each curve.
fn edge_points(path: &Path) -> Vec<(f32, f32)> {
    let (mut points, mut last) = (Vec::new(), Point::zero());
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(to) | PathSegment::LineTo(to) => {
                points.push((to.x, to.y));
                last = to;
            }
            PathSegment::QuadTo(handle, to) => {
                for t in [0.25, 0.5, 0.75, 1.0] {
                    let u = 1.0 - t;
                    let of = |a: f32, b: f32, c: f32| u * u * a + 2.0 * u * t * b + t * t * c;
                    points.push((of(last.x, handle.x, to.x), of(last.y, handle.y, to.y)));
                }
                last = to;
            }
            PathSegment::CubicTo(first, second, to) => {
                for t in [0.25, 0.5, 0.75, 1.0] {
                    let u = 1.0 - t;
                    let of = |a: f32, b: f32, c: f32, d: f32| {
                        u * u * u * a + 3.0 * u * t * (u * b + t * c) + t * t * t * d
                    };
                    points.push((
                        of(last.x, first.x, second.x, to.x),
                        of(last.y, first.y, second.y, to.y),
                    ));
                }
                last = to;
            }
            PathSegment::Close => {}
        }
    }
    points
}

fn primitives(kind: Kind) -> &'static [Primitive] {
    match kind {
        Kind::Cat => animals::CAT,
        Kind::Dog => animals::DOG,
        Kind::Rabbit => animals::RABBIT,
        Kind::Horse => animals::HORSE,
        Kind::Fish => animals::FISH,
        Kind::Bird => animals::BIRD,
        Kind::Duck => animals::DUCK,
        Kind::Butterfly => animals::BUTTERFLY,
        Kind::Person => animals::PERSON,
        Kind::Runner => animals::RUNNER,
        Kind::Dancer => animals::DANCER,
        Kind::Car => vehicles::CAR,
        Kind::Bus => vehicles::BUS,
        Kind::Truck => vehicles::TRUCK,
        Kind::Bicycle => vehicles::BICYCLE,
        Kind::Train => vehicles::TRAIN,
        Kind::Boat => vehicles::BOAT,
        Kind::Plane => vehicles::PLANE,
        Kind::Rocket => vehicles::ROCKET,
        Kind::Balloon => vehicles::BALLOON,
        Kind::Kite => vehicles::KITE,
        Kind::Tree => nature::TREE,
        Kind::Pine => nature::PINE,
        Kind::Flower => nature::FLOWER,
        Kind::Cactus => nature::CACTUS,
        Kind::Mushroom => nature::MUSHROOM,
        Kind::Apple => nature::APPLE,
        Kind::Banana => nature::BANANA,
        Kind::Pear => nature::PEAR,
        Kind::Sun => nature::SUN,
        Kind::Moon => nature::MOON,
        Kind::Star => nature::STAR,
        Kind::Heart => nature::HEART,
        Kind::Ball => nature::BALL,
        Kind::House => household::HOUSE,
        Kind::Tower => household::TOWER,
        Kind::Cup => household::CUP,
        Kind::Bottle => household::BOTTLE,
        Kind::Umbrella => household::UMBRELLA,
        Kind::Chair => household::CHAIR,
        Kind::Table => household::TABLE,
        Kind::Lamp => household::LAMP,
        Kind::Clock => household::CLOCK,
        Kind::Book => household::BOOK,
        Kind::Key => household::KEY,
        Kind::Hat => household::HAT,
        Kind::Crown => household::CROWN,
        Kind::Guitar => household::GUITAR,
    }
}
