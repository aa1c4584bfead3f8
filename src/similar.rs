//! Photos that look like another one.
//!
//! Two photos are as alike as their image-text vectors, row by row: the mean, over the rows, of
//! the cosine between row `i` of the one and row `i` of the other ([`IndexReader::by_rows`],
//! [`likeness`]). A row is what one learned query of the Q-Former found in the picture, and each
//! query keeps its role from picture to picture, so it is compared with itself; that all rows
//! count keeps one thing that two pictures share from hiding all that they do not. The measure is
//! symmetric and a photo is most like itself. In a large index candidates come from codes, as for one
//! vector, at two to four times the cost (`benches/index.rs`).
//!
//! Measured with the built-in model on 240 drawn scenes: how many have their own picture first
//! when looked for with one that was made of it (`TINYFIND_SCENES=240`, in the tests).
//!
//! | | row by row | nearest rows, symmetric | mean with nearest row |
//! |---|---|---|---|
//! | small JPEG; cut to 85 %; things moved | 100 % | 100 % | 100 % |
//! | cut to 70 % | 99.6 % | 99.2 % | 97.1 % |
//! | drawn in another style | 99.6 % | 99.6 % | 99.6 % |

use std::path::{Path, PathBuf};

use tinyfind_index::{Filter, IndexReader, Matrix, SearchError, StoredPhoto};

use crate::ask::{Subject, current};
use crate::search::{
    FindError, Hit, Named, Placed, SearchOptions, SourceScores, Weights, check_model, find_named,
    hits, look_at,
};
use crate::vlm::Vlm;

/// A photo that others are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Original {
    /// One whose vectors the index has.
    Indexed(Box<StoredPhoto>),
    /// A file that a model must look at.
    File(PathBuf),
}

/// Why there are no photos to show that are like another one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimilarError {
    /// The photo is nowhere.
    #[error("there is no photo `{}` here or in the index", path.display())]
    NoSuchPhoto {
        /// As it was written.
        path: PathBuf,
    },
    /// A name that several photos of the index have.
    #[error(
        "several photos are called `{}`: write more of the path, such as `{example}`",
        name.display()
    )]
    ManyPhotos {
        /// As it was written.
        name: PathBuf,
        /// End of the path of one of them.
        example: String,
    },
    /// The file cannot be looked at, or the index cannot be searched.
    #[error(transparent)]
    Find(#[from] FindError),
}

impl From<SearchError> for SimilarError {
    fn from(error: SearchError) -> Self {
        FindError::from(error).into()
    }
}

/// Finds the photo that `subject` names: the one of the index, if that is what its file shows or
/// if the file is gone; else the file; else the one photo of the index whose path ends as was
/// `written`.
///
/// # Errors
///
/// [`SimilarError::NoSuchPhoto`] and [`SimilarError::ManyPhotos`]; else when the index cannot be
/// read.
pub fn find(
    reader: &IndexReader,
    subject: &Subject,
    written: &Path,
) -> Result<Original, SimilarError> {
    if let Some(photo) = current(reader, subject)? {
        return Ok(Original::Indexed(Box::new(photo)));
    }
    if subject.path.is_file() {
        return Ok(Original::File(subject.path.clone()));
    }
    let name = || written.to_owned();
    if subject.seen.is_some() {
        return Err(SimilarError::NoSuchPhoto { path: name() });
    }
    match find_named(reader, written)? {
        Named::One(photo) => Ok(Original::Indexed(photo)),
        Named::None => Err(SimilarError::NoSuchPhoto { path: name() }),
        Named::Several { example } => Err(SimilarError::ManyPhotos { name: name(), example }),
    }
}

/// Photos that are looked at beyond those that are asked for, in case rounding put a copy, which
/// comes first, behind others.
const SPARE: usize = 32;

