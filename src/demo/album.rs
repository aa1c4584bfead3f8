//! What is in the album: folders, names, dates, places, cameras, scenes.

use std::path::PathBuf;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use tinyfind_index::{Taken, TakenSource};

use super::searches::{is_kept_for_a_search, planted};
use super::trips::{CAMERAS, Camera, TRIPS, Trip};
use crate::train::scenes::random::Random;
use crate::train::scenes::{Scene, Split, TimeOfDay, Weather};

/// How many pictures are in the album.
pub const PICTURES: usize = 300;

/// The split of the scenes: drawn like those of the training, none of them seen there.
pub(super) const SPLIT: Split = Split::Test;

/// The number of the first scene that may come into the album. The evaluation begins at 2^32 and
/// never comes this far.
pub(super) const FIRST: u64 = 1 << 40;

/// Keeps the random numbers of the album apart from those of the scenes.
const STREAM: u64 = 0xA1B0;

/// Thousandths of a second of arc in a degree: the measure in which places are kept.
pub(super) const MILLISECONDS_OF_ARC: f64 = 3_600_000.0;

/// How far from the trip's place a picture may be taken, north or east, in thousandths of a
/// second of arc: about two kilometres to the north.
const WITHIN: usize = 65_000;

/// A picture of the album.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Path inside the album.
    pub path: PathBuf,
    /// What it shows.
    pub scene: Scene,
    /// What it was taken with.
    pub camera: &'static Camera,
    /// When, on the clock of the place.
    pub taken: Taken,
    /// Latitude (north positive) and longitude (east positive) in degrees, where it knows them.
    pub place: Option<(f64, f64)>,
    /// How the file is to be turned to stand upright, as EXIF has it: 1 for not at all, 6 for a
    /// quarter clockwise, 8 for a quarter counterclockwise.
    pub orientation: u16,
}

/// A picture before it has a name.
struct Shot {
    scene: Scene,
    /// Place in [`CAMERAS`].
    camera: usize,
    /// Seconds since 1970 of the clock of the place.
    local_seconds: i64,
    place: Option<(f64, f64)>,
    orientation: u16,
}

/// The [`PICTURES`] pictures of the album, folder by folder and in each by date. The same every
/// time.
pub fn album() -> Vec<Picture> {
    let mut planted = planted();
    let mut indices = FIRST..;
    let mut numbers = CAMERAS.each_ref().map(|camera| camera.last_number);
    let mut pictures = Vec::with_capacity(PICTURES);
    for (trip, number) in TRIPS.iter().zip(0..) {
        let mut random = Random::new(&[STREAM, number]);
        let mut shots = Vec::with_capacity(trip.pictures);
        for it in planted.extract_if(.., |it| it.trip == trip.folder) {
            shots.push(Shot::taken_on(trip, it.scene, it.camera, &mut random));
        }
        while shots.len() < trip.pictures {
            let scene = next_fitting(trip, &mut indices);
            // The first camera takes about two of three.
            let camera = if random.chance(0.65) { 0 } else { random.below(trip.cameras.len()) };
            shots.push(Shot::taken_on(trip, scene, trip.cameras[camera], &mut random));
        }
        shots.sort_by_key(|shot| shot.local_seconds);
        for shot in shots {
            // Not every picture was kept.
            let number = &mut numbers[shot.camera];
            *number += 1 + random.below(6);
            pictures.push(shot.named(trip, *number));
        }
    }
    pictures
}

/// The next scene that may be one of the trip and that no search looks for.
fn next_fitting(trip: &Trip, indices: &mut impl Iterator<Item = u64>) -> Scene {
    loop {
        // There are 2^64 numbers; an end is not reached.
        let scene = Scene::generate(SPLIT, indices.next().unwrap_or(FIRST));
        let fits = trip.settings.contains(&scene.setting)
            && (trip.is_winter || scene.weather != Weather::Snowfall)
            && !is_kept_for_a_search(trip.folder, &scene);
        if fits {
            return scene;
        }
    }
}

impl Shot {
    fn taken_on(trip: &Trip, scene: Scene, camera: usize, random: &mut Random) -> Self {
        let midnight = trip
            .from
            .to_datetime(Time::midnight())
            .to_zoned(TimeZone::UTC)
            .map_or(0, |midnight| midnight.timestamp().as_second());
        let day = random.below(trip.days) as i64;
        let (begin, end) = hours(scene.time, trip.is_winter);
        let second = begin + random.below(end - begin);
        let has_place = random.below(100) < CAMERAS[camera].located_percent;
        let mut near = |degrees: f64| {
            let away = random.below(2 * WITHIN + 1) as f64 - WITHIN as f64;
            (degrees * MILLISECONDS_OF_ARC + away).round() / MILLISECONDS_OF_ARC
        };
        let place = trip.place.map(|(latitude, longitude)| (near(latitude), near(longitude)));
        let orientation = match random.below(24) {
            0 => 6,
            1 => 8,
            _ => 1,
        };
        Self {
            scene,
            camera,
            local_seconds: midnight + day * 86_400 + second as i64,
            place: place.filter(|_| has_place),
            orientation,
        }
    }

    fn named(self, trip: &Trip, number: usize) -> Picture {
        let camera = &CAMERAS[self.camera];
        let Camera { prefix, digits, extension, .. } = *camera;
        let name = format!("{prefix}{number:0digits$}.{extension}");
        Picture {
            path: [trip.folder, &name].iter().collect(),
            scene: self.scene,
            camera,
            taken: Taken {
                local_seconds: self.local_seconds,
                offset_minutes: Some(trip.offset_minutes),
                source: TakenSource::Exif,
            },
            place: self.place,
            orientation: self.orientation,
        }
    }
}

/// The seconds of a day in which that light is seen: from the first to before the second.
fn hours(time: TimeOfDay, is_winter: bool) -> (usize, usize) {
    let (begin, end) = match (time, is_winter) {
        (TimeOfDay::Day, false) => (9.0, 18.5),
        (TimeOfDay::Sunset, false) => (19.5, 21.0),
        (TimeOfDay::Night, false) => (21.8, 23.9),
        (TimeOfDay::Day, true) => (9.5, 15.5),
        (TimeOfDay::Sunset, true) => (16.0, 17.0),
        (TimeOfDay::Night, true) => (18.5, 23.5),
    };
    let seconds = |hour: f64| (hour * 3600.0) as usize;
    (seconds(begin), seconds(end))
}
