//! Folders to files: which photos there are, without opening any.
//!
//! Every file has one name, however a person came to it: folders are named by their real
//! path, links resolved. With links followed, the folder a link leads to is one more root,
//! walked once under its own name; so loops end by themselves and nothing is found twice.
//!
//! A crawl also knows what it did *not* see. [`Crawled::vouches_for`] tells whether a missing
//! photo is really gone, or only out of sight: in a folder that could not be read, or on a
//! disk that is not mounted.

mod exclude;

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use tinyfind_index::FileStamp;
use walkdir::{DirEntry, WalkDir};

use crate::decode::{self, Unreadable};

pub use exclude::{Pattern, PatternError};

/// A file that may be a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Its path, absolute, with the links of its folders resolved.
    pub path: PathBuf,
    /// Its size and modification time.
    pub stamp: FileStamp,
    /// The format that its extension promises, where that is one without a decoder.
    pub unreadable: Option<Unreadable>,
}

/// Something that the crawl could not look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: PathBuf,
    /// Why, in one line for a person.
    pub reason: String,
}

/// What to leave out and what to follow.
#[derive(Debug, Clone, Default)]
pub struct CrawlOptions {
    /// Files and folders that match one of these are left out.
    pub exclude: Vec<Pattern>,
    /// Whether links to files and folders are followed. Roots that are links always are.
    pub follow_links: bool,
}

/// What a crawl found.
#[derive(Debug, Default)]
pub struct Crawled {
    /// Files with a photo's extension, and those that were named as roots, each once, in the
    /// byte order of their paths.
    pub files: Vec<ImageFile>,
    /// Number of videos, which are left out.
    pub videos: u64,
    /// What could not be looked at, in the order it was met.
    pub problems: Vec<Problem>,
    /// Roots that were walked, resolved.
    roots: Vec<PathBuf>,
    /// Roots that are not there, or have not a single entry, and places below roots where a
    /// disk should be mounted and is not.
    absent_roots: Vec<PathBuf>,
}

impl Crawled {
    /// Whether a file would have been found at `path` if there were one.
    ///
    /// Not so outside the roots, under a root that is [absent](Self::absent_roots), and where
    /// something could not be read.
    pub fn vouches_for(&self, path: &Path) -> bool {
        let under = |folder: &PathBuf| path.starts_with(folder);
        self.roots.iter().any(under)
            && !self.absent_roots.iter().any(under)
            && !self.problems.iter().any(|problem| path.starts_with(&problem.path))
    }

    /// Roots that are missing, or folders without a single entry: the place of a disk that is
    /// not mounted looks like this. And folders below the roots where the system's table of
    /// disks has one that is not mounted.
    pub fn absent_roots(&self) -> &[PathBuf] {
        &self.absent_roots
    }
}

/// Walks over `roots`, which are folders or files, and collects what may be a photo.
///
/// Hidden files and folders are left out, and so are those that programs and systems keep for
/// themselves, unless they are named as roots. A file named as a root is taken whatever its
/// extension. Whatever cannot be read is an entry of [`Crawled::problems`].
///
/// `keep_going` is told the number of files found so far, from time to time; where it says
/// no, the crawl ends and gives `None`.
pub fn crawl(
    roots: &[PathBuf],
    options: &CrawlOptions,
    keep_going: &mut dyn FnMut(usize) -> bool,
) -> Option<Crawled> {
    let mut walk = Walk::new(options);
    for root in roots {
        walk.add_root(root);
    }
    let table = fs::read(MOUNT_TABLE).unwrap_or_default();
    let unmounted = unmounted(&table, &walk.crawled.roots);
    walk.crawled.absent_roots.extend(unmounted);
    while let Some(root) = walk.queue.pop_front() {
        let mut entries = 0_usize;
        let walker = WalkDir::new(&root).sort_by_file_name().into_iter();
        for entry in walker.filter_entry(|entry| !is_left_out(entry, options)) {
            entries += 1;
            if entries % 256 == 1 && !keep_going(walk.crawled.files.len()) {
                return None;
            }
            match entry {
                Ok(entry) => walk.visit(&entry),
                Err(error) => walk.report(&error, &root),
            }
        }
    }
    Some(walk.finish())
}

