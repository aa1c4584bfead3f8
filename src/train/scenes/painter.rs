//! From the graph to pixels: the backdrop, then each thing on a layer of its own.

use tiny_skia::{
    Color, FillRule, Mask, Paint, Path, PathBuilder, PathSegment, Pixmap, Point, Shader, Transform,
};

use crate::decode::DecodedImage;

use super::{
    backdrop, camera,
    drawings::{Drawing, Role},
    graph::{Scene, Thing},
    names::{Style, TimeOfDay, Weather},
    palette::{self, Paints, Rgb},
    random::{self, Random},
    styles,
};

/// Pixels of a mask along one side of a cell, see [`Scene::owners`].
const MASK: u32 = 4;

/// Streams of random numbers of a scene, so that one part of a picture does not change another.
pub(super) const BACKDROP: u64 = 1;
pub(super) const THINGS: u64 = 2;
pub(super) const CAMERA: u64 = 3;

impl Scene {
    /// Paints the scene. All lengths grow with the picture; in one that is not square, things
    /// keep their shape, measured by its shorter side, and their places are fractions of each
    /// side.
    ///
    /// A picture with no pixels, or of more than a gigabyte, comes out empty.
    pub fn draw(&self, width: u32, height: u32) -> DecodedImage {
        let Some(mut canvas) = Pixmap::new(width, height) else {
            return DecodedImage { width: 0, height: 0, rgb: Vec::new() };
        };
        backdrop::paint(self, &mut canvas);
        for number in 0..self.things.len() {
            self.paint_thing(number, &mut canvas);
        }
        backdrop::paint_weather(self, &mut canvas);
        camera::take(self, &canvas)
    }

    /// Which thing covers most of each cell of a grid of `cells` by `cells`, row by row; `None`
    /// where none covers a quarter of it.
    pub fn owners(&self, cells: usize) -> Vec<Option<u8>> {
        let side = cells as u32 * MASK;
        let mut owners = vec![(MASK * MASK / 4 * 255 - 1, None); cells * cells];
        for (number, thing) in self.things.iter().enumerate() {
            let Some(mut mask) = Mask::new(side, side) else { continue };
            let place = transform(thing, side as f32, side as f32);
            for part in &Drawing::of(thing.kind).parts {
                mask.fill_path(&part.fill, FillRule::Winding, true, place);
            }
            let mut covered = vec![0; cells * cells];
            for (pixel, &alpha) in mask.data().iter().enumerate() {
                let (x, y) = (pixel % side as usize, pixel / side as usize);
                let cell = y / MASK as usize * cells + x / MASK as usize;
                covered[cell] += u32::from(alpha);
            }
            for (owner, covered) in owners.iter_mut().zip(covered) {
                if covered > owner.0 {
                    *owner = (covered, Some(number as u8));
                }
            }
        }
        owners.into_iter().map(|(_, owner)| owner).collect()
    }

    fn paint_thing(&self, number: usize, canvas: &mut Pixmap) {
        let thing = &self.things[number];
        // Things of one count are painted alike.
        let stream = if self.is_counted() { 0 } else { number as u64 };
        let mut random = Random::new(&[self.seed, THINGS, stream]);
        let paints = Paints::new(thing.colour, &mut random);
        let Some(mut layer) = Layer::around(thing, canvas) else { return };
        let seed = random::seed(&[self.seed, THINGS, number as u64, 1]);
        layer.fill(thing, self.style, &paints, (canvas.width(), canvas.height()), seed);
        let side = canvas.width().min(canvas.height()) as f32;
        styles::texture(self.style, &mut layer, side, seed);
        self.light(&mut layer);

        let edge = if styles::has_rim(self.style) { styles::rim(&paints) } else { paints.main };
        let edge = palette::blend(edge, paints.main, 0.2);
        if self.style == Style::HELD_OUT {
            styles::cut_out(&layer, canvas, side);
        } else {
            layer.set_off(edge, canvas, side);
        }
        layer.lay_onto(canvas);
    }

    /// What the light of the scene does to a thing. Colours must still be told apart.
    fn light(&self, layer: &mut Layer) {
        let towards: (Rgb, f32) = match (self.time, self.weather) {
            (_, Weather::Fog) => ([196.0, 200.0, 206.0], 0.12),
            (TimeOfDay::Sunset, _) => ([255.0, 150.0, 80.0], 0.07),
            (TimeOfDay::Night, _) => ([20.0, 24.0, 60.0], 0.10),
            (TimeOfDay::Day, _) => return,
        };
        for pixel in layer.pixels.data_mut().as_chunks_mut::<4>().0 {
            let alpha = f32::from(pixel[3]) / 255.0;
            for (channel, target) in pixel[..3].iter_mut().zip(towards.0) {
                let value = f32::from(*channel);
                *channel = (value + (target * alpha - value) * towards.1 + 0.5) as u8;
            }
        }
    }
}

