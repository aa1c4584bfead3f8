//! What a disk holds at each step: after a kill, and after a loss of power.
//!
//! A kill leaves all that was written. A loss of power leaves what was flushed, and of the rest
//! any part: a name without its file, a file without its name, some blocks of a file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Step;
use super::observer::Observer;

/// What a disk writes whole or not at all.
const BLOCK: usize = 512;

/// Bytes of names of steps that a state keeps.
const LONGEST_PLACE: usize = 4000;

/// What a file system gives a file.
const PAGE: usize = 4096;

/// Files by path below the root; nothing for a folder.
pub(super) type Tree = BTreeMap<PathBuf, Option<Arc<[u8]>>>;

/// A state in which a writer may leave its folder.
pub(super) struct State {
    pub(super) tree: Tree,
    /// The last commit that was acknowledged; none before the index was.
    pub(super) acknowledged: Option<u64>,
    /// Where the writer was, for messages; several places, with `; ` between them, where it left
    /// the same state at each.
    pub(super) at: String,
}

/// What is known of one file, whatever its name.
struct File {
    durable: Option<Arc<[u8]>>,
    now: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// Records the states of a folder.
pub(super) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// Numbers of those that are there, by inode.
    numbers: HashMap<u64, usize>,
    /// Names as they are.
    names: BTreeMap<PathBuf, Node>,
    /// Names as they were when their folder was last flushed.
    durable_names: BTreeMap<PathBuf, Node>,
    acknowledged: Arc<AtomicI64>,
    /// States without doubles, by what they hold.
    states: HashMap<blake3::Hash, State>,
    contents: HashSet<Arc<[u8]>>,
    /// How many random losses of power are recorded a step.
    losses: u64,
    random: u64,
    /// Steps by kind, and all of them.
    pub(super) steps: BTreeMap<String, usize>,
}

impl Disk {
    /// Watches `root`, all of which is durable. `acknowledged` is the last commit, -1 before
    /// there is an index.
    pub(super) fn new(root: &Path, acknowledged: Arc<AtomicI64>, losses: u64, seed: u64) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            files: Vec::new(),
            numbers: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            acknowledged,
            states: HashMap::new(),
            contents: HashSet::new(),
            losses,
            random: seed | 1,
            steps: BTreeMap::new(),
        };
        disk.look();
        for file in &mut disk.files {
            file.durable = Some(Arc::clone(&file.now));
        }
        disk.durable_names = disk.names.clone();
        disk
    }

    /// The states, each once.
    pub(super) fn into_states(mut self) -> Vec<State> {
        self.record("the end", true);
        self.states.into_values().collect()
    }

    fn below(&self, draw: u64) -> u64 {
        // The high bits are the better ones.
        (self.random >> 33) % draw
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.below(below)
    }

    fn shared(&mut self, bytes: Vec<u8>) -> Arc<[u8]> {
        if let Some(known) = self.contents.get(bytes.as_slice()) {
            return Arc::clone(known);
        }
        let shared: Arc<[u8]> = bytes.into();
        self.contents.insert(Arc::clone(&shared));
        shared
    }

    /// Notes what is there now.
    fn look(&mut self) {
        self.names.clear();
        let mut seen = HashMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            // A folder may not be there yet.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    self.names.insert(path.clone(), Node::Folder);
                    folders.push(path);
                    continue;
                }
                let inode = fs::metadata(&path).unwrap().ino();
                let now = fs::read(&path).unwrap();
                let now = self.shared(now);
                let number = self.numbers.get(&inode).copied().unwrap_or_else(|| {
                    self.files.push(File { durable: None, now: Arc::clone(&now) });
                    self.files.len() - 1
                });
                self.files[number].now = now;
                seen.insert(inode, number);
                self.names.insert(path, Node::File(number));
            }
        }
        // The inode of a file that is gone may become that of another.
        self.numbers = seen;
    }

    /// Notes the states in which the folder may be left before the step `at`.
    fn record(&mut self, at: &str, with_losses: bool) {
        self.look();
        let killed = self.names.clone();
        self.keep(&format!("killed before {at}"), &killed, |disk, file| {
            Arc::clone(&disk.files[file].now)
        });
        let is_durable = self.durable_names == self.names
            && self.files.iter().all(|file| file.durable.as_ref() == Some(&file.now));
        if is_durable || !with_losses {
            return;
        }
        let (durable, empty) = (self.durable_names.clone(), self.shared(Vec::new()));
        let flushed = move |disk: &mut Self, file: usize| {
            disk.files[file].durable.clone().unwrap_or_else(|| Arc::clone(&empty))
        };
        self.keep(&format!("only what was flushed before {at}"), &durable, flushed.clone());
        self.keep(&format!("names without bytes before {at}"), &killed, flushed);
        self.keep(&format!("bytes without names before {at}"), &durable, |disk, file| {
            Arc::clone(&disk.files[file].now)
        });
        for loss in 0..self.losses {
            let mut names = BTreeMap::new();
            for path in killed.keys().chain(durable.keys()) {
                let from = if self.draw(2) == 0 { &killed } else { &durable };
                if let Some(node) = from.get(path) {
                    names.insert(path.clone(), *node);
                }
            }
            let at = format!("loss {loss} of power before {at}");
            self.keep(&at, &names, Self::torn);
        }
    }

    /// Some part of what was written to a file since it was flushed.
    fn torn(&mut self, file: usize) -> Arc<[u8]> {
        let File { durable, now } = &self.files[file];
        let (old, now) = (durable.clone().unwrap_or_default(), Arc::clone(now));
        if old == now {
            return now;
        }
        let of_old = self.draw(4);
        match of_old {
            0 => old,
            1 => now,
            _ => {
                let len = if self.draw(2) == 0 { old.len() } else { now.len() };
                let mut bytes = vec![0; len];
                for at in (0..len).step_by(BLOCK) {
                    let from = if self.draw(4) < of_old { &now } else { &old };
                    let end = (at + BLOCK).min(len).min(from.len());
                    if at < end {
                        bytes[at..end].copy_from_slice(&from[at..end]);
                    }
                }
                self.shared(bytes)
            }
        }
    }

    fn keep(
        &mut self,
        at: &str,
        names: &BTreeMap<PathBuf, Node>,
        content: impl Fn(&mut Self, usize) -> Arc<[u8]>,
    ) {
        let mut tree = Tree::new();
        // One file may have two names.
        let mut contents: HashMap<usize, Arc<[u8]>> = HashMap::new();
        for (path, node) in names {
            let inside = path.strip_prefix(&self.root).unwrap().to_owned();
            let parent = inside.parent().unwrap();
            if !parent.as_os_str().is_empty() && tree.get(parent) != Some(&None) {
                continue;
            }
            let bytes = match *node {
                Node::Folder => None,
                Node::File(file) => {
                    let known = contents.get(&file).cloned();
                    Some(known.unwrap_or_else(|| content(self, file)))
                }
            };
            if let (Node::File(file), Some(bytes)) = (node, &bytes) {
                contents.insert(*file, Arc::clone(bytes));
            }
            tree.insert(inside, bytes);
        }
        let mut hasher = blake3::Hasher::new();
        for (path, bytes) in &tree {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0, u8::from(bytes.is_some())]);
            hasher.update(blake3::hash(bytes.as_deref().unwrap_or_default()).as_bytes());
        }
        let acknowledged = u64::try_from(self.acknowledged.load(Ordering::SeqCst)).ok();
        // Of equal states the last one has the most to keep. A thread that merges may have left
        // the same one at the same time.
        let hash = hasher.finalize();
        let at = match self.states.remove(&hash) {
            Some(known) if known.at.len() > LONGEST_PLACE || known.at.contains(at) => known.at,
            Some(known) => format!("{}; {at}", known.at),
            None => at.to_owned(),
        };
        self.states.insert(hash, State { tree, acknowledged, at });
    }
}

