//! Buildings and household things.

use super::{
    Form::{Curve, Dome, Line, Oval, Poly, Rect, Ring, Round},
    Primitive,
    Role::{Dark, Glass, Gold, Ink, Light, Main, Mark, Metal, White, Wood},
};

pub(super) const HOUSE: &[Primitive] = &[
    (Dark, Rect(68, 10, 80, 36)),
    (Main, Rect(12, 44, 88, 96)),
    (Dark, Poly(&[(0, 48), (50, 4), (100, 48)])),
    (Wood, Rect(42, 62, 58, 96)),
    (Gold, Oval(54, 79, 2, 2)),
    (Glass, Rect(19, 56, 35, 72)),
    (Glass, Rect(65, 56, 81, 72)),
    (White, Line(2, &[(27, 56), (27, 72)])),
    (White, Line(2, &[(73, 56), (73, 72)])),
];

pub(super) const TOWER: &[Primitive] = &[
    (Main, Rect(20, 2, 34, 20)),
    (Main, Rect(43, 2, 57, 20)),
    (Main, Rect(66, 2, 80, 20)),
    (Main, Poly(&[(20, 16), (80, 16), (80, 32), (70, 38), (30, 38), (20, 32)])),
    (Main, Poly(&[(30, 34), (70, 34), (72, 80), (78, 99), (22, 99), (28, 80)])),
    (Dark, Line(3, &[(30, 38), (70, 38)])),
    (Ink, Round(44, 46, 56, 64, 6)),
    (Ink, Round(40, 76, 60, 99, 9)),
    (Dark, Line(3, &[(33, 54), (40, 54)])),
    (Dark, Line(3, &[(60, 66), (68, 66)])),
    (Dark, Line(3, &[(32, 72), (39, 72)])),
    (Dark, Line(3, &[(60, 47), (67, 47)])),
];

pub(super) const CUP: &[Primitive] = &[
    (Main, Ring(72, 54, 18, 10)),
    (Main, Poly(&[(8, 16), (74, 16), (70, 92), (12, 92)])),
    (Main, Oval(41, 91, 29, 7)),
    (Light, Oval(41, 16, 33, 9)),
    (Dark, Oval(41, 17, 28, 6)),
    (Light, Line(5, &[(19, 36), (21, 76)])),
];

pub(super) const UMBRELLA: &[Primitive] = &[
    (Ink, Line(5, &[(50, 0), (50, 84)])),
    (Ink, Curve(5, &[(50, 82), (54, 95), (64, 96), (68, 86)])),
    (Dark, Oval(17, 48, 15, 8)),
    (Dark, Oval(83, 48, 15, 8)),
    (Dark, Oval(50, 48, 17, 8)),
    (Main, Dome(50, 49, 49, 43)),
    (Dark, Curve(3, &[(50, 8), (38, 22), (33, 48)])),
    (Dark, Curve(3, &[(50, 8), (62, 22), (67, 48)])),
];

pub(super) const CHAIR: &[Primitive] = &[
    (Dark, Line(8, &[(66, 56), (66, 84)])),
    (Main, Line(9, &[(22, 54), (22, 90)])),
    (Main, Line(9, &[(22, 54), (22, 5), (66, 5), (66, 54)])),
    (Main, Line(7, &[(37, 8), (37, 50)])),
    (Main, Line(7, &[(51, 8), (51, 50)])),
    (Main, Poly(&[(17, 50), (70, 50), (90, 66), (32, 66)])),
    (Dark, Poly(&[(32, 65), (90, 65), (90, 72), (32, 72)])),
    (Main, Line(9, &[(36, 70), (36, 98)])),
    (Main, Line(9, &[(85, 70), (85, 98)])),
];

pub(super) const TABLE: &[Primitive] = &[
    (Dark, Rect(27, 44, 35, 78)),
    (Dark, Rect(65, 44, 73, 78)),
    (Main, Rect(8, 42, 19, 92)),
    (Main, Rect(81, 42, 92, 92)),
    (Dark, Rect(8, 42, 92, 52)),
    (Main, Poly(&[(14, 24), (86, 24), (100, 38), (100, 45), (0, 45), (0, 38)])),
    (Light, Line(2, &[(2, 39), (98, 39)])),
];