/// From a drawing to the pixels of a picture.
fn transform(thing: &Thing, width: f32, height: f32) -> Transform {
    let side = width.min(height);
    let matrix = thing.pose.matrix(thing.size);
    let extent = Drawing::of(thing.kind).extent(matrix);
    let [a, b, c, d] = matrix.map(|it| it * side);
    let x = thing.x * width - side * f32::midpoint(extent.left, extent.right);
    let y = thing.y * height - side * f32::midpoint(extent.top, extent.bottom);
    Transform::from_row(a, c, b, d, x, y)
}

pub(super) fn solid(rgb: Rgb, opacity: f32) -> Paint<'static> {
    let [red, green, blue] = rgb.map(|it| it as u8);
    let alpha = (opacity * 255.0) as u8;
    Paint {
        shader: Shader::SolidColor(Color::from_rgba8(red, green, blue, alpha)),
        ..Paint::default()
    }
}

/// The pixels of one thing, premultiplied, with room around it for a rim and a shadow.
pub(super) struct Layer {
    pub(super) pixels: Pixmap,
    /// Where its top left pixel lies in the picture.
    pub(super) left: i32,
    pub(super) top: i32,
}

impl Layer {
    fn around(thing: &Thing, canvas: &Pixmap) -> Option<Self> {
        let (width, height) = (canvas.width() as f32, canvas.height() as f32);
        let side = width.min(height);
        let room = 2.0 + 0.07 * side;
        let (across, down) = (0.5 * thing.width * side + room, 0.5 * thing.height * side + room);
        let left = (thing.x * width - across).floor().max(-room);
        let top = (thing.y * height - down).floor().max(-room);
        let right = (thing.x * width + across).ceil().min(width + room);
        let bottom = (thing.y * height + down).ceil().min(height + room);
        let pixels = Pixmap::new((right - left) as u32, (bottom - top) as u32)?;
        Some(Self { pixels, left: left as i32, top: top as i32 })
    }

    fn fill(&mut self, thing: &Thing, style: Style, paints: &Paints, size: (u32, u32), seed: u64) {
        let place = transform(thing, size.0 as f32, size.1 as f32)
            .post_translate(-self.left as f32, -self.top as f32);
        let rim = solid(styles::rim(paints), 1.0);
        for part in &Drawing::of(thing.kind).parts {
            let paint = solid(paints.of(part.role), 1.0);
            if styles::has_rim(style)
                && !matches!(part.role, Role::Ink | Role::Light | Role::Mark)
                && let Some(path) = &part.rim
            {
                self.pixels.fill_path(path, &rim, FillRule::Winding, place, None);
            }
            let wobbly = if style == Style::Crayon { wobble(&part.fill, seed) } else { None };
            let path = wobbly.as_ref().unwrap_or(&part.fill);
            self.pixels.fill_path(path, &paint, FillRule::Winding, place, None);
        }
    }

    /// How much of each pixel the thing covers, 0 to 255, after its edge moved out by `steps`.
    pub(super) fn coverage(&self, steps: u32) -> Vec<u8> {
        let mut alpha: Vec<u8> =
            self.pixels.data().as_chunks::<4>().0.iter().map(|pixel| pixel[3]).collect();
        for step in 0..steps {
            // A cross and a square in turn come near to a circle.
            alpha = spread(&alpha, self.pixels.width() as usize, step % 2 == 1);
        }
        alpha
    }

    /// Puts a light or dark line around the thing where it would be hard to see on what is
    /// behind it.
    fn set_off(&self, edge: Rgb, canvas: &mut Pixmap, side: f32) {
        let steps = ((0.011 * side).round() as u32).max(1);
        let (thing, around) = (self.coverage(0), self.coverage(steps + 1));
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for (number, (&inside, &outside)) in thing.iter().zip(&around).enumerate() {
            if inside < 30
                && outside > 200
                && let Some(pixel) = self.pixel_below(number, (0, 0), canvas)
            {
                sum = [0, 1, 2].map(|it| sum[it] + f32::from(canvas.data()[pixel + it]));
                count += 1.0;
            }
        }
        let behind: Rgb = sum.map(|it| it / f32::max(count, 1.0));
        if palette::distance(behind, edge) > 58.0 {
            return;
        }
        let halo = if palette::luma(behind) < 120.0 { palette::WHITE } else { palette::BLACK };
        self.stain(canvas, &self.coverage(steps), (0, 0), halo, 0.85);
    }