impl Observer for Disk {
    fn before(&mut self, step: Step, path: &Path) -> io::Result<()> {
        let inside = path.strip_prefix(&self.root).unwrap().display().to_string();
        let count = self.steps.entry(format!("{step:?}")).or_default();
        *count += 1;
        let at = format!("{step:?} {count} of `{inside}`");
        // Of what is written, a loss of power takes any part before the next step as well.
        self.record(&at, step != Step::Write);
        Ok(())
    }

    fn after(&mut self, step: Step, path: &Path) {
        match step {
            Step::SyncFile => {
                self.look();
                if let Some(Node::File(file)) = self.names.get(path) {
                    let file = &mut self.files[*file];
                    file.durable = Some(Arc::clone(&file.now));
                }
            }
            Step::SyncFolder => {
                self.look();
                self.durable_names.retain(|name, _| name.parent() != Some(path));
                let here = self.names.iter().filter(|(name, _)| name.parent() == Some(path));
                self.durable_names.extend(here.map(|(name, node)| (name.clone(), *node)));
            }
            // sled flushes its snapshots and its settings itself, before they get their names.
            Step::Open => {
                self.look();
                for (path, node) in &self.names {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let is_flushed = name.starts_with("snap.") || name == "conf";
                    if let Node::File(file) = node
                        && is_flushed
                    {
                        let file = &mut self.files[*file];
                        file.durable = Some(Arc::clone(&file.now));
                    }
                }
            }
            // What lay in an earlier folder of this name is not in this one.
            Step::MakeFolder => {
                self.durable_names.retain(|name, _| name == path || !name.starts_with(path));
            }
            _ => {}
        }
    }
}

/// Makes `tree` below `root`, an empty folder.
pub(super) fn put(tree: &Tree, root: &Path) {
    for (path, bytes) in tree {
        let path = root.join(path);
        match bytes {
            None => fs::create_dir(&path).unwrap(),
            Some(bytes) => {
                // sled's log is nearly all zeros, which need no room as a hole.
                let file = fs::File::create(&path).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
                for (at, page) in bytes.chunks(PAGE).enumerate() {
                    if page.iter().any(|byte| *byte != 0) {
                        file.write_all_at(page, (at * PAGE) as u64).unwrap();
                    }
                }
            }
        }
    }
}

/// The tree below `root`.
pub(super) fn tree_of(root: &Path) -> Tree {
    let disk = Disk::new(root, Arc::default(), 0, 0);
    let bytes = |node: &Node| match node {
        Node::Folder => None,
        Node::File(file) => Some(Arc::clone(&disk.files[*file].now)),
    };
    let inside = |path: &PathBuf| path.strip_prefix(root).unwrap().to_owned();
    disk.names.iter().map(|(path, node)| (inside(path), bytes(node))).collect()
}
