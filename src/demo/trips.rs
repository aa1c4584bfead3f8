//! The folders of the album and the cameras of the family.
//!
//! No folder has a name with the word of a thing or a setting in it: what is found is found by
//! what it shows.

use jiff::civil::{Date, date};

use crate::train::scenes::Setting;

/// A camera with the lens that is on it.
#[derive(Debug, PartialEq, Eq)]
pub struct Camera {
    /// EXIF `Make`.
    pub make: &'static str,
    /// EXIF `Model`.
    pub model: &'static str,
    /// EXIF `LensModel`.
    pub lens: &'static str,
    /// What stands before the number in its file names.
    pub(super) prefix: &'static str,
    /// Digits of that number.
    pub(super) digits: usize,
    /// What stands behind it.
    pub(super) extension: &'static str,
    /// The number of its last picture before the album begins.
    pub(super) last_number: usize,
    /// Of a hundred pictures, how many know where they were taken.
    pub(super) located_percent: usize,
}

/// Places in [`CAMERAS`].
const NIKON: usize = 0;
pub(super) const OLD_PHONE: usize = 1;
pub(super) const FUJI: usize = 2;
pub(super) const PHONE: usize = 3;
const SONY: usize = 4;

pub(super) static CAMERAS: [Camera; 5] = [
    Camera {
        make: "NIKON CORPORATION",
        model: "NIKON D5300",
        lens: "18.0-55.0 mm f/3.5-5.6",
        prefix: "DSC_",
        digits: 4,
        extension: "JPG",
        last_number: 2_716,
        located_percent: 0,
    },
    Camera {
        make: "Apple",
        model: "iPhone 6s",
        lens: "iPhone 6s back camera 4.15mm f/2.2",
        prefix: "IMG_",
        digits: 4,
        extension: "jpg",
        last_number: 388,
        located_percent: 95,
    },
    Camera {
        make: "FUJIFILM",
        model: "X-T3",
        lens: "XF18-55mmF2.8-4 R LM OIS",
        prefix: "DSCF",
        digits: 4,
        extension: "JPG",
        last_number: 141,
        located_percent: 30,
    },
    Camera {
        make: "Apple",
        model: "iPhone 11",
        lens: "iPhone 11 back dual wide camera 4.25mm f/1.8",
        prefix: "IMG_",
        digits: 4,
        extension: "jpg",
        last_number: 57,
        located_percent: 95,
    },
    Camera {
        make: "SONY",
        model: "DSC-RX100M7",
        lens: "24-200mm F2.8-4.5",
        prefix: "DSC",
        digits: 5,
        extension: "JPG",
        last_number: 1_203,
        located_percent: 0,
    },
];

/// A folder of the album: an outing, a feast, a season.
#[derive(Debug)]
pub(super) struct Trip {
    /// Path inside the album.
    pub(super) folder: &'static str,
    /// Its first day.
    pub(super) from: Date,
    /// How many days it takes.
    pub(super) days: usize,
    /// Offset of the clocks there from UTC, in minutes.
    pub(super) offset_minutes: i16,
    /// Latitude and longitude in degrees; `None` where nobody's phone knows a place.
    pub(super) place: Option<(f64, f64)>,
    /// Where its scenes are.
    pub(super) settings: &'static [Setting],
    /// Whether it is winter there: snow may fall, and the sun sets early.
    pub(super) is_winter: bool,
    /// Places in [`CAMERAS`] of those that were there; the first takes more pictures.
    pub(super) cameras: &'static [usize],
    /// How many pictures.
    pub(super) pictures: usize,
}

use Setting::{
    Beach, City, Desert, Field, Forest, Kitchen, Mountain, NightSky, Road, Room, Sea, Snow,
};

/// The trip that the third search looks in.
pub(super) const GARDA: &str = "2019/2019-07 Lake Garda";
/// The trip with the picture that the first search looks for.
pub(super) const USEDOM: &str = "2020/2020-08 Usedom";
/// A trip with a cat and a chair.
pub(super) const AT_HOME: &str = "2020/2020-04 At home";
/// The trip with the picture that the second search looks for.
pub(super) const RENOVATION: &str = "2021/2021-03 Renovation";