    /// The offset in the picture's bytes of the pixel that lies under the layer's `number`th
    /// when the layer is moved by `by`.
    fn pixel_below(&self, number: usize, by: (i32, i32), canvas: &Pixmap) -> Option<usize> {
        let width = self.pixels.width() as usize;
        let x = self.left + by.0 + (number % width) as i32;
        let y = self.top + by.1 + (number / width) as i32;
        let inside = x >= 0 && y >= 0 && x < canvas.width() as i32 && y < canvas.height() as i32;
        inside.then(|| (y as usize * canvas.width() as usize + x as usize) * 4)
    }

    /// Paints a colour onto the picture through a mask as large as the layer, moved by `by`.
    pub(super) fn stain(
        &self,
        canvas: &mut Pixmap,
        mask: &[u8],
        by: (i32, i32),
        rgb: Rgb,
        opacity: f32,
    ) {
        for (number, &alpha) in mask.iter().enumerate().filter(|(_, alpha)| **alpha > 0) {
            if let Some(below) = self.pixel_below(number, by, canvas) {
                let part = f32::from(alpha) / 255.0 * opacity;
                let pixel = &mut canvas.data_mut()[below..below + 3];
                for (channel, target) in pixel.iter_mut().zip(rgb) {
                    let value = f32::from(*channel);
                    *channel = (value + (target - value) * part + 0.5) as u8;
                }
            }
        }
    }

    fn lay_onto(&self, canvas: &mut Pixmap) {
        for (number, pixel) in self.pixels.data().as_chunks::<4>().0.iter().enumerate() {
            if pixel[3] == 0 {
                continue;
            }
            if let Some(below) = self.pixel_below(number, (0, 0), canvas) {
                let through = 255 - u32::from(pixel[3]);
                let under = &mut canvas.data_mut()[below..below + 3];
                for (channel, &over) in under.iter_mut().zip(&pixel[..3]) {
                    let value = u32::from(over) + (u32::from(*channel) * through + 127) / 255;
                    *channel = value.min(255) as u8;
                }
            }
        }
    }
}

/// The greatest value of each pixel and its neighbours: four, or with corners eight.
fn spread(plane: &[u8], width: usize, corners: bool) -> Vec<u8> {
    let height = plane.len() / width;
    let mut out = plane.to_vec();
    for y in 0..height {
        for x in 0..width {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let (above, below) = (y.saturating_sub(1) * width, (y + 1).min(height - 1) * width);
            let row = y * width;
            let mut most = plane[row + x].max(plane[row + left]).max(plane[row + right]);
            most = most.max(plane[above + x]).max(plane[below + x]);
            if corners {
                most = most.max(plane[above + left]).max(plane[above + right]);
                most = most.max(plane[below + left]).max(plane[below + right]);
            }
            out[row + x] = most;
        }
    }
    out
}

/// The path as an unsteady hand draws it.
fn wobble(path: &Path, seed: u64) -> Option<Path> {
    let moved = |point: Point| {
        let (x, y) = (point.x * 4.0 + 20.0, point.y * 4.0 + 20.0);
        let across = styles::noise(seed, x, y) - 0.5;
        let down = styles::noise(seed ^ 1, x, y) - 0.5;
        (point.x + 0.075 * across, point.y + 0.075 * down)
    };
    let mut builder = PathBuilder::with_capacity(path.verbs().len(), path.points().len());
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(to) => {
                let (x, y) = moved(to);
                builder.move_to(x, y);
            }
            PathSegment::LineTo(to) => {
                let (x, y) = moved(to);
                builder.line_to(x, y);
            }
            PathSegment::QuadTo(handle, to) => {
                let ((a, b), (x, y)) = (moved(handle), moved(to));
                builder.quad_to(a, b, x, y);
            }
            PathSegment::CubicTo(first, second, to) => {
                let ((a, b), (c, d), (x, y)) = (moved(first), moved(second), moved(to));
                builder.cubic_to(a, b, c, d, x, y);
            }
            PathSegment::Close => builder.close(),
        }
    }
    builder.finish()
}