/// A crawl under way.
struct Walk<'a> {
    options: &'a CrawlOptions,
    queue: VecDeque<PathBuf>,
    videos: Vec<PathBuf>,
    crawled: Crawled,
}

impl<'a> Walk<'a> {
    fn new(options: &'a CrawlOptions) -> Self {
        Self { options, queue: VecDeque::new(), videos: Vec::new(), crawled: Crawled::default() }
    }

    /// Takes a file that a person named, or queues a folder.
    fn add_root(&mut self, root: &Path) {
        match resolve(root) {
            Ok((path, metadata)) if metadata.is_dir() => {
                // Where it cannot be read, the walk meets the same error and reports it.
                if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()) {
                    self.crawled.absent_roots.push(path.clone());
                }
                self.add_folder(path);
            }
            Ok((path, metadata)) if metadata.is_file() => {
                let unreadable = decode::by_extension(&path).and_then(Result::err);
                let stamp = decode::stamp(&metadata);
                self.take(ImageFile { path: path.clone(), stamp, unreadable });
                self.crawled.roots.push(path);
            }
            Ok((path, _)) => self.problem(path, "is not a file or folder".into()),
            Err(error) => {
                let path = named(root).unwrap_or_else(|_| root.into());
                if error.kind() == io::ErrorKind::NotFound {
                    self.crawled.absent_roots.push(path.clone());
                }
                self.problem(path, format!("cannot be read: {error}"));
            }
        }
    }

    /// Queues a folder by its real path, once.
    fn add_folder(&mut self, path: PathBuf) {
        if !self.crawled.roots.contains(&path) {
            self.crawled.roots.push(path.clone());
            self.queue.push_back(path);
        }
    }

    fn visit(&mut self, entry: &DirEntry) {
        if entry.file_type().is_symlink() {
            if self.options.follow_links {
                self.follow(entry.path());
            }
        } else if entry.file_type().is_file()
            && let Some(promised) = decode::by_extension(entry.path())
        {
            match entry.metadata() {
                Ok(metadata) => self.take(ImageFile {
                    path: entry.path().into(),
                    stamp: decode::stamp(&metadata),
                    unreadable: promised.err(),
                }),
                Err(error) => self.report(&error, entry.path()),
            }
        }
    }

    /// Goes where a link leads: to a file of its own name, or to one more root.
    fn follow(&mut self, link: &Path) {
        match link.canonicalize().and_then(|path| Ok((fs::metadata(&path)?, path))) {
            Ok((metadata, target)) if metadata.is_dir() => {
                if link.starts_with(&target) {
                    let reason = format!("is a loop of links back to `{}`", target.display());
                    self.problem(link.into(), reason);
                } else {
                    self.add_folder(target);
                }
            }
            Ok((metadata, target)) if metadata.is_file() => {
                if let Some(promised) = decode::by_extension(&target) {
                    let stamp = decode::stamp(&metadata);
                    self.take(ImageFile { path: target, stamp, unreadable: promised.err() });
                }
            }
            Ok(_) => {}
            Err(error) => self.problem(link.into(), format!("cannot be followed: {error}")),
        }
    }

    fn take(&mut self, file: ImageFile) {
        if file.unreadable.is_some_and(|kind| !kind.is_photo()) {
            self.videos.push(file.path);
        } else {
            self.crawled.files.push(file);
        }
    }

    fn report(&mut self, error: &walkdir::Error, near: &Path) {
        let path = error.path().unwrap_or(near);
        let gone = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
        // A file that was deleted between listing its folder and looking at it.
        if gone && path != near && fs::symlink_metadata(path).is_err() {
            return;
        }
        let reason = match error.io_error() {
            // The path stands beside it already.
            Some(error) => format!("cannot be read: {error}"),
            None => error.to_string(),
        };
        self.problem(path.into(), reason);
    }

    fn problem(&mut self, path: PathBuf, reason: String) {
        self.crawled.problems.push(Problem { path, reason });
    }

    fn finish(mut self) -> Crawled {
        // Roots may overlap.
        self.crawled.files.sort_by(|a, b| {
            a.path.as_os_str().as_encoded_bytes().cmp(b.path.as_os_str().as_encoded_bytes())
        });
        self.crawled.files.dedup_by(|a, b| a.path == b.path);
        self.videos.sort();
        self.videos.dedup();
        self.crawled.videos = self.videos.len() as u64;
        self.crawled
    }
}

