//! Photos that are there twice: copies, and the same picture stored anew.
//!
//! *Exact* duplicates have the same bytes, which the index knows by their hash. *Near* duplicates
//! look the same: their [picture hashes](crate::decode::picture_hash) differ in few bits, and
//! their image-text vectors agree that they show the same ([`likeness`]). The hash finds
//! candidates in [bands](Bands), so the time does not grow with the square of the library; the
//! vectors refuse what only has the same light and dark in the same places. Of 240 drawn scenes the
//! built-in model gives pictures stored anew a likeness of 0.988 or more, and the same things in other
//! colours, a third of which have nearly the same hash, 0.967 or less.
//!
//! A group is a photo to keep and everything that is a duplicate *of that one*. Chains, where the
//! first is like the second and the second like the third, make no group by themselves: whoever
//! throws away all but the one to keep loses nothing that does not look like it.
//!
//! The one to keep has the most pixels, then the most bytes, then the shortest file name (a copy
//! has ` (1)` or ` copy` in it), then the first path. Nothing here opens a file for writing.
//!
//! A photo that was indexed before picture hashes were kept has none and is only compared by its
//! bytes; the report counts such photos, and reads their files anew where it is told to. So has a
//! picture without structure, a black frame, whose hash says nothing.

mod bands;
mod files;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use tinyfind_index::{
    ContentHash, DocId, Filter, IndexReader, Matrix, PhotoMetadata, PictureHash, SearchError,
    StoredPhoto,
};

pub use self::bands::{Bands, FARTHEST};
use self::files::Now;
use crate::decode::{decode_file, picture_hash};
use crate::similar::likeness;

/// What counts as a duplicate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuplicateOptions {
    /// Leaves near duplicates out.
    pub exact_only: bool,
    /// The most bits, of 64, in which picture hashes of near duplicates may differ, up to
    /// [`FARTHEST`].
    pub distance: u32,
    /// The least [`likeness`] of near duplicates, 0 to 1.
    pub likeness: f32,
    /// Reads the files of photos that have no picture hash.
    pub read_files: bool,
}

impl Default for DuplicateOptions {
    fn default() -> Self {
        Self { exact_only: false, distance: FARTHEST, likeness: 0.98, read_files: false }
    }
}

/// How a photo is a duplicate of another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It has the same bytes.
    Exact,
    /// It looks the same.
    Near {
        /// In how many bits, of 64, the picture hashes differ.
        distance: u32,
        /// The [`likeness`].
        likeness: f32,
    },
}

/// A photo of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Where it lies.
    pub path: PathBuf,
    /// Hash of its bytes.
    pub hash: ContentHash,
    /// Length of the file.
    pub bytes: u64,
    /// What its header says.
    pub metadata: PhotoMetadata,
    /// How it is a duplicate of the one to keep; [`Kind::Exact`] for that one itself.
    pub kind: Kind,
}

/// A photo and its duplicates.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The one that is suggested to keep.
    pub keep: Member,
    /// The others, one at least: its copies, then near duplicates, the nearest first.
    pub others: Vec<Member>,
}

impl Group {
    /// The photo to keep, then the others.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.keep).chain(&self.others)
    }

    /// Whether all have the same bytes.
    pub fn is_exact(&self) -> bool {
        self.others.iter().all(|member| member.kind == Kind::Exact)
    }

    /// Bytes of all but the one to keep.
    pub fn spare_bytes(&self) -> u64 {
        self.others.iter().map(|member| member.bytes).sum()
    }
}

/// What is there twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The groups, those with the most bytes to spare first.
    pub groups: Vec<Group>,
    /// Photos without a picture hash, which were compared by their bytes only.
    pub unhashed: u64,
    /// Photos that seemed to be there twice, and whose file is gone.
    pub gone: u64,
    /// Photos that seemed to be there twice, and whose file has another size than was indexed.
    pub changed: u64,
}

/// One content of the index.
struct Content {
    hash: ContentHash,
    /// Its photos, by number.
    docs: Vec<DocId>,
    picture: Option<PictureHash>,
    pixels: u64,
    bytes: u64,
}

