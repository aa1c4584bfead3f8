//! The settings, drawn behind the things, and the weather.

mod places;

use tiny_skia::{FillRule, Path, PathBuilder, Pixmap, Rect, Transform};

use super::{
    graph::Scene,
    names::{Setting, TimeOfDay, Weather},
    painter::{self, BACKDROP},
    palette::{Rgb, blend, times},
    random::{self, Random},
    styles,
};

/// A painter of backdrops. Coordinates are fractions of the picture before the camera is turned
/// and moved a little, so shapes reach from -0.3 to 1.3.
struct Scenery<'a> {
    canvas: &'a mut Pixmap,
    view: Transform,
    random: Random,
    time: TimeOfDay,
    weather: Weather,
}

/// Paints the setting of a scene over the whole canvas.
pub(super) fn paint(scene: &Scene, canvas: &mut Pixmap) {
    let mut random = Random::new(&[scene.seed, BACKDROP]);
    let view = view(canvas, &mut random);
    let mut scenery = Scenery { canvas, view, random, time: scene.time, weather: scene.weather };
    match scene.setting {
        Setting::Beach => scenery.beach(),
        Setting::Snow => scenery.snow(),
        Setting::NightSky => scenery.night_sky(),
        Setting::Sea => scenery.sea(),
        Setting::Forest => scenery.forest(),
        Setting::City => scenery.city(),
        Setting::Desert => scenery.desert(),
        Setting::Field => scenery.field(),
        Setting::Room => scenery.room(),
        Setting::Kitchen => scenery.kitchen(),
        Setting::Road => scenery.road(),
        Setting::Mountain => scenery.mountain(),
    }
    styles::ground(scene.style, canvas, random::seed(&[scene.seed, BACKDROP, 1]));
    if scene.weather == Weather::Fog {
        fog(scene, canvas);
    }
}

/// A camera that is held a little askew and a little too near.
fn view(canvas: &Pixmap, random: &mut Random) -> Transform {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let turn = random.normal() * 0.03;
    let zoom = random.between(1.0, 1.18);
    let (x, y) = (random.between(-0.05, 0.05), random.between(-0.05, 0.05));
    Transform::from_translate(-0.5 + x, -0.5 + y)
        .post_concat(Transform::from_row(zoom, zoom * turn, -zoom * turn, zoom, 0.0, 0.0))
        .post_translate(0.5, 0.5)
        .post_scale(width, height)
}

/// Hides the backdrop, more of it higher up.
fn fog(scene: &Scene, canvas: &mut Pixmap) {
    let mist = match scene.time {
        TimeOfDay::Day => [206.0, 210.0, 214.0],
        TimeOfDay::Sunset => [226.0, 196.0, 178.0],
        TimeOfDay::Night => [86.0, 90.0, 108.0],
    };
    let (width, height) = (canvas.width() as usize, canvas.height() as f32);
    for (y, row) in canvas.data_mut().chunks_exact_mut(4 * width).enumerate() {
        let part = 0.74 - 0.3 * y as f32 / height;
        for pixel in row.as_chunks_mut::<4>().0 {
            for (channel, target) in pixel[..3].iter_mut().zip(mist) {
                let value = f32::from(*channel);
                *channel = (value + (target - value) * part) as u8;
            }
        }
    }
}

/// Paints what falls in front of everything.
pub(super) fn paint_weather(scene: &Scene, canvas: &mut Pixmap) {
    let mut random = Random::new(&[scene.seed, BACKDROP, 2]);
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let unit = Transform::from_scale(width, height);
    let mut builder = PathBuilder::new();
    match scene.weather {
        Weather::Clear | Weather::Fog => return,
        Weather::Rain => {
            let slant = random.between(-0.35, 0.35);
            for _ in 0..38 {
                let (x, y) = (random.unit() * 1.2 - 0.1, random.unit() * 1.1 - 0.1);
                let length = random.between(0.06, 0.12);
                builder.move_to(x, y);
                builder.line_to(x + 0.009, y);
                builder.line_to(x + 0.009 + slant * length, y + length);
                builder.line_to(x + slant * length, y + length);
                builder.close();
            }
        }
        Weather::Snowfall => {
            for _ in 0..46 {
                builder.push_circle(random.unit(), random.unit(), random.between(0.007, 0.014));
            }
        }
    }
    let paint = match scene.weather {
        Weather::Rain => painter::solid([206.0, 226.0, 246.0], 0.6),
        _ => painter::solid([252.0, 252.0, 255.0], 0.88),
    };
    if let Some(path) = builder.finish() {
        canvas.fill_path(&path, &paint, FillRule::Winding, unit, None);
    }
}

