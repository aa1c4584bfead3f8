//! Vehicles and toys that fly.

use super::{
    Form::{Curve, Dome, Line, Oval, Poly, Rect, Ring, Round, Smooth},
    Primitive,
    Role::{Dark, Glass, Gold, Ink, Light, Main, Metal, White, Wood},
};

pub(super) const CAR: &[Primitive] = &[
    (Main, Poly(&[(20, 54), (34, 27), (68, 27), (84, 54)])),
    (Main, Round(3, 49, 97, 76, 9)),
    (Glass, Poly(&[(28, 51), (38, 32), (49, 32), (49, 51)])),
    (Glass, Poly(&[(54, 51), (54, 32), (65, 32), (76, 51)])),
    (Dark, Rect(3, 66, 97, 71)),
    (Gold, Oval(93, 57, 4, 4)),
    (Ink, Oval(26, 76, 12, 12)),
    (Ink, Oval(74, 76, 12, 12)),
    (Metal, Oval(26, 76, 5, 5)),
    (Metal, Oval(74, 76, 5, 5)),
];

pub(super) const BUS: &[Primitive] = &[
    (Main, Round(2, 14, 98, 80, 8)),
    (Glass, Rect(8, 24, 23, 44)),
    (Glass, Rect(28, 24, 43, 44)),
    (Glass, Rect(48, 24, 63, 44)),
    (Glass, Rect(68, 24, 78, 44)),
    (Glass, Rect(83, 24, 98, 50)),
    (Dark, Rect(2, 54, 98, 60)),
    (Ink, Oval(24, 81, 11, 11)),
    (Ink, Oval(76, 81, 11, 11)),
    (Metal, Oval(24, 81, 4, 4)),
    (Metal, Oval(76, 81, 4, 4)),
];

pub(super) const TRUCK: &[Primitive] = &[
    (Ink, Rect(4, 68, 96, 76)),
    (Main, Rect(2, 14, 60, 70)),
    (Dark, Rect(2, 14, 60, 20)),
    (Dark, Line(3, &[(21, 20), (21, 70)])),
    (Dark, Line(3, &[(41, 20), (41, 70)])),
    (Main, Poly(&[(65, 36), (84, 36), (97, 54), (97, 74), (65, 74)])),
    (Glass, Poly(&[(70, 41), (82, 41), (91, 55), (70, 55)])),
    (Gold, Oval(94, 64, 3, 3)),
    (Ink, Oval(19, 78, 11, 11)),
    (Ink, Oval(44, 78, 11, 11)),
    (Ink, Oval(81, 78, 11, 11)),
    (Metal, Oval(19, 78, 4, 4)),
    (Metal, Oval(44, 78, 4, 4)),
    (Metal, Oval(81, 78, 4, 4)),
];

pub(super) const BICYCLE: &[Primitive] = &[
    (Ink, Ring(23, 66, 20, 5)),
    (Ink, Ring(77, 66, 20, 5)),
    (Main, Ring(23, 66, 16, 5)),
    (Main, Ring(77, 66, 16, 5)),
    (Main, Line(8, &[(23, 66), (39, 36), (66, 36), (48, 66), (23, 66)])),
    (Main, Line(7, &[(48, 66), (37, 30)])),
    (Main, Line(7, &[(77, 66), (64, 24)])),
    (Ink, Line(6, &[(64, 24), (75, 20), (79, 26)])),
    (Ink, Line(8, &[(30, 28), (45, 28)])),
];

pub(super) const TRAIN: &[Primitive] = &[
    (Dark, Poly(&[(16, 40), (13, 13), (35, 13), (32, 40)])),
    (Dark, Dome(48, 38, 8, 10)),
    (Main, Round(9, 36, 70, 68, 10)),
    (Dark, Rect(24, 36, 29, 68)),
    (Dark, Rect(52, 36, 57, 68)),
    (Main, Rect(63, 18, 93, 70)),
    (Dark, Rect(58, 12, 98, 20)),
    (Glass, Rect(70, 27, 87, 45)),
    (Ink, Rect(7, 66, 95, 74)),
    (Metal, Poly(&[(7, 68), (0, 88), (14, 88), (14, 68)])),
    (Ink, Oval(27, 80, 10, 10)),
    (Ink, Oval(50, 80, 10, 10)),
    (Ink, Oval(78, 78, 13, 13)),
    (Metal, Oval(27, 80, 4, 4)),
    (Metal, Oval(50, 80, 4, 4)),
    (Metal, Oval(78, 78, 5, 5)),
];

pub(super) const BOAT: &[Primitive] = &[
    (Wood, Line(4, &[(48, 70), (48, 4)])),
    (Main, Poly(&[(53, 8), (53, 58), (90, 58)])),
    (White, Poly(&[(43, 18), (43, 58), (15, 58)])),
    (Main, Poly(&[(3, 65), (97, 65), (78, 92), (22, 92)])),
    (Dark, Poly(&[(3, 65), (97, 65), (93, 72), (7, 72)])),
];

pub(super) const PLANE: &[Primitive] = &[
    (Dark, Poly(&[(46, 44), (34, 14), (46, 14), (66, 42)])),
    (Main, Poly(&[(6, 48), (1, 18), (15, 18), (32, 42)])),
    (Main, Smooth(&[(3, 44), (22, 40), (74, 37), (98, 50), (88, 59), (66, 62), (18, 58)])),
    (Dark, Poly(&[(42, 53), (20, 90), (36, 90), (68, 54)])),
    (Glass, Poly(&[(80, 41), (90, 45), (92, 49), (79, 48)])),
    (Glass, Oval(34, 47, 3, 3)),
    (Glass, Oval(45, 47, 3, 3)),
    (Glass, Oval(56, 47, 3, 3)),
    (Glass, Oval(67, 47, 3, 3)),
];

pub(super) const ROCKET: &[Primitive] = &[
    (Gold, Poly(&[(38, 76), (44, 90), (50, 100), (56, 90), (62, 76)])),
    (Dark, Poly(&[(34, 46), (12, 84), (38, 76)])),
    (Dark, Poly(&[(66, 46), (88, 84), (62, 76)])),
    (Main, Smooth(&[(50, 1), (65, 22), (69, 48), (63, 78), (37, 78), (31, 48), (35, 22)])),
    (Dark, Smooth(&[(50, 1), (58, 11), (62, 20), (50, 21), (38, 20), (42, 11)])),
    (White, Oval(50, 38, 11, 11)),
    (Glass, Oval(50, 38, 8, 8)),
];

pub(super) const BALLOON: &[Primitive] = &[
    (Ink, Curve(3, &[(50, 72), (45, 80), (55, 90), (50, 100)])),
    (Dark, Poly(&[(50, 62), (58, 76), (42, 76)])),
    (
        Main,
        Smooth(&[(50, 1), (76, 11), (83, 34), (70, 58), (50, 70), (30, 58), (17, 34), (24, 11)]),
    ),
    (Light, Oval(36, 24, 7, 11)),
];

pub(super) const KITE: &[Primitive] = &[
    (Ink, Curve(3, &[(50, 72), (42, 80), (55, 90), (46, 100)])),
    (Main, Poly(&[(50, 0), (84, 32), (50, 74), (16, 32)])),
    (Dark, Poly(&[(50, 0), (84, 32), (50, 32)])),
    (Dark, Poly(&[(16, 32), (50, 32), (50, 74)])),
    (Main, Poly(&[(40, 78), (34, 86), (52, 80), (50, 88)])),
    (Main, Poly(&[(46, 90), (44, 99), (60, 90), (58, 98)])),
];