/// Finds what is there twice among the photos that pass `filter`.
///
/// # Errors
///
/// When the index cannot be read. A file that cannot be looked at is counted.
pub fn duplicates(
    reader: &IndexReader,
    filter: &Filter,
    options: DuplicateOptions,
) -> Result<Report, SearchError> {
    let mut contents = contents(reader, filter)?;
    let mut report = Report::default();
    if !options.exact_only {
        if options.read_files {
            read_missing(reader, &mut contents)?;
        }
        let unhashed = contents.iter().filter(|it| it.picture.is_none());
        report.unhashed = unhashed.map(|it| it.docs.len() as u64).sum();
    }
    // What is to be kept rather comes first; so each group is made around the best of it.
    contents.sort_by_key(|it| (Reverse(it.pixels), Reverse(it.bytes), it.docs[0]));
    let is_compared =
        |it: &Content| !options.exact_only && it.picture.is_some_and(|hash| !hash.is_plain());
    let compared: Vec<usize> =
        (0..contents.len()).filter(|it| is_compared(&contents[*it])).collect();
    let hashes = compared.iter().filter_map(|it| contents[*it].picture).collect();
    let bands = Bands::new(hashes);
    let mut grouping = Grouping { reader, report, files: HashSet::new() };
    let mut is_taken = vec![false; contents.len()];
    for number in 0..contents.len() {
        if is_taken[number] {
            continue;
        }
        let content = &contents[number];
        let near = match content.picture {
            Some(hash) if is_compared(content) => bands.within(hash, options.distance),
            _ => Vec::new(),
        };
        let near: Vec<(usize, u32)> = near
            .into_iter()
            .map(|(place, distance)| (compared[place], distance))
            .filter(|(other, _)| *other != number && !is_taken[*other])
            .collect();
        if content.docs.len() < 2 && near.is_empty() {
            continue;
        }
        for taken in grouping.add(&contents, number, near, options.likeness)? {
            is_taken[taken] = true;
        }
    }
    let mut report = grouping.report;
    report.groups.sort_by(|a, b| {
        let order = b.spare_bytes().cmp(&a.spare_bytes());
        order.then_with(|| a.keep.path.cmp(&b.keep.path))
    });
    Ok(report)
}

/// The contents of the photos that pass `filter`.
fn contents(reader: &IndexReader, filter: &Filter) -> Result<Vec<Content>, SearchError> {
    let mut places: HashMap<ContentHash, usize> = HashMap::new();
    let mut contents: Vec<Content> = Vec::new();
    for photo in reader.photos(filter)? {
        let StoredPhoto { doc, hash, metadata, .. } = photo?;
        let place = *places.entry(hash).or_insert(contents.len());
        if place == contents.len() {
            let pixels = u64::from(metadata.width) * u64::from(metadata.height);
            let bytes = metadata.file_bytes.unwrap_or(0);
            contents.push(Content { hash, docs: Vec::new(), picture: None, pixels, bytes });
        }
        let content = &mut contents[place];
        content.docs.push(doc);
        content.picture = content.picture.or(metadata.picture_hash);
    }
    Ok(contents)
}

/// Side of the square that files are shrunk to before they are hashed, as in most indexes.
const SIDE: u32 = 224;

/// Gives a picture hash to contents without one whose file still has that content.
fn read_missing(reader: &IndexReader, contents: &mut [Content]) -> Result<(), SearchError> {
    let missing: Vec<&mut Content> =
        contents.iter_mut().filter(|content| content.picture.is_none()).collect();
    missing.into_par_iter().try_for_each(|content| {
        for doc in &content.docs {
            let Some(photo) = reader.photo(*doc)? else { continue };
            let decoded = decode_file(&photo.path, Some(SIDE)).ok();
            if let Some(decoded) = decoded.filter(|decoded| decoded.hash == content.hash) {
                content.picture = Some(picture_hash(&decoded.image));
                if let Some(bytes) = files::length(&photo.path) {
                    content.bytes = bytes;
                }
                break;
            }
        }
        Ok(())
    })
}

/// The most candidates whose vectors are compared with those of one photo to keep; beyond, the
/// hash is that of very many pictures and proves nothing.
const MOST_COMPARED: usize = 1000;

/// Groups in the making.
struct Grouping<'a> {
    reader: &'a IndexReader,
    report: Report,
    /// Files that are in a group already: one file may have several names.
    files: HashSet<(u64, u64)>,
}