impl Scenery<'_> {
    /// A colour by day as it looks in the scene's light and weather.
    fn tone(&self, rgb: Rgb) -> Rgb {
        let rgb = match self.weather {
            Weather::Rain => blend(rgb, [116.0, 124.0, 134.0], 0.3),
            Weather::Snowfall => blend(rgb, [200.0, 206.0, 216.0], 0.25),
            Weather::Clear | Weather::Fog => rgb,
        };
        match self.time {
            TimeOfDay::Day => rgb,
            TimeOfDay::Sunset => times(blend(rgb, [255.0, 140.0, 80.0], 0.28), 0.9),
            TimeOfDay::Night => times(blend(rgb, [60.0, 74.0, 140.0], 0.36), 0.6),
        }
    }

    /// A colour a little off the one named, for this picture.
    fn near(&mut self, rgb: Rgb) -> Rgb {
        let factor = self.random.between(0.9, 1.1);
        times(rgb.map(|it| it + self.random.between(-10.0, 10.0)), factor)
    }

    /// Fills everything, from one colour at the top to another at `horizon` and below.
    fn gradient(&mut self, top: Rgb, bottom: Rgb, horizon: f32) {
        let (width, height) = (self.canvas.width() as usize, self.canvas.height() as f32);
        for (y, row) in self.canvas.data_mut().chunks_exact_mut(4 * width).enumerate() {
            let part = (y as f32 / height / horizon).min(1.0);
            let [red, green, blue] = blend(top, bottom, part).map(|it| it as u8);
            row.as_chunks_mut::<4>().0.fill([red, green, blue, 255]);
        }
    }

    fn sky(&mut self, horizon: f32) {
        let (top, bottom) = match (self.time, self.weather) {
            (TimeOfDay::Day, Weather::Rain) => ([126.0, 138.0, 154.0], [178.0, 186.0, 194.0]),
            (TimeOfDay::Day, Weather::Snowfall) => ([158.0, 172.0, 190.0], [208.0, 216.0, 226.0]),
            (TimeOfDay::Day, _) => ([92.0, 164.0, 234.0], [198.0, 226.0, 248.0]),
            (TimeOfDay::Sunset, _) => ([226.0, 110.0, 96.0], [255.0, 206.0, 128.0]),
            (TimeOfDay::Night, _) => ([20.0, 24.0, 66.0], [58.0, 66.0, 122.0]),
        };
        let (top, bottom) = (self.near(top), self.near(bottom));
        self.gradient(top, bottom, horizon);
    }

    fn fill(&mut self, path: Option<Path>, rgb: Rgb) {
        if let Some(path) = path {
            let paint = painter::solid(rgb, 1.0);
            self.canvas.fill_path(&path, &paint, FillRule::Winding, self.view, None);
        }
    }

    fn polygon(&mut self, points: &[(f32, f32)], rgb: Rgb) {
        let mut builder = PathBuilder::new();
        polygon(&mut builder, points);
        self.fill(builder.finish(), rgb);
    }

    /// Boxes: left, top, right, bottom.
    fn boxes(&mut self, boxes: &[[f32; 4]], rgb: Rgb) {
        let mut builder = PathBuilder::new();
        for &[left, top, right, bottom] in boxes {
            if let Some(rect) = Rect::from_ltrb(left, top, right, bottom) {
                builder.push_rect(rect);
            }
        }
        self.fill(builder.finish(), rgb);
    }

    /// Circles: middle and radius.
    fn circles(&mut self, circles: &[[f32; 3]], rgb: Rgb) {
        let mut builder = PathBuilder::new();
        for &[x, y, radius] in circles {
            builder.push_circle(x, y, radius);
        }
        self.fill(builder.finish(), rgb);
    }

    /// Everything below a line of hills: its mean height, how far it swings, and how many hills.
    fn hills(&mut self, top: f32, swing: f32, count: usize, rgb: Rgb) {
        let mut builder = PathBuilder::new();
        let step = 1.6 / count as f32;
        let (mut x, mut y) = (-0.3, top + swing * self.random.normal());
        builder.move_to(-0.3, 1.4);
        builder.line_to(x, y);
        for _ in 0..count {
            let next = top + swing * self.random.normal();
            let third = step / 3.0;
            builder.cubic_to(x + third, y, x + 2.0 * third, next, x + step, next);
            (x, y) = (x + step, next);
        }
        builder.line_to(x, 1.4);
        builder.close();
        self.fill(builder.finish(), rgb);
    }

    /// Everything below `top`.
    fn ground(&mut self, top: f32, rgb: Rgb) {
        self.boxes(&[[-0.4, top, 1.4, 1.5]], rgb);
    }

    /// Places spread over a box.
    fn scatter(&mut self, count: usize, [left, top, right, bottom]: [f32; 4]) -> Vec<(f32, f32)> {
        (0..count)
            .map(|_| (self.random.between(left, right), self.random.between(top, bottom)))
            .collect()
    }
}

fn polygon(builder: &mut PathBuilder, points: &[(f32, f32)]) {
    for (number, &(x, y)) in points.iter().enumerate() {
        if number == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
    }
    builder.close();
}