/// The one name of `path`, and what is there.
fn resolve(path: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
    let metadata = fs::metadata(path)?;
    let real = if metadata.is_dir() { path.canonicalize()? } else { named(path)? };
    Ok((real, metadata))
}

/// The name of a file: its own in the real path of its folder, since a link to a photo that a
/// person names is a photo of its own.
fn named(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// Where Unix systems name the disks that belong somewhere, mounted or not.
const MOUNT_TABLE: &str = "/etc/fstab";

/// Folders at or below `roots` that have no disk although `table` has one for them. Source of
/// the form: fstab(5).
#[cfg(unix)]
fn unmounted(table: &[u8], roots: &[PathBuf]) -> Vec<PathBuf> {
    use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
    let places = lines.filter_map(|line| {
        let fields = line.split(|byte| matches!(byte, b' ' | b'\t'));
        fields.filter(|field| !field.is_empty()).nth(1)
    });
    let mut found = Vec::new();
    for place in places {
        let path = PathBuf::from(OsStr::from_bytes(&unescape(place)));
        let below = roots.iter().any(|root| path.starts_with(root));
        // A folder with a disk of its own lies on another device than the folder above it.
        if below
            && let (Ok(own), Some(Ok(above))) = (device(&path), path.parent().map(device))
            && own == above
        {
            found.push(path);
        }
    }
    found
}

#[cfg(not(unix))]
fn unmounted(_: &[u8], _: &[PathBuf]) -> Vec<PathBuf> {
    Vec::new()
}

/// A field of the table, in which blanks are written as three octal digits.
#[cfg(unix)]
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) =
            (first, tail)
        {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    bytes
}

/// Folders that systems and programs keep for themselves: caches, thumbnails, bins.
const SYSTEM_FOLDERS: [&str; 12] = [
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "node_modules",
    "__macosx",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "#recycle.bin",
    "found.000",
];

/// Folders of an Apple photo library that hold smaller copies of its photos, not the photos.
const LIBRARY_FOLDERS: [&str; 7] =
    ["resources", "database", "internal", "private", "scopes", "thumbnails", "previews"];

/// Whether the crawl passes an entry by: hidden, a system's own, or excluded.
fn is_left_out(entry: &DirEntry, options: &CrawlOptions) -> bool {
    if entry.depth() == 0 {
        return false;
    }
    let name = entry.file_name();
    if name.as_encoded_bytes().starts_with(b".") {
        return true;
    }
    if entry.file_type().is_dir() && is_system_folder(name, entry.path()) {
        return true;
    }
    options.exclude.iter().any(|pattern| pattern.matches(entry.path()))
}