pub(super) const HAT: &[Primitive] = &[
    (Dark, Oval(50, 84, 49, 13)),
    (Main, Oval(50, 81, 49, 12)),
    (Main, Poly(&[(22, 12), (78, 12), (72, 82), (28, 82)])),
    (Main, Oval(50, 82, 22, 6)),
    (Dark, Oval(50, 12, 28, 7)),
    (Mark, Poly(&[(27, 62), (73, 62), (72, 77), (28, 77)])),
];

pub(super) const CROWN: &[Primitive] = &[
    (Main, Poly(&[(8, 92), (2, 24), (28, 54), (50, 10), (72, 54), (98, 24), (92, 92)])),
    (Dark, Rect(8, 78, 92, 92)),
    (Light, Oval(2, 22, 6, 6)),
    (Light, Oval(50, 9, 7, 7)),
    (Light, Oval(98, 22, 6, 6)),
    (Mark, Oval(28, 85, 5, 5)),
    (Mark, Oval(50, 85, 5, 5)),
    (Mark, Oval(72, 85, 5, 5)),
];

pub(super) const KEY: &[Primitive] = &[
    (Main, Line(13, &[(40, 42), (93, 42)])),
    (Main, Line(12, &[(90, 44), (90, 70)])),
    (Main, Line(12, &[(70, 44), (70, 64)])),
    (Main, Ring(24, 42, 19, 14)),
    (Dark, Ring(24, 42, 25, 2)),
];

pub(super) const CLOCK: &[Primitive] = &[
    (Dark, Line(9, &[(26, 84), (16, 97)])),
    (Dark, Line(9, &[(74, 84), (84, 97)])),
    (Dark, Oval(20, 15, 15, 13)),
    (Dark, Oval(80, 15, 15, 13)),
    (Main, Line(8, &[(50, 14), (50, 4)])),
    (Main, Oval(50, 52, 44, 43)),
    (White, Oval(50, 52, 30, 29)),
    (Ink, Line(5, &[(50, 52), (50, 31)])),
    (Ink, Line(5, &[(50, 52), (64, 60)])),
    (Ink, Oval(50, 27, 2, 2)),
    (Ink, Oval(50, 77, 2, 2)),
    (Ink, Oval(25, 52, 2, 2)),
    (Ink, Oval(75, 52, 2, 2)),
];

pub(super) const BOOK: &[Primitive] = &[
    (Dark, Poly(&[(12, 84), (22, 96), (92, 96), (92, 22), (80, 8)])),
    (White, Poly(&[(16, 84), (24, 92), (88, 92), (88, 24), (78, 12)])),
    (Metal, Line(1, &[(19, 88), (83, 88), (83, 18)])),
    (Main, Round(8, 4, 80, 84, 4)),
    (Dark, Rect(8, 4, 20, 84)),
    (Mark, Rect(32, 20, 70, 30)),
    (Mark, Rect(38, 38, 64, 44)),
];

pub(super) const LAMP: &[Primitive] = &[
    (Wood, Line(7, &[(50, 50), (50, 90)])),
    (Dark, Dome(50, 97, 28, 13)),
    (Gold, Oval(50, 54, 13, 7)),
    (Main, Poly(&[(32, 3), (68, 3), (92, 54), (8, 54)])),
    (Light, Poly(&[(38, 8), (44, 8), (34, 49), (20, 49)])),
];

pub(super) const BOTTLE: &[Primitive] = &[
    (Main, Rect(41, 10, 59, 40)),
    (Main, Poly(&[(41, 28), (59, 28), (74, 46), (26, 46)])),
    (Main, Round(26, 40, 74, 99, 8)),
    (Ink, Round(38, 1, 62, 13, 3)),
    (White, Rect(26, 58, 74, 82)),
    (Dark, Line(4, &[(36, 70), (64, 70)])),
    (Light, Line(4, &[(33, 46), (33, 54)])),
];

pub(super) const GUITAR: &[Primitive] = &[
    (Main, Oval(50, 78, 28, 21)),
    (Main, Oval(50, 53, 21, 16)),
    (Main, Poly(&[(32, 56), (68, 56), (72, 70), (28, 70)])),
    (Wood, Rect(45, 8, 55, 56)),
    (Ink, Oval(50, 63, 9, 9)),
    (Ink, Round(41, 0, 59, 13, 3)),
    (Ink, Rect(38, 82, 62, 87)),
    (Light, Line(1, &[(48, 14), (48, 84)])),
    (Light, Line(1, &[(52, 14), (52, 84)])),
];