/// The `top` photos that pass `filter` and are most like `original`, best first, but not itself.
///
/// A score is the [`likeness`], at least `min_score` and cut off at 0; copies, photos of the same
/// content, score 1 and come first. Equals stand in the order of their numbers. A file needs the
/// model that made the index.
///
/// # Errors
///
/// When the model is not the one of the index, fails, or is needed and not there; or when the
/// index or the file cannot be read.
pub fn similar(
    reader: &IndexReader,
    vlm: Option<&mut dyn Vlm>,
    original: &Original,
    filter: &Filter,
    top: usize,
    min_score: f32,
) -> Result<Vec<Hit>, SimilarError> {
    let (hash, rows, itself) = match original {
        Original::Indexed(photo) => (photo.hash, reader.embedding(photo.doc)?, Some(photo.doc)),
        Original::File(path) => {
            let vlm = vlm.ok_or(FindError::NoModel)?;
            let Some(spec) = reader.bound_to() else { return Ok(Vec::new()) };
            check_model(spec, vlm.spec())?;
            let (hash, rows) = look_at(path, vlm)?;
            // What the index has of this path is what the file was before.
            (hash, rows, reader.find_path(path)?)
        }
    };
    let mut ranked = Vec::new();
    for (doc, cosine) in reader.by_rows(&rows, filter, top.saturating_add(1 + SPARE))? {
        if Some(doc) == itself {
            continue;
        }
        let photo = reader.photo(doc)?.ok_or(SearchError::UnknownDoc { doc })?;
        let is_copy = photo.hash == hash;
        let score = if is_copy { 1.0 } else { cosine.clamp(0.0, 1.0) };
        ranked.push((is_copy, doc, score, cosine));
    }
    ranked.sort_by_key(|(is_copy, ..)| !is_copy);
    let placed = |(at, (_, doc, score, cosine)): (usize, &(bool, _, f32, f32))| {
        let meaning = Some(Placed { rank: at + 1, score: *cosine, share: *score });
        (*doc, SourceScores { meaning, ..SourceScores::default() })
    };
    let scores = ranked.iter().enumerate().map(placed).collect();
    let ranked = ranked.iter().map(|(_, doc, score, _)| (*doc, *score));
    let options = SearchOptions { top, min_score, weights: Weights::default() };
    Ok(hits(reader, ranked, &scores, &[], options)?)
}