impl Grouping<'_> {
    /// Makes the group around content `number` of it, its copies and those of `near`, given with
    /// the distances of their hashes, whose vectors agree. Returns which contents were used up.
    fn add(
        &mut self,
        contents: &[Content],
        number: usize,
        mut near: Vec<(usize, u32)>,
        least: f32,
    ) -> Result<Vec<usize>, SearchError> {
        let mut taken = vec![number];
        let mut members = self.members(&contents[number], Kind::Exact)?;
        if members.is_empty() {
            return Ok(taken);
        }
        members.sort_by_key(|member| {
            let name = member.path.file_name().map_or(0, std::ffi::OsStr::len);
            (name, member.path.clone())
        });
        near.sort_by_key(|(other, distance)| (*distance, *other));
        near.truncate(MOST_COMPARED);
        if !near.is_empty() {
            let own = self.reader.embedding(contents[number].docs[0])?;
            for (other, kind) in confirm(self.reader, &own, contents, near, least)? {
                members.extend(self.members(&contents[other], kind)?);
                taken.push(other);
            }
        }
        // The report may be handed to something that deletes: what it says is true of the bytes
        // that are there now. Two files at least would have to be read to find that out.
        if members.len() > 1 {
            let before = members.len();
            members = members.into_par_iter().filter(files::is_as_indexed).collect();
            self.report.changed += (before - members.len()) as u64;
        }
        if members.len() > 1 {
            let keep = members.remove(0);
            self.report.groups.push(Group { keep, others: members });
        }
        Ok(taken)
    }

    /// The photos of a content whose files are there and are not in a group yet.
    fn members(&mut self, content: &Content, kind: Kind) -> Result<Vec<Member>, SearchError> {
        let mut members = Vec::new();
        for doc in &content.docs {
            let photo = self.reader.photo(*doc)?.ok_or(SearchError::UnknownDoc { doc: *doc })?;
            match files::look(&photo) {
                Now::There { bytes, file } => {
                    if self.files.insert(file) {
                        let StoredPhoto { path, hash, metadata, .. } = photo;
                        members.push(Member { path, hash, bytes, metadata, kind });
                    }
                }
                Now::Link => {}
                Now::Changed => self.report.changed += 1,
                Now::Gone => self.report.gone += 1,
            }
        }
        Ok(members)
    }
}

