//! Colours as numbers.

use super::{drawings::Role, names::Colour, random::Random};

/// Red, green and blue, 0 to 255.
pub(super) type Rgb = [f32; 3];

/// A part of the way from one colour to another, 0 to 1.
pub(super) fn blend(from: Rgb, to: Rgb, part: f32) -> Rgb {
    [0, 1, 2].map(|channel| from[channel] + (to[channel] - from[channel]) * part)
}

pub(super) fn times(rgb: Rgb, factor: f32) -> Rgb {
    rgb.map(|it| (it * factor).clamp(0.0, 255.0))
}

/// How bright a colour looks, 0 to 255 (the weights of ITU-R BT.601).
pub(super) fn luma([red, green, blue]: Rgb) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// How unlike two colours look: their distance with the eye's weights for each channel.
pub(super) fn distance(a: Rgb, b: Rgb) -> f32 {
    let weights = [0.299, 0.587, 0.114];
    [0, 1, 2].map(|it| weights[it] * (a[it] - b[it]) * (a[it] - b[it])).iter().sum::<f32>().sqrt()
}

pub(super) const BLACK: Rgb = [24.0, 22.0, 26.0];
pub(super) const WHITE: Rgb = [250.0, 250.0, 248.0];

/// The middle of what goes by a colour's name here.
fn base(colour: Colour) -> Rgb {
    match colour {
        Colour::Red => [218.0, 28.0, 32.0],
        Colour::Orange => [250.0, 138.0, 16.0],
        Colour::Yellow => [252.0, 226.0, 40.0],
        Colour::Green => [34.0, 158.0, 56.0],
        Colour::Blue => [32.0, 84.0, 222.0],
        Colour::Purple => [134.0, 46.0, 176.0],
        Colour::Pink => [255.0, 142.0, 190.0],
        Colour::Brown => [122.0, 72.0, 34.0],
        Colour::Black => [30.0, 30.0, 34.0],
        Colour::White => [247.0, 247.0, 245.0],
        Colour::Gray => [132.0, 134.0, 138.0],
    }
}

/// The paints of one thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paints {
    pub(super) main: Rgb,
    dark: Rgb,
    light: Rgb,
    mark: Rgb,
    skin: Rgb,
}

impl Paints {
    /// A colour a little off its middle, with what goes with it.
    pub(super) fn new(colour: Colour, random: &mut Random) -> Self {
        let factor = random.between(0.95, 1.05);
        let main = base(colour).map(|it| (it + random.between(-9.0, 9.0)).clamp(8.0, 252.0));
        let main = times(main, factor);
        let (dark, light) = match colour {
            // Neither is black darker nor white lighter; details must still be seen.
            Colour::Black => ([72.0, 72.0, 80.0], [112.0, 112.0, 120.0]),
            Colour::White => ([196.0, 200.0, 208.0], [255.0, 255.0, 255.0]),
            _ => (times(main, 0.68), blend(main, [255.0; 3], 0.45)),
        };
        let mark = if luma(main) > 150.0 { [84.0, 74.0, 74.0] } else { [246.0, 244.0, 238.0] };
        let skin =
            random.pick(&[[246.0, 205.0, 170.0], [226.0, 172.0, 128.0], [150.0, 100.0, 66.0]]);
        Self { main, dark, light, mark, skin }
    }

    pub(super) fn of(&self, role: Role) -> Rgb {
        match role {
            Role::Main => self.main,
            Role::Dark => self.dark,
            Role::Light => self.light,
            Role::Mark => self.mark,
            Role::Skin => self.skin,
            Role::Ink => BLACK,
            Role::White => WHITE,
            Role::Cream => [244.0, 234.0, 210.0],
            Role::Glass => [176.0, 220.0, 246.0],
            Role::Wood => [128.0, 84.0, 48.0],
            Role::Metal => [176.0, 180.0, 188.0],
            Role::Gold => [252.0, 196.0, 40.0],
            Role::Leaf => [60.0, 150.0, 60.0],
        }
    }
}