/// How alike two photos are: the mean over the rows of the cosine between row `i` of the one and
/// row `i` of the other, -1 to 1. A row of zeros counts as 0.
///
/// # Panics
///
/// When the two were not made by the same model: when their shapes differ.
pub fn likeness(a: &Matrix, b: &Matrix) -> f32 {
    assert_eq!((a.rows, a.dim), (b.rows, b.dim), "vectors of one model");
    let cosine = |row: usize| {
        let (a, b) = (a.row(row), b.row(row));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let norm = (dot(a, a) * dot(b, b)).sqrt();
        if norm.is_normal() { (dot(a, b) / norm).clamp(-1.0, 1.0) } else { 0.0 }
    };
    (0..a.rows).map(cosine).sum::<f32>() / a.rows.max(1) as f32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::Device;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageEncoder as _, RgbImage};
    use proptest::prelude::*;
    use tinyfind_index::ContentHash;

    use super::*;
    use crate::decode::{DecodedImage, resize_bicubic};
    use crate::model::TinyGptV;
    use crate::model::registry::Location;
    use crate::search::testing::{BLUE, GREEN, Picture, RED, index};
    use crate::train::scenes::{Scene, Split, Style};
    use crate::vlm::FakeVlm;

    fn subject(path: &str) -> Subject {
        Subject { seen: None, path: path.into() }
    }

    /// Photos like the one at `path`, as name and score.
    fn like(reader: &IndexReader, path: &str, top: usize, min_score: f32) -> Vec<(String, f32)> {
        let original = find(reader, &subject(path), Path::new(path)).unwrap();
        let filter = Filter::default();
        let hits = similar(reader, None, &original, &filter, top, min_score).unwrap();
        let name =
            |hit: Hit| (hit.path.file_stem().unwrap().to_str().unwrap().to_owned(), hit.score);
        hits.into_iter().map(name).collect()
    }

    fn pictures() -> Vec<Picture> {
        let rose = [225, 30, 60];
        [("a", RED), ("b", BLUE), ("c", rose), ("d", GREEN), ("e", RED)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color))
            .into()
    }

    #[test]
    fn photos_like_one_come_best_first_and_it_is_not_among_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut pictures = pictures();
        // `e` is a copy of `a`.
        let hash = ContentHash::of(b"a");
        (pictures[0].hash, pictures[4].hash) = (Some(hash), Some(hash));
        let reader = index(folder.path(), &pictures, false);
        let found = like(&reader, "/p/a.png", 9, 0.0);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["e", "c"], "{found:?}");
        assert_eq!((found[0].1, found.len()), (1.0, 4));
        assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "{found:?}");
        assert!(found.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
        assert_eq!(like(&reader, "/p/a.png", 1, 0.0), found[..1]);
        assert!(found[2].1 < 0.9, "{found:?}");
        assert_eq!(like(&reader, "/p/a.png", 9, 0.9), found[..2]);
    }

    #[test]
    fn a_photo_is_named_by_its_path_or_the_end_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut pictures = pictures();
        pictures.push(Picture::new("/q/a.png", BLUE));
        let reader = index(folder.path(), &pictures, false);
        let named =
            |written: &str| find(&reader, &subject("/nowhere/at/all.png"), Path::new(written));
        match named("d.png").unwrap() {
            Original::Indexed(photo) => assert_eq!(photo.path, Path::new("/p/d.png")),
            Original::File(path) => panic!("{}", path.display()),
        }
        assert_eq!(
            named("a.png").unwrap_err().to_string(),
            "several photos are called `a.png`: write more of the path, such as `p/a.png`"
        );
        assert_eq!(
            named("x.png").unwrap_err().to_string(),
            "there is no photo `x.png` here or in the index"
        );
    }

    #[test]
    fn a_file_is_looked_at_and_its_own_path_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.png");
        RgbImage::from_pixel(8, 8, image::Rgb(BLUE)).save(&path).unwrap();
        let mut pictures = pictures();
        // The index knows another picture under this path, which is not there any more.
        pictures.push(Picture::new(&path, BLUE));
        let reader = index(&folder.path().join("index"), &pictures, false);
        let subject = Subject { seen: None, path: path.clone() };
        let original = find(&reader, &subject, &path).unwrap();
        assert_eq!(original, Original::File(path));
        let filter = Filter::default();
        let without = similar(&reader, None, &original, &filter, 9, 0.0);
        assert!(matches!(without, Err(SimilarError::Find(FindError::NoModel))));
        let mut vlm = FakeVlm::default();
        let hits = similar(&reader, Some(&mut vlm), &original, &filter, 9, 0.0).unwrap();
        assert_eq!(hits.len(), 5);
        assert_eq!(hits[0].path, Path::new("/p/b.png"));
    }

    proptest! {
        #[test]
        fn likeness_is_symmetric_bounded_and_1_for_a_photo_and_itself(
            a in prop::collection::vec(-1.0_f32..1.0, 12),
            b in prop::collection::vec(-1.0_f32..1.0, 12),
        ) {
            let (a, b) = (Matrix::new(3, 4, a), Matrix::new(3, 4, b));
            prop_assert_eq!(likeness(&a, &b), likeness(&b, &a));
            prop_assert!(likeness(&a, &b).abs() <= 1.0);
            prop_assume!((0..3).all(|row| a.row(row).iter().any(|value| value.abs() > 0.01)));
            prop_assert!((likeness(&a, &a) - 1.0).abs() < 1e-5);
        }
    }

    /// The mean over the rows of `a` of the greatest cosine with a row of `b`, and the other way round.
    fn best_rows(a: &Matrix, b: &Matrix) -> f32 {
        let one_way = |a: &Matrix, b: &Matrix| {
            let best = |row: usize| {
                let cosine = |other: usize| -> f32 {
                    a.row(row).iter().zip(b.row(other)).map(|(a, b)| a * b).sum()
                };
                (0..b.rows).map(cosine).fold(-1.0, f32::max)
            };
            (0..a.rows).map(best).sum::<f32>() / a.rows as f32
        };
        f32::midpoint(one_way(a, b), one_way(b, a))
    }

    /// What a query with a photo in it compares: the mean of `a` with the nearest row of `b`.
    fn mean_with_nearest_row(a: &Matrix, b: &Matrix) -> f32 {
        let mut mean = vec![0.0; a.dim];
        for row in 0..a.rows {
            mean.iter_mut().zip(a.row(row)).for_each(|(mean, value)| *mean += value);
        }
        let norm = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
        let cosine =
            |row: usize| b.row(row).iter().zip(&mean).map(|(a, b)| a * b).sum::<f32>() / norm;
        (0..b.rows).map(cosine).fold(-1.0, f32::max)
    }

    fn as_jpeg(image: &DecodedImage, quality: u8) -> DecodedImage {
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
        let color = image::ExtendedColorType::Rgb8;
        encoder.write_image(&image.rgb, image.width, image.height, color).unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap().into_rgb8();
        DecodedImage { width: image.width, height: image.height, rgb: decoded.into_raw() }
    }

    /// The middle of a picture, so much of each side.
    fn cropped(image: &DecodedImage, share: f32) -> DecodedImage {
        let picture = RgbImage::from_raw(image.width, image.height, image.rgb.clone()).unwrap();
        let side = |length: u32| (length as f32 * share) as u32;
        let (width, height) = (side(image.width), side(image.height));
        let (x, y) = ((image.width - width) / 2, (image.height - height) / 2);
        let cut = image::imageops::crop_imm(&picture, x, y, width, height).to_image();
        DecodedImage { width, height, rgb: cut.into_raw() }
    }

    /// Pictures made of a scene, with what they are called.
    fn redrawn(scene: &Scene) -> Vec<(&'static str, DecodedImage)> {
        let drawn = scene.draw(240, 240);
        let other = Style::ALL.iter().position(|style| *style == scene.style).unwrap();
        let style = Style::ALL[(other + 1) % Style::ALL.len()];
        let mut restyled = scene.clone();
        restyled.style = style;
        let mut moved = scene.clone();
        for thing in &mut moved.things {
            (thing.x, thing.y) = (thing.x * 0.9 + 0.07, thing.y * 0.9 + 0.04);
        }
        vec![
            ("stored as a small JPEG", as_jpeg(&resize_bicubic(&drawn, 120, 120), 60)),
            ("cut to 85 %", cropped(&drawn, 0.85)),
            ("cut to 70 %", cropped(&drawn, 0.7)),
            ("with things moved", moved.draw(240, 240)),
            ("in another style", restyled.draw(240, 240)),
        ]
    }

    /// The model that is built in.
    fn nano() -> TinyGptV {
        TinyGptV::of(Location::BuiltIn.open().unwrap(), &Device::Cpu)
    }

    fn embed(vlm: &mut dyn Vlm, images: &[DecodedImage]) -> Vec<Matrix> {
        let batches = images.chunks(16);
        let features = batches.flat_map(|batch| vlm.embed_images(batch).unwrap());
        features.map(|features| features.embedding).collect()
    }

    /// For each change, in how many of the scenes the original comes first among all of them.
    fn first_places(
        scenes: u64,
        measure: fn(&Matrix, &Matrix) -> f32,
        originals: &[Matrix],
        changed: &BTreeMap<&'static str, Vec<Matrix>>,
    ) -> BTreeMap<&'static str, f32> {
        let is_first = |(number, rows): (usize, &Matrix)| {
            let own = measure(rows, &originals[number]);
            let rivals = originals.iter().enumerate().filter(|(other, _)| *other != number);
            rivals.map(|(_, other)| measure(rows, other)).all(|score| score < own)
        };
        let share = |pictures: &Vec<Matrix>| {
            pictures.iter().enumerate().filter(|it| is_first(*it)).count() as f32 / scenes as f32
        };
        changed.iter().map(|(name, pictures)| (*name, share(pictures))).collect()
    }

    #[test]
    fn pictures_made_of_a_scene_find_its_own_picture_first() {
        let scenes =
            std::env::var("TINYFIND_SCENES").ok().and_then(|it| it.parse().ok()).unwrap_or(64);
        let mut vlm = nano();
        let all: Vec<Scene> = (0..scenes).map(|it| Scene::generate(Split::Test, it)).collect();
        let drawn: Vec<DecodedImage> = all.iter().map(|scene| scene.draw(240, 240)).collect();
        let originals = embed(&mut vlm, &drawn);
        let mut changed: BTreeMap<&'static str, Vec<DecodedImage>> = BTreeMap::new();
        for (name, image) in all.iter().flat_map(redrawn) {
            changed.entry(name).or_default().push(image);
        }
        let changed: BTreeMap<&'static str, Vec<Matrix>> =
            changed.into_iter().map(|(name, images)| (name, embed(&mut vlm, &images))).collect();
        let found = first_places(scenes, likeness, &originals, &changed);
        for (name, measure) in [
            ("best row, symmetric", best_rows as fn(&Matrix, &Matrix) -> f32),
            ("mean with nearest row", mean_with_nearest_row),
        ] {
            println!("{name}: {:?}", first_places(scenes, measure, &originals, &changed));
        }
        println!("row by row: {found:?}");
        for (name, share) in [
            ("stored as a small JPEG", 0.95),
            ("cut to 85 %", 0.9),
            ("with things moved", 0.9),
            ("in another style", 0.5),
        ] {
            assert!(found[name] >= share, "{name}: {found:?}");
        }
    }
}