fn is_system_folder(name: &OsStr, path: &Path) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    let ends_with = |name: &str, endings: &[&str]| endings.iter().any(|end| name.ends_with(end));
    let library = path.parent().and_then(Path::file_name).is_some_and(|parent| {
        let parent = parent.to_string_lossy().to_lowercase();
        ends_with(&parent, &[".photoslibrary", ".aplibrary", ".migratedphotolibrary"])
    });
    SYSTEM_FOLDERS.contains(&name.as_str())
        || ends_with(&name, &[".lrdata", ".photolibrarycache"])
        || library && LIBRARY_FOLDERS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files at these paths, by its real name.
    fn tree(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        (folder, root)
    }

    fn crawl_all(roots: &[PathBuf], options: &CrawlOptions) -> Crawled {
        crawl(roots, options, &mut |_| true).unwrap()
    }

    fn names(crawled: &Crawled, root: &Path) -> Vec<String> {
        let name = |file: &ImageFile| file.path.strip_prefix(root).unwrap().display().to_string();
        crawled.files.iter().map(name).collect()
    }

    #[test]
    fn photos_are_found_by_extension_in_the_order_of_their_paths() {
        let (_folder, root) =
            tree(&["b/x.JPG", "b.png", "a.jpeg", "notes.txt", "c.heic", "d.nef", "film.mov"]);
        let crawled = crawl_all(std::slice::from_ref(&root), &CrawlOptions::default());
        assert_eq!(names(&crawled, &root), ["a.jpeg", "b.png", "b/x.JPG", "c.heic", "d.nef"]);
        assert_eq!(crawled.files[0].unreadable, None);
        assert_eq!(crawled.files[3].unreadable, Some(Unreadable::Heic));
        assert_eq!(crawled.files[4].unreadable, Some(Unreadable::Raw));
        assert_eq!(crawled.videos, 1);
        assert_eq!(crawled.problems, []);
    }

    #[test]
    fn hidden_system_and_excluded_folders_are_passed_by() {
        let (_folder, root) = tree(&[
            "a.jpg",
            ".hidden.jpg",
            ".git/a.jpg",
            "@eaDir/a.jpg",
            "node_modules/x/a.jpg",
            "$RECYCLE.BIN/a.jpg",
            "P.photoslibrary/resources/derivatives/a.jpg",
            "P.photoslibrary/originals/1/a.jpg",
            "resources/a.jpg",
            "raw/a.jpg",
            "b.gif",
        ]);
        let exclude = ["raw", "*.gif"].map(|pattern| Pattern::new(pattern).unwrap()).to_vec();
        let options = CrawlOptions { exclude, ..CrawlOptions::default() };
        let crawled = crawl_all(std::slice::from_ref(&root), &options);
        let expected = ["P.photoslibrary/originals/1/a.jpg", "a.jpg", "resources/a.jpg"];
        assert_eq!(names(&crawled, &root), expected);
        // Named as a root, a hidden folder is meant.
        let crawled = crawl_all(&[root.join(".git")], &options);
        assert_eq!(names(&crawled, &root), [".git/a.jpg"]);
    }

    #[test]
    fn overlapping_roots_and_named_files_are_found_once() {
        let (_folder, root) = tree(&["a/x.jpg", "a/y.jpg", "a/photo", "b.jpg"]);
        let roots = [root.join("a/photo"), root.clone(), root.join("a"), root.join("a/x.jpg")];
        let crawled = crawl_all(&roots, &CrawlOptions::default());
        assert_eq!(names(&crawled, &root), ["a/photo", "a/x.jpg", "a/y.jpg", "b.jpg"]);
    }

    #[test]
    #[cfg(unix)]
    fn links_are_followed_only_on_request_and_loops_end() {
        use std::os::unix::fs::symlink;
        let (_folder, root) = tree(&["a/b/x.jpg", "outside/y.jpg", "outside/z.jpg"]);
        symlink(root.join("a"), root.join("a/b/loop_up")).unwrap();
        symlink(root.join("a/self"), root.join("a/self")).unwrap();
        symlink(root.join("outside"), root.join("a/out")).unwrap();
        symlink(root.join("outside/y.jpg"), root.join("a/y_again.jpg")).unwrap();
        symlink(root.join("nowhere"), root.join("a/dangling.jpg")).unwrap();
        let roots = [root.join("a")];

        let crawled = crawl_all(&roots, &CrawlOptions::default());
        assert_eq!(names(&crawled, &root), ["a/b/x.jpg"]);
        assert_eq!(crawled.problems, []);

        let options = CrawlOptions { follow_links: true, ..CrawlOptions::default() };
        let crawled = crawl_all(&roots, &options);
        assert_eq!(names(&crawled, &root), ["a/b/x.jpg", "outside/y.jpg", "outside/z.jpg"]);
        let problems: Vec<&Path> = crawled.problems.iter().map(|p| p.path.as_path()).collect();
        let expected = ["a/b/loop_up", "a/dangling.jpg", "a/self"].map(|name| root.join(name));
        assert_eq!(problems, expected);
        assert!(crawled.vouches_for(&root.join("outside/gone.jpg")));
    }

    #[test]
    #[cfg(unix)]
    fn a_root_that_is_a_link_has_the_name_of_the_folder_it_leads_to() {
        let (_folder, root) = tree(&["real/x.jpg"]);
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let crawled = crawl_all(&[root.join("link")], &CrawlOptions::default());
        assert_eq!(names(&crawled, &root), ["real/x.jpg"]);
    }

    #[test]
    fn a_missing_root_is_a_problem_and_vouches_for_nothing() {
        let (_folder, root) = tree(&["a/x.jpg"]);
        fs::create_dir(root.join("empty")).unwrap();
        let roots = [root.join("missing"), root.join("a"), root.join("empty")];
        let crawled = crawl_all(&roots, &CrawlOptions::default());
        assert_eq!(crawled.problems.len(), 1);
        assert_eq!(crawled.problems[0].path, root.join("missing"));
        assert!(!crawled.vouches_for(&root.join("missing/x.jpg")));
        assert!(!crawled.vouches_for(&root.join("empty/x.jpg")));
        assert!(!crawled.vouches_for(&root.join("elsewhere.jpg")));
        assert!(crawled.vouches_for(&root.join("a/gone.jpg")));
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_that_cannot_be_read_costs_itself_only() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, root) = tree(&["a/x.jpg", "b/y.jpg"]);
        let permit = |mode| {
            fs::set_permissions(root.join("a"), fs::Permissions::from_mode(mode)).unwrap();
        };
        permit(0o000);
        // An administrator may read everything.
        let readable = fs::read_dir(root.join("a")).is_ok();
        let crawled = crawl_all(std::slice::from_ref(&root), &CrawlOptions::default());
        permit(0o755);
        assert_eq!(crawled.problems.len(), usize::from(!readable));
        assert_eq!(crawled.vouches_for(&root.join("a/x.jpg")), readable);
        assert!(crawled.vouches_for(&root.join("b/gone.jpg")));

        let problem = Problem { path: root.join("b"), reason: "cannot be read".into() };
        let crawled = Crawled { problems: vec![problem], ..crawled };
        assert!(!crawled.vouches_for(&root.join("b/y.jpg")));
    }

    #[test]
    #[cfg(unix)]
    fn a_place_in_the_table_of_disks_without_a_disk_is_absent() {
        let (_folder, root) = tree(&["nas one/x.jpg", "other/y.jpg"]);
        let name = root.display().to_string();
        let table = format!(
            "# disks\nserver:/nas\t{name}/nas\\040one  nfs noauto 0 0\n\
             server:/no {name}/missing nfs\n/dev/sda1 / ext4\nproc /proc proc\nbad\n"
        );
        let found = unmounted(table.as_bytes(), std::slice::from_ref(&root));
        assert_eq!(found, [root.join("nas one")]);
        assert!(unmounted(table.as_bytes(), &[root.join("other")]).is_empty());
        // What is mounted is not absent.
        assert!(unmounted(b"proc /proc proc", &["/proc".into()]).is_empty());
    }

    #[test]
    fn a_crawl_ends_when_it_is_told_to() {
        let (_folder, root) = tree(&["a.jpg"]);
        assert!(crawl(&[root], &CrawlOptions::default(), &mut |_| false).is_none());
    }
}
