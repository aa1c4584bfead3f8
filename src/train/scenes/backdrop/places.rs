//! The twelve settings.

use tiny_skia::PathBuilder;

use super::{Scenery, polygon};
use crate::train::scenes::{
    names::{TimeOfDay, Weather},
    palette::{blend, times},
};

impl Scenery<'_> {
    pub(super) fn beach(&mut self) {
        let horizon = self.random.between(0.34, 0.46);
        let shore = horizon + self.random.between(0.14, 0.22);
        self.sky(horizon);
        let (sea, sand) = (self.near([38.0, 142.0, 190.0]), self.near([234.0, 206.0, 142.0]));
        let (sea, sand) = (self.tone(sea), self.tone(sand));
        self.ground(horizon, sea);
        self.hills(shore, 0.012, 9, blend(sea, [255.0; 3], 0.7));
        self.hills(shore + 0.035, 0.01, 9, sand);
        let grains: Vec<_> = self
            .scatter(26, [-0.1, shore + 0.08, 1.1, 1.1])
            .into_iter()
            .map(|(x, y)| [x, y, 0.008])
            .collect();
        self.circles(&grains, times(sand, 0.86));
    }

    pub(super) fn snow(&mut self) {
        let horizon = self.random.between(0.42, 0.56);
        self.sky(horizon + 0.1);
        let (far, near) = (self.tone([198.0, 214.0, 234.0]), self.tone([240.0, 244.0, 250.0]));
        self.hills(horizon - 0.06, 0.05, 4, far);
        self.hills(horizon + 0.06, 0.03, 3, near);
        self.hills(horizon + 0.3, 0.03, 3, times(near, 0.95));
        let (place, snow) = (self.random.between(-0.1, 0.3), self.tone([214.0, 226.0, 242.0]));
        self.hills(horizon + 0.42, place * 0.1, 2, snow);
    }

    pub(super) fn night_sky(&mut self) {
        let (top, bottom) = (self.near([6.0, 6.0, 22.0]), self.near([26.0, 24.0, 66.0]));
        self.gradient(top, bottom, 1.0);
        let stars: Vec<_> = self
            .scatter(54, [-0.1, -0.1, 1.1, 0.9])
            .into_iter()
            .map(|(x, y)| [x, y, self.random.between(0.003, 0.0075)])
            .collect();
        self.circles(&stars, [236.0, 236.0, 222.0]);
        self.hills(0.92, 0.03, 4, [6.0, 10.0, 16.0]);
    }

    pub(super) fn sea(&mut self) {
        let horizon = self.random.between(0.18, 0.32);
        self.sky(horizon);
        let deep = self.near([16.0, 92.0, 166.0]);
        let deep = self.tone(deep);
        self.ground(horizon, blend(deep, self.tone([70.0, 160.0, 210.0]), 0.4));
        self.ground(horizon + 0.16, blend(deep, self.tone([70.0, 160.0, 210.0]), 0.2));
        self.ground(horizon + 0.38, deep);
        let mut builder = PathBuilder::new();
        for (x, y) in self.scatter(24, [-0.1, horizon + 0.05, 1.1, 1.08]) {
            let width = self.random.between(0.03, 0.05);
            builder.move_to(x - width, y);
            builder.quad_to(x, y - 0.045, x + width, y);
            builder.quad_to(x, y - 0.024, x - width, y);
            builder.close();
        }
        self.fill(builder.finish(), blend(deep, [225.0, 242.0, 252.0], 0.62));
    }

    pub(super) fn forest(&mut self) {
        let (leaves, grass) = (self.near([36.0, 88.0, 46.0]), self.near([74.0, 124.0, 56.0]));
        let (leaves, grass) = (self.tone(leaves), self.tone(grass));
        let light = self.tone([150.0, 184.0, 120.0]);
        self.gradient(blend(leaves, light, 0.25), blend(leaves, light, 0.75), 0.7);
        let bark = self.tone([92.0, 66.0, 46.0]);
        for (count, width, part) in [(7, 0.032, 0.45), (5, 0.06, 0.0)] {
            let trunks: Vec<_> = (0..count)
                .map(|it| {
                    let x = (it as f32 + self.random.unit()) * 1.5 / count as f32 - 0.25;
                    [x, -0.3, x + width * self.random.between(0.8, 1.3), 0.82]
                })
                .collect();
            self.boxes(&trunks, blend(bark, light, part));
        }
        self.hills(0.76, 0.015, 6, grass);
        let crowns: Vec<_> = (0..9)
            .map(|it| {
                let x = it as f32 * 0.17 - 0.15 + self.random.between(-0.04, 0.04);
                [x, self.random.between(-0.12, 0.06), self.random.between(0.11, 0.17)]
            })
            .collect();
        self.circles(&crowns, leaves);
        self.tufts(0.82, times(grass, 0.8));
    }

    /// Blades of grass below a height.
    fn tufts(&mut self, top: f32, rgb: [f32; 3]) {
        let mut builder = PathBuilder::new();
        for (x, y) in self.scatter(26, [-0.1, top, 1.1, 1.1]) {
            polygon(&mut builder, &[(x - 0.012, y), (x - 0.016, y - 0.05), (x, y - 0.012)]);
            polygon(&mut builder, &[(x, y), (x + 0.014, y - 0.045), (x + 0.014, y)]);
        }
        self.fill(builder.finish(), rgb);
    }

    pub(super) fn city(&mut self) {
        self.sky(0.8);
        let street = self.random.between(0.8, 0.9);
        let (mut x, mut lit) = (-0.3, Vec::new());
        while x < 1.3 {
            let width = self.random.between(0.14, 0.24);
            let top = self.random.between(0.08, 0.5);
            let wall = self.random.pick(&[
                [126.0, 120.0, 140.0],
                [98.0, 110.0, 132.0],
                [152.0, 134.0, 122.0],
                [112.0, 104.0, 112.0],
            ]);
            let wall = self.near(wall);
            self.boxes(&[[x, top, x + width, street]], self.tone(wall));
            let columns = (width / 0.06) as usize;
            let gap = width / (columns as f32 + 0.5);
            let mut y = top + 0.04;
            while y < street - 0.06 {
                for column in 0..columns {
                    let left = x + gap * (column as f32 + 0.5);
                    lit.push([left, y, left + 0.6 * gap, y + 0.035]);
                }
                y += 0.075;
            }
            x += width + self.random.between(0.0, 0.02);
        }
        let window = match self.time {
            TimeOfDay::Day => [206.0, 216.0, 222.0],
            _ => [250.0, 214.0, 120.0],
        };
        self.random.shuffle(&mut lit);
        let dark = lit.split_off(lit.len() * 3 / 4);
        self.boxes(&lit, window);
        self.boxes(&dark, self.tone([64.0, 70.0, 86.0]));
        self.ground(street, self.tone([92.0, 92.0, 98.0]));
        self.ground(street, self.tone([150.0, 148.0, 144.0]));
        self.ground(street + 0.04, self.tone([82.0, 82.0, 88.0]));
    }

    pub(super) fn desert(&mut self) {
        let horizon = self.random.between(0.42, 0.56);
        self.sky(horizon);
        let sand = self.near([226.0, 164.0, 88.0]);
        let sand = self.tone(sand);
        self.hills(horizon, 0.05, 4, times(sand, 0.86));
        self.hills(horizon + 0.12, 0.05, 3, sand);
        self.hills(horizon + 0.28, 0.04, 3, times(sand, 0.93));
        self.hills(horizon + 0.42, 0.04, 3, times(sand, 1.06));
    }

    pub(super) fn field(&mut self) {
        let horizon = self.random.between(0.46, 0.62);
        self.sky(horizon);
        let grass = self.near([108.0, 176.0, 66.0]);
        let grass = self.tone(grass);
        self.hills(horizon - 0.03, 0.02, 4, blend(grass, self.tone([150.0, 200.0, 150.0]), 0.5));
        self.hills(horizon + 0.03, 0.015, 3, grass);
        self.hills(horizon + 0.22, 0.02, 3, times(grass, 0.93));
        self.tufts(horizon + 0.1, times(grass, 0.74));
    }

    pub(super) fn room(&mut self) {
        let floor = self.random.between(0.7, 0.8);
        let wall = self.random.pick(&[
            [222.0, 204.0, 178.0],
            [198.0, 208.0, 190.0],
            [216.0, 190.0, 186.0],
            [190.0, 196.0, 214.0],
        ]);
        let wall = self.near(wall);
        self.gradient(wall, times(wall, 0.94), 1.0);
        let stripes: Vec<_> = (0..10)
            .map(|it| {
                let x = it as f32 * 0.17 - 0.3;
                [x, -0.3, x + 0.07, floor]
            })
            .collect();
        self.boxes(&stripes, times(wall, 0.95));
        let boards = self.near([158.0, 110.0, 68.0]);
        self.ground(floor, boards);
        let x = self.random.between(0.08, 0.68);
        let frame = [x, 0.08, x + 0.26, 0.42];
        self.boxes(&[frame], times(boards, 0.8));
        self.boxes(&[[x + 0.025, 0.105, x + 0.235, 0.395]], [176.0, 212.0, 236.0]);
        self.boxes(
            &[[x + 0.12, 0.1, x + 0.14, 0.4], [x, 0.24, x + 0.25, 0.26]],
            times(boards, 0.8),
        );
        self.boxes(&[[-0.4, floor - 0.03, 1.4, floor]], times(wall, 1.12));
        let seams: Vec<_> = (1..6)
            .map(|it| {
                let y = floor + it as f32 * 0.065;
                [-0.4, y, 1.4, y + 0.008]
            })
            .collect();
        self.boxes(&seams, times(boards, 0.78));
    }

    pub(super) fn kitchen(&mut self) {
        let counter = self.random.between(0.6, 0.7);
        let tile = self.near([224.0, 232.0, 232.0]);
        self.gradient(tile, times(tile, 0.97), 1.0);
        let mut seams: Vec<_> = (0..14)
            .map(|it| {
                let y = it as f32 * 0.1 - 0.35;
                [-0.4, y, 1.4, y + 0.01]
            })
            .collect();
        seams.extend((0..18).map(|it| {
            let x = it as f32 * 0.1 - 0.35;
            [x, -0.4, x + 0.01, counter]
        }));
        self.boxes(&seams, times(tile, 0.82));
        let (wood, door) = (self.near([176.0, 124.0, 76.0]), self.near([150.0, 178.0, 178.0]));
        self.ground(counter, door);
        self.boxes(&[[-0.4, counter, 1.4, counter + 0.05]], wood);
        self.boxes(&[[-0.4, counter + 0.05, 1.4, counter + 0.065]], times(wood, 0.7));
        let shift = self.random.between(0.0, 0.3);
        let (mut gaps, mut knobs) = (Vec::new(), Vec::new());
        for number in 0..6 {
            let x = number as f32 * 0.3 - 0.4 + shift;
            gaps.push([x, counter + 0.065, x + 0.012, 1.4]);
            knobs.push([x + 0.05, counter + 0.12, 0.016]);
        }
        self.boxes(&gaps, times(door, 0.7));
        self.circles(&knobs, [96.0, 96.0, 100.0]);
    }

    pub(super) fn road(&mut self) {
        let horizon = self.random.between(0.36, 0.5);
        self.sky(horizon);
        let verge = self.random.pick(&[[128.0, 152.0, 84.0], [168.0, 148.0, 108.0]]);
        let verge = self.near(verge);
        self.ground(horizon, self.tone(verge));
        let middle = self.random.between(0.4, 0.6);
        let foot = self.random.between(0.3, 0.7);
        let (asphalt, line) = (self.tone([84.0, 84.0, 92.0]), self.tone([240.0, 234.0, 210.0]));
        let (top, bottom) = (horizon, 1.35);
        self.polygon(
            &[
                (middle - 0.03, top),
                (middle + 0.03, top),
                (foot + 0.75, bottom),
                (foot - 0.75, bottom),
            ],
            line,
        );
        self.polygon(
            &[
                (middle - 0.025, top),
                (middle + 0.025, top),
                (foot + 0.71, bottom),
                (foot - 0.71, bottom),
            ],
            asphalt,
        );
        let mut builder = PathBuilder::new();
        for (from, to) in [(0.1, 0.18), (0.27, 0.38), (0.5, 0.64), (0.78, 0.95)] {
            let at = |part: f32| (middle + (foot - middle) * part, top + (bottom - top) * part);
            let ((x, y), (u, v)) = (at(from), at(to));
            let (narrow, wide) = (0.05 * from, 0.05 * to);
            polygon(
                &mut builder,
                &[(x - narrow, y), (x + narrow, y), (u + wide, v), (u - wide, v)],
            );
        }
        self.fill(builder.finish(), line);
    }

    pub(super) fn mountain(&mut self) {
        let foot = self.random.between(0.72, 0.82);
        self.sky(0.7);
        let rock = self.near([112.0, 116.0, 134.0]);
        let snow = if self.weather == Weather::Rain { [220.0; 3] } else { [244.0, 246.0, 250.0] };
        for (row, base) in [(0, times(rock, 1.25)), (1, rock)] {
            let (base, snow) = (self.tone(base), self.tone(snow));
            for number in 0..3 {
                let x = number as f32 * 0.5 - 0.15
                    + row as f32 * 0.24
                    + self.random.between(-0.07, 0.07);
                let top = self.random.between(0.06, 0.2) + row as f32 * 0.16;
                let half = self.random.between(0.36, 0.46);
                let at = |side: f32, part: f32| {
                    (x + side * half * part, top + (foot + 0.1 - top) * part)
                };
                self.polygon(&[(x, top), at(1.0, 1.0), at(-1.0, 1.0)], base);
                self.polygon(&[(x, top), at(1.0, 1.0), at(0.2, 1.0)], times(base, 0.84));
                let cap = [
                    (x, top),
                    at(1.0, 0.3),
                    at(0.45, 0.24),
                    at(0.1, 0.34),
                    at(-0.4, 0.24),
                    at(-1.0, 0.3),
                ];
                self.polygon(&cap, snow);
            }
        }
        let meadow = self.near([96.0, 136.0, 84.0]);
        self.hills(foot, 0.02, 4, self.tone(meadow));
    }
}