/// The folders, oldest first.
pub(super) static TRIPS: [Trip; 20] = [
    Trip {
        folder: "2016/2016-05 Bornholm",
        from: date(2016, 5, 14),
        days: 8,
        offset_minutes: 120,
        place: Some((55.160, 14.867)),
        settings: &[Sea, Beach, Road, Field],
        is_winter: false,
        cameras: &[NIKON, OLD_PHONE],
        pictures: 17,
    },
    Trip {
        folder: "2016/2016-10 Weekend in Lisbon",
        from: date(2016, 10, 21),
        days: 3,
        offset_minutes: 60,
        place: Some((38.713, -9.139)),
        settings: &[City, Road, Room],
        is_winter: false,
        cameras: &[OLD_PHONE],
        pictures: 12,
    },
    Trip {
        folder: "2017/2017-02 Lofoten",
        from: date(2017, 2, 18),
        days: 9,
        offset_minutes: 60,
        place: Some((68.147, 13.612)),
        settings: &[Snow, Mountain, NightSky, Sea],
        is_winter: true,
        cameras: &[NIKON, OLD_PHONE],
        pictures: 18,
    },
    Trip {
        folder: "2017/2017-06 Midsummer party",
        from: date(2017, 6, 24),
        days: 1,
        offset_minutes: 120,
        place: None,
        settings: &[Field, Kitchen, Room],
        is_winter: false,
        cameras: &[NIKON],
        pictures: 11,
    },
    Trip {
        folder: "2017/2017-08 Berchtesgaden",
        from: date(2017, 8, 5),
        days: 12,
        offset_minutes: 120,
        place: Some((47.630, 13.004)),
        settings: &[Mountain, Forest, Road, Field],
        is_winter: false,
        cameras: &[NIKON, OLD_PHONE],
        pictures: 19,
    },
    Trip {
        folder: "2018/2018-04 Morocco",
        from: date(2018, 4, 7),
        days: 10,
        offset_minutes: 60,
        place: Some((31.099, -4.012)),
        settings: &[Desert, City, Road],
        is_winter: false,
        cameras: &[NIKON, OLD_PHONE],
        pictures: 18,
    },
    Trip {
        folder: "2018/Christmas at Aunt Edith's",
        from: date(2018, 12, 24),
        days: 3,
        offset_minutes: 60,
        place: None,
        settings: &[Room, Kitchen, Snow],
        is_winter: true,
        cameras: &[OLD_PHONE],
        pictures: 12,
    },
    Trip {
        folder: GARDA,
        from: date(2019, 7, 13),
        days: 14,
        offset_minutes: 120,
        place: Some((45.552, 10.715)),
        settings: &[Sea, Beach, Mountain, Road],
        is_winter: false,
        cameras: &[FUJI, OLD_PHONE],
        pictures: 22,
    },
    Trip {
        folder: "2019/2019-10 Kyoto",
        from: date(2019, 10, 5),
        days: 11,
        offset_minutes: 540,
        place: Some((35.012, 135.768)),
        settings: &[City, Forest, Room],
        is_winter: false,
        cameras: &[FUJI, OLD_PHONE],
        pictures: 18,
    },
    Trip {
        folder: AT_HOME,
        from: date(2020, 4, 2),
        days: 25,
        offset_minutes: 120,
        place: None,
        settings: &[Room, Kitchen],
        is_winter: false,
        cameras: &[PHONE],
        pictures: 10,
    },
    Trip {
        folder: USEDOM,
        from: date(2020, 8, 8),
        days: 9,
        offset_minutes: 120,
        place: Some((53.954, 14.168)),
        settings: &[Beach, Sea, Field],
        is_winter: false,
        cameras: &[FUJI, PHONE],
        pictures: 18,
    },
    Trip {
        folder: RENOVATION,
        from: date(2021, 3, 1),
        days: 28,
        offset_minutes: 60,
        place: None,
        settings: &[Kitchen, Room],
        is_winter: false,
        cameras: &[PHONE],
        pictures: 10,
    },
    Trip {
        folder: "2021/Grandma's 80th birthday",
        from: date(2021, 9, 18),
        days: 1,
        offset_minutes: 120,
        place: Some((51.343, 12.375)),
        settings: &[Room, Field, Kitchen],
        is_winter: false,
        cameras: &[FUJI, PHONE],
        pictures: 15,
    },
    Trip {
        folder: "2021/2021-10 Harz on foot",
        from: date(2021, 10, 9),
        days: 6,
        offset_minutes: 120,
        place: Some((51.800, 10.618)),
        settings: &[Forest, Mountain, Field],
        is_winter: false,
        cameras: &[PHONE],
        pictures: 14,
    },
    Trip {
        folder: "2022/2022-02 Ski week, Zermatt",
        from: date(2022, 2, 12),
        days: 7,
        offset_minutes: 60,
        place: Some((46.021, 7.749)),
        settings: &[Snow, Mountain, Room],
        is_winter: true,
        cameras: &[SONY, PHONE],
        pictures: 18,
    },
    Trip {
        folder: "2022/2022-07 Camper van, Flåm",
        from: date(2022, 7, 16),
        days: 15,
        offset_minutes: 120,
        place: Some((60.863, 7.114)),
        settings: &[Road, Mountain, Forest, Sea],
        is_winter: false,
        cameras: &[FUJI, PHONE],
        pictures: 18,
    },
    Trip {
        folder: "2023/2023-04 Arizona",
        from: date(2023, 4, 3),
        days: 13,
        offset_minutes: -420,
        place: Some((36.057, -112.143)),
        settings: &[Desert, Road, NightSky],
        is_winter: false,
        cameras: &[FUJI, PHONE],
        pictures: 16,
    },
    Trip {
        folder: "2023/2023-10 La Palma",
        from: date(2023, 10, 14),
        days: 8,
        offset_minutes: 60,
        place: Some((28.757, -17.889)),
        settings: &[NightSky, Sea, Mountain],
        is_winter: false,
        cameras: &[SONY],
        pictures: 10,
    },
    Trip {
        folder: "2024/2024-05 New York",
        from: date(2024, 5, 10),
        days: 6,
        offset_minutes: -240,
        place: Some((40.758, -73.986)),
        settings: &[City, Road, Room],
        is_winter: false,
        cameras: &[PHONE, FUJI],
        pictures: 12,
    },
    Trip {
        folder: "2024/2024-08 Brittany",
        from: date(2024, 8, 17),
        days: 10,
        offset_minutes: 120,
        place: Some((48.832, -3.487)),
        settings: &[Beach, Sea, Field, Road],
        is_winter: false,
        cameras: &[FUJI, PHONE],
        pictures: 12,
    },
];