/// Those of `near` whose vectors are like `own`.
fn confirm(
    reader: &IndexReader,
    own: &Matrix,
    contents: &[Content],
    near: Vec<(usize, u32)>,
    least: f32,
) -> Result<Vec<(usize, Kind)>, SearchError> {
    let compared: Result<Vec<_>, SearchError> = near
        .into_par_iter()
        .map(|(other, distance)| {
            let likeness = likeness(own, &reader.embedding(contents[other].docs[0])?);
            Ok((other, Kind::Near { distance, likeness }, likeness >= least))
        })
        .collect();
    let is_like = |(other, kind, is_like)| if is_like { Some((other, kind)) } else { None };
    Ok(compared?.into_iter().filter_map(is_like).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use candle_core::Device;
    use image::RgbImage;
    use image::codecs::jpeg::JpegEncoder;
    use tinyfind_index::{Clause, FileStamp, IndexWriter, NewPhoto};

    use super::*;
    use crate::decode::{DecodedImage, resize_bicubic};
    use crate::indexer::{self, IndexRequest};
    use crate::model::TinyGptV;
    use crate::model::registry::Location;
    use crate::train::scenes::{Colour, Scene, Split};
    use crate::vlm::{FakeVlm, Vlm};

    /// A folder `photos` and an index beside it.
    struct Album {
        folder: tempfile::TempDir,
    }

    impl Album {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("photos")).unwrap();
            Self { folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join("photos").join(name)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        /// Indexes the photos without captions.
        fn index(&self, vlm: &mut dyn Vlm) -> IndexReader {
            let index = self.folder.path().join("index");
            let mut writer = IndexWriter::open(&index, vlm.spec()).unwrap();
            let request = IndexRequest {
                no_caption: true,
                follow_links: true,
                ..IndexRequest::new([self.folder.path().join("photos")])
            };
            let cancel = AtomicBool::new(false);
            indexer::run(&mut writer, vlm, &request, &mut (), &cancel).unwrap();
            drop(writer);
            IndexReader::open(&index).unwrap()
        }

        /// Names of a group's photos, the one to keep first.
        fn names(&self, group: &Group) -> Vec<String> {
            let photos = self.path("");
            let name = |it: &Member| it.path.strip_prefix(&photos).unwrap().display().to_string();
            group.members().map(name).collect()
        }

        fn groups(&self, report: &Report) -> Vec<Vec<String>> {
            report.groups.iter().map(|group| self.names(group)).collect()
        }
    }

    fn nano() -> TinyGptV {
        TinyGptV::of(Location::BuiltIn.open().unwrap(), &Device::Cpu)
    }

    fn png(image: &DecodedImage) -> Vec<u8> {
        let picture = RgbImage::from_raw(image.width, image.height, image.rgb.clone()).unwrap();
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn jpeg(image: &DecodedImage, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let color = image::ExtendedColorType::Rgb8;
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode(&image.rgb, image.width, image.height, color)
            .unwrap();
        bytes
    }

    fn brighter(image: &DecodedImage) -> DecodedImage {
        let rgb =
            image.rgb.iter().map(|value| (f32::from(*value) * 1.1).min(255.0) as u8).collect();
        DecodedImage { rgb, ..*image }
    }

    fn plain(colour: [u8; 3], side: u32) -> DecodedImage {
        DecodedImage { width: side, height: side, rgb: colour.repeat((side * side) as usize) }
    }

    fn report(reader: &IndexReader) -> Report {
        duplicates(reader, &Filter::default(), DuplicateOptions::default()).unwrap()
    }

    #[test]
    fn pictures_stored_anew_are_grouped_and_others_of_the_same_layout_are_not() {
        let album = Album::new();
        let scenes =
            std::env::var("TINYFIND_SCENES").ok().and_then(|it| it.parse().ok()).unwrap_or(48);
        let (mut wanted, mut recoloured) = (Vec::new(), Vec::new());
        for number in 0..scenes {
            let scene = Scene::generate(Split::Test, number);
            let drawn = scene.draw(240, 240);
            let original = format!("{number:04}.png");
            album.write(&original, &png(&drawn));
            match number % 4 {
                0 => {
                    let name = format!("{number:04} small.jpg");
                    album.write(&name, &jpeg(&resize_bicubic(&drawn, 160, 160), 80));
                    wanted.push(vec![original, name]);
                }
                1 => {
                    let name = format!("{number:04} copy.png");
                    album.write(&name, &png(&drawn));
                    wanted.push(vec![original, name]);
                }
                2 => {
                    let name = format!("{number:04} brighter.jpg");
                    album.write(&name, &jpeg(&resize_bicubic(&brighter(&drawn), 230, 230), 90));
                    wanted.push(vec![original, name]);
                }
                _ if scene.things.is_empty() => {}
                _ => {
                    // The same things in the same places, in other colours.
                    let mut other = scene.clone();
                    for thing in &mut other.things {
                        let at = thing.colour as usize;
                        thing.colour = Colour::ALL[(at + 4) % Colour::ALL.len()];
                    }
                    let name = format!("{number:04} other colours.png");
                    album.write(&name, &png(&other.draw(240, 240)));
                    recoloured.push([original, name]);
                }
            }
        }
        for (name, colour, side) in [("a", [0; 3], 200), ("b", [0; 3], 100), ("c", [2; 3], 90)] {
            album.write(&format!("black {name}.png"), &png(&plain(colour, side)));
        }
        let reader = album.index(&mut nano());
        let report = report(&reader);
        let mut least_like = 1.0_f32;
        for group in &report.groups {
            if let Kind::Near { likeness, .. } = group.others[0].kind {
                least_like = least_like.min(likeness);
            }
        }
        // Pairs that their hashes alone would make one, and how alike their vectors are.
        let mut same_hash = Vec::new();
        for pair in &recoloured {
            let docs =
                pair.each_ref().map(|it| reader.find_path(&album.path(it)).unwrap().unwrap());
            let hashes =
                docs.map(|doc| reader.photo(doc).unwrap().unwrap().metadata.picture_hash.unwrap());
            let rows = docs.map(|doc| reader.embedding(doc).unwrap());
            if hashes[0].distance(hashes[1]) <= FARTHEST {
                same_hash.push(likeness(&rows[0], &rows[1]));
            }
        }
        same_hash.sort_by(f32::total_cmp);
        let mut found = album.groups(&report);
        found.sort();
        let right = found.iter().filter(|group| wanted.contains(group)).count();
        println!(
            "{right} of {} groups found, {} wrong, likeness {least_like} at least; {} pairs in other \
             colours, of which {} within {FARTHEST} bits, likeness {same_hash:?}",
            wanted.len(),
            found.len() - right,
            recoloured.len(),
            same_hash.len()
        );
        let wrong: Vec<&Vec<String>> = found.iter().filter(|it| !wanted.contains(it)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(right as f32 >= 0.95 * wanted.len() as f32, "{found:?}");
        assert_eq!((report.unhashed, report.gone, report.changed), (0, 0, 0));
        for group in &report.groups {
            assert_eq!(group.is_exact(), group.others[0].hash == group.keep.hash);
            assert!(group.keep.metadata.width >= group.others[0].metadata.width);
        }
    }

    /// Bytes of a picture with structure.
    fn picture(number: u64, side: u32) -> Vec<u8> {
        png(&Scene::generate(Split::Test, number).draw(side, side))
    }

    #[test]
    fn copies_are_kept_by_the_shortest_name_and_nothing_else_is_grouped_with_exact_only() {
        let album = Album::new();
        for name in ["x (1).png", "x.png", "deep/folder/x.png"] {
            album.write(name, &picture(1, 64));
        }
        album.write("small.png", &picture(1, 32));
        album.write("y.png", &picture(2, 64));
        let reader = album.index(&mut FakeVlm::default());
        let options = DuplicateOptions { exact_only: true, ..DuplicateOptions::default() };
        let report = duplicates(&reader, &Filter::default(), options).unwrap();
        let copies = ["deep/folder/x.png", "x.png", "x (1).png"].map(str::to_owned);
        assert_eq!(album.groups(&report), [copies.to_vec()]);
        assert!(report.groups[0].is_exact());
        assert_eq!(report.groups[0].spare_bytes(), 2 * picture(1, 64).len() as u64);

        let near = self::report(&reader);
        assert_eq!(album.groups(&near), [[&copies[..], &["small.png".to_owned()]].concat()]);
        assert!(!near.groups[0].is_exact());

        // Only photos that pass the filter take part.
        let deep = Clause::Path("deep".to_owned());
        let filter = Filter { require: Vec::new(), exclude: vec![deep] };
        let report = duplicates(&reader, &filter, options).unwrap();
        assert_eq!(album.groups(&report), [copies[1..].to_vec()]);
    }

    #[test]
    fn a_photo_whose_copies_are_gone_changed_or_links_is_not_told_to_be_there_twice() {
        let album = Album::new();
        for (number, name) in (0..).zip(["gone", "changed", "link", "hard"]) {
            album.write(&format!("{name}.png"), &picture(number, 48));
        }
        album.write("gone copy.png", &picture(0, 48));
        album.write("changed copy.png", &picture(1, 48));
        album.write("edited.png", &picture(5, 48));
        album.write("edited copy.png", &picture(5, 48));
        std::os::unix::fs::symlink(album.path("link.png"), album.path("link 2.png")).unwrap();
        fs::hard_link(album.path("hard.png"), album.path("hard 2.png")).unwrap();
        let reader = album.index(&mut FakeVlm::default());
        fs::remove_file(album.path("gone.png")).unwrap();
        album.write("changed.png", &picture(7, 48));
        // As long as before.
        let mut bytes = fs::read(album.path("edited.png")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        album.write("edited.png", &bytes);
        let report = report(&reader);
        assert_eq!(album.groups(&report), [[""; 0]; 0]);
        assert_eq!((report.gone, report.changed), (1, 2));
    }

    #[test]
    fn every_photo_of_a_group_is_like_the_one_to_keep() {
        // A chain: each hash is 4 bits from the next, so that the ends are 8 bits apart. The middle
        // has the most pixels in one case and the fewest in the other.
        for (middle, expected) in [(9, vec![vec![1, 0, 2]]), (1, vec![vec![0, 1]])] {
            let album = Album::new();
            let index = album.folder.path().join("index");
            let mut vlm = FakeVlm::default();
            let mut writer = IndexWriter::open(&index, vlm.spec()).unwrap();
            let hashes = [0xff00_u64, 0xff0f, 0xffff].map(|it| it | 0xaaaa << 48);
            for (number, hash) in (0_u8..).zip(hashes) {
                let name = format!("{number}.png");
                album.write(&name, &[number; 10]);
                let metadata = PhotoMetadata {
                    width: [5, middle, 4][usize::from(number)],
                    height: 1,
                    picture_hash: Some(PictureHash(hash)),
                    ..PhotoMetadata::default()
                };
                let photo = NewPhoto {
                    path: album.path(&name),
                    stamp: FileStamp { size: 10, mtime_ns: 0 },
                    hash: ContentHash::of(&[number; 10]),
                    metadata,
                };
                let features = vlm.embed_images(&[plain([200, 0, 0], 4)]).unwrap().remove(0);
                writer.add(photo, features).unwrap();
            }
            writer.commit().unwrap();
            drop(writer);
            let report = report(&IndexReader::open(&index).unwrap());
            let expected: Vec<Vec<String>> = expected
                .into_iter()
                .map(|group| group.into_iter().map(|number| format!("{number}.png")).collect())
                .collect();
            assert_eq!(album.groups(&report), expected, "middle {middle}");
        }
    }

    #[test]
    fn photos_of_an_earlier_version_are_counted_and_read_where_wanted() {
        let album = Album::new();
        album.write("a.png", &picture(3, 90));
        let drawn = Scene::generate(Split::Test, 3).draw(90, 90);
        album.write("b.jpg", &jpeg(&resize_bicubic(&drawn, 60, 60), 85));
        let index = album.folder.path().join("index");
        let mut vlm = FakeVlm::default();
        let mut writer = IndexWriter::open(&index, vlm.spec()).unwrap();
        for name in ["a.png", "b.jpg"] {
            let decoded = decode_file(&album.path(name), Some(vlm.input_size())).unwrap();
            let features = vlm.embed_images(&[decoded.image]).unwrap().remove(0);
            let metadata = PhotoMetadata { file_bytes: None, ..decoded.metadata };
            let (path, stamp, hash) = (album.path(name), decoded.stamp, decoded.hash);
            writer.add(NewPhoto { path, stamp, hash, metadata }, features).unwrap();
        }
        writer.commit().unwrap();
        drop(writer);
        let reader = IndexReader::open(&index).unwrap();
        let before = report(&reader);
        assert_eq!((before.groups.len(), before.unhashed), (0, 2));
        let options = DuplicateOptions { read_files: true, ..DuplicateOptions::default() };
        let read = duplicates(&reader, &Filter::default(), options).unwrap();
        assert_eq!(
            (album.groups(&read), read.unhashed),
            (vec![vec!["a.png".into(), "b.jpg".into()]], 0)
        );
        // A file that was changed since tells nothing of the photo that was indexed.
        fs::write(Path::new(&album.path("b.jpg")), picture(5, 20)).unwrap();
        let read = duplicates(&reader, &Filter::default(), options).unwrap();
        assert_eq!((read.groups.len(), read.unhashed), (0, 1));
    }

    #[test]
    fn a_copy_that_was_never_decoded_has_the_picture_hash_of_its_original() {
        let album = Album::new();
        album.write("a.png", &picture(3, 64));
        album.index(&mut FakeVlm::default());
        album.write("b.png", &picture(3, 64));
        let mut vlm = FakeVlm::default();
        let reader = album.index(&mut vlm);
        assert_eq!(vlm.calls().embedded, 0);
        let hashes: Vec<Option<PictureHash>> = reader
            .photos(&Filter::default())
            .unwrap()
            .map(|photo| photo.unwrap().metadata.picture_hash)
            .collect();
        assert!(hashes[0].is_some() && hashes.len() == 2 && hashes[0] == hashes[1], "{hashes:?}");
    }
}
