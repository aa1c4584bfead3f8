//! The searches to show, what they should find, and the scenes that are put into the album for
//! them: scenes of the generator like all others, sought by what their graph says.

use super::album::{FIRST, Picture, SPLIT};
use super::trips::{AT_HOME, FUJI, GARDA, OLD_PHONE, PHONE, RENOVATION, USEDOM};
use crate::train::scenes::{Colour, Kind, Scene, Setting, Thing, TimeOfDay, Weather};

/// A search of the demonstration.
#[derive(Debug)]
pub struct DemoSearch {
    /// The query, as a person types it.
    pub query: &'static str,
    /// What it is an example of, in a few words.
    pub about: &'static str,
    answers: fn(&Picture) -> bool,
}

impl DemoSearch {
    /// Whether the picture is what the search looks for, told from its scene, its date and its
    /// camera.
    pub fn is_true_of(&self, picture: &Picture) -> bool {
        (self.answers)(picture)
    }
}

/// The searches, each true of exactly one picture of the album.
pub static SEARCHES: [DemoSearch; 3] = [
    DemoSearch {
        query: "a red car on a beach",
        about: "plain words",
        answers: |picture| shows_red_car_on_beach(&picture.scene),
    },
    DemoSearch {
        query: "a \"cat\" in a kitchen -chair",
        about: "a word that the caption must have, and one that it must not",
        answers: |picture| {
            shows_cat_in_kitchen(&picture.scene) && picture.scene.count(Kind::Chair) == 0
        },
    },
    DemoSearch {
        query: "a boat camera:fuji on:2019-07",
        about: "words, a camera and a month",
        answers: |picture| {
            picture.scene.count(Kind::Boat) > 0
                && picture.camera.make == "FUJIFILM"
                && JULY_2019.contains(&picture.taken.local_seconds)
        },
    },
];

/// What is asked about the first hit of the last search. The scene of the picture that it should
/// find has one boat.
pub const QUESTION: &str = "what color is the boat?";

/// July 2019 in seconds since 1970.
const JULY_2019: std::ops::Range<i64> = 1_561_939_200..1_564_617_600;

/// A scene with its place in the album.
pub(super) struct Planted {
    /// Folder of the trip.
    pub(super) trip: &'static str,
    /// Number of the camera.
    pub(super) camera: usize,
    pub(super) scene: Scene,
}

/// The scenes that the searches are about, the first of the generator that fit: those that should
/// be found, and some that only a part of a query fits.
pub(super) fn planted() -> Vec<Planted> {
    let plant =
        |trip, camera, fits: fn(&Scene) -> bool| Planted { trip, camera, scene: first(fits) };
    vec![
        plant(USEDOM, FUJI, |scene| {
            shows_red_car_on_beach(scene) && is_plain(scene) && stands_out(scene, Kind::Car)
        }),
        plant(RENOVATION, PHONE, |scene| {
            shows_cat_in_kitchen(scene)
                && scene.count(Kind::Chair) == 0
                && stands_out(scene, Kind::Cat)
        }),
        plant(AT_HOME, PHONE, |scene| shows_cat_in_kitchen(scene) && scene.count(Kind::Chair) == 1),
        plant(GARDA, FUJI, |scene| {
            shows_boat_on_sea(scene) && is_plain(scene) && stands_out(scene, Kind::Boat)
        }),
        // The same month, another camera.
        plant(GARDA, OLD_PHONE, |scene| {
            scene.setting == Setting::Beach && scene.count(Kind::Boat) == 1 && is_plain(scene)
        }),
        // The same camera, another year.
        plant(USEDOM, FUJI, |scene| shows_boat_on_sea(scene) && !is_plain(scene)),
    ]
}

/// Whether a scene that nobody sought would make a search ambiguous.
pub(super) fn is_kept_for_a_search(trip: &str, scene: &Scene) -> bool {
    shows_red_car_on_beach(scene)
        || shows_cat_in_kitchen(scene)
        || (trip == GARDA && scene.count(Kind::Boat) > 0)
}

/// The first scene that fits, behind those that fill the album.
fn first(fits: fn(&Scene) -> bool) -> Scene {
    // There are 2^64 numbers; an end is not reached.
    let mut scenes = (FIRST + (1 << 32)..).map(|index| Scene::generate(SPLIT, index));
    scenes.find(fits).unwrap_or_else(|| Scene::generate(SPLIT, FIRST))
}

fn shows_red_car_on_beach(scene: &Scene) -> bool {
    let is_red_car = |it: &Thing| (it.kind, it.colour) == (Kind::Car, Colour::Red);
    scene.setting == Setting::Beach && scene.things.iter().any(is_red_car)
}

fn shows_cat_in_kitchen(scene: &Scene) -> bool {
    scene.setting == Setting::Kitchen && scene.count(Kind::Cat) > 0
}

fn shows_boat_on_sea(scene: &Scene) -> bool {
    scene.setting == Setting::Sea && scene.count(Kind::Boat) == 1
}

/// Whether it shows one of the kind, not small, beside one other thing in another colour.
fn stands_out(scene: &Scene, kind: Kind) -> bool {
    let [one, other] = &scene.things[..] else { return false };
    let sought = if one.kind == kind { one } else { other };
    one.kind != other.kind && one.colour != other.colour && sought.kind == kind && sought.size > 0.3
}

/// Whether it is seen by day, in clear weather.
fn is_plain(scene: &Scene) -> bool {
    scene.time == TimeOfDay::Day && scene.weather == Weather::Clear
}
