//! A writer stopped at every step: nothing committed is missing, nothing half-written is served,
//! and the next run goes on from there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::Step;
use super::disk::{Disk, State, Tree, put, tree_of};
use super::observer::{Observer, Watch};
use crate::common::model::{ANY, Model, Operation, model_at, operations};
use crate::common::{folder, spec};
use crate::{Cure, IndexReader, IndexWriter, OpenError, WriteError};

/// An index after `commits`.
fn index(dir: &Path, commits: u64) {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    let mut model = Model::default();
    for generation in 1..=commits {
        commit(&mut writer, &mut model, generation).unwrap();
    }
}

/// Makes the commit `generation`.
fn commit(writer: &mut IndexWriter, model: &mut Model, generation: u64) -> Result<(), WriteError> {
    for operation in operations(generation) {
        apply(writer, model, &operation)?;
    }
    assert_eq!(writer.commit()?, generation);
    Ok(())
}

/// As [`Model::apply`], and lets only a full disk stop it: what the writer refuses, it says.
fn apply(
    writer: &mut IndexWriter,
    model: &mut Model,
    operation: &Operation,
) -> Result<(), WriteError> {
    if let Operation::Add { path, content } = operation {
        // The only one that writes before the commit.
        let new = crate::common::photo(crate::common::model::path(*path), u64::from(*content));
        writer.add(new, crate::common::features(u64::from(*content)))?;
        model.apply(operation, None);
        let stamp = model.stamp(*path);
        writer.touch(&crate::common::model::path(*path), stamp)?;
    } else {
        model.apply(operation, Some(writer));
    }
    Ok(())
}

/// Opens what `state` left, as a search and as the next writer do, and goes on. `model_at` says
/// what a generation holds.
fn assert_whole(state: &State, is_readable: bool, model_at: &(dyn Fn(u64) -> Model + Sync)) {
    let dir = folder();
    put(&state.tree, dir.path());
    let least = state.acknowledged.unwrap_or(0);
    let within = |generation: u64| {
        assert!(
            (least..=least + 1).contains(&generation),
            "{generation} after {:?}, {}",
            state.acknowledged,
            state.at
        );
    };
    let mut seen = 0;
    match IndexReader::open(dir.path()) {
        Ok(reader) => {
            seen = reader.generation();
            within(seen);
            model_at(seen).assert_answers(&reader);
            // Codes are written behind a commit, and power may be lost meanwhile. The next writer
            // begins them anew.
            let mut problems = reader.check().unwrap().problems;
            problems.retain(|problem| !problem.contains("coarse/codes` is damaged"));
            assert_eq!(problems, [""; 0], "{}", state.at);
        }
        Err(OpenError::Missing { .. }) if state.acknowledged.is_none() => {}
        Err(OpenError::Missing { .. } | OpenError::Corrupt { cure: Cure::Rewrite, .. })
            if !is_readable => {}
        Err(error) => panic!("a search fails, {}: {error} ({error:?})", state.at),
    }
    let mut writer = IndexWriter::open(dir.path(), &spec())
        .unwrap_or_else(|error| panic!("no run goes on, {}: {error} ({error:?})", state.at));
    let generation = writer.commit().unwrap();
    within(generation);
    assert!(generation >= seen, "{generation} after {seen} was seen, {}", state.at);
    let mut model = model_at(generation);
    model.assert_written(&writer);
    commit(&mut writer, &mut model, generation + 1).unwrap();
    model.assert_read(&IndexReader::open(dir.path()).unwrap());
    let done = writer.compact(ANY, |_| true).unwrap();
    assert_eq!((done.segments, done.problems.len()), (done.found, 0), "{}", state.at);
    drop(writer);
    let reader = IndexReader::open(dir.path()).unwrap();
    model.assert_read(&reader);
    assert_eq!(reader.check().unwrap().unused_records, 0, "{}", state.at);
}

/// Checks all `states`, on a few threads, and tells where those that fail were left.
fn assert_all_whole(states: &[State], is_readable: bool) {
    assert_all_are(states, is_readable, &model_at);
}

/// As [`assert_all_whole`], of generations that hold what `model_at` says.
fn assert_all_are(states: &[State], is_readable: bool, model_at: &(dyn Fn(u64) -> Model + Sync)) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(state) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let check =
                        std::panic::AssertUnwindSafe(|| assert_whole(state, is_readable, model_at));
                    if std::panic::catch_unwind(check).is_err() {
                        failed.lock().unwrap().push(state.at.clone());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), states.len(), failed.join("\n"));
}

/// Random losses of power a step; more are asked for by `TINYFIND_LOSSES`.
fn losses() -> u64 {
    std::env::var("TINYFIND_LOSSES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Does `work` on a folder that holds `start`, and returns every state on the way.
///
/// `work` notes in its second argument each commit that was acknowledged.
fn states_of(start: &Tree, known: i64, work: impl FnOnce(&Path, &AtomicI64)) -> Vec<State> {
    let dir = folder();
    put(start, dir.path());
    let acknowledged = Arc::new(AtomicI64::new(known));
    let seed = std::env::var("TINYFIND_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let disk = Disk::new(dir.path(), Arc::clone(&acknowledged), losses(), seed);
    let disk = Arc::new(Mutex::new(disk));
    {
        let _watch = Watch::over(dir.path(), Arc::clone(&disk) as _);
        work(dir.path(), &acknowledged);
    }
    let disk = Arc::into_inner(disk).unwrap().into_inner().unwrap();
    let count: usize = disk.steps.values().sum();
    let kinds = disk.steps.clone();
    let states = disk.into_states();
    println!("{count} steps, {} states: {kinds:?}", states.len());
    states
}

/// What an index of `commits` holds on disk.
fn tree_after(commits: u64) -> Tree {
    let dir = folder();
    index(dir.path(), commits);
    tree_of(dir.path())
}

#[test]
fn an_index_stopped_while_it_is_made_and_first_written_is_whole() {
    let states = states_of(&Tree::new(), -1, |dir, acknowledged| {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        acknowledged.store(0, Ordering::SeqCst);
        let mut model = Model::default();
        for generation in 1..=2 {
            commit(&mut writer, &mut model, generation).unwrap();
            acknowledged.store(generation as i64, Ordering::SeqCst);
        }
    });
    assert!(states.len() > 100, "{} states", states.len());
    assert_all_whole(&states, true);
}

#[test]
fn a_commit_that_merges_can_stop_anywhere() {
    let states = states_of(&tree_after(5), 5, |dir, acknowledged| {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        commit(&mut writer, &mut model_at(5), 6).unwrap();
        acknowledged.store(6, Ordering::SeqCst);
        // Merges end with the writer.
        drop(writer);
    });
    assert_all_whole(&states, true);
}

/// The generation that the next writer finds in what `state` left.
fn recovered(state: &State) -> u64 {
    let dir = folder();
    put(&state.tree, dir.path());
    IndexWriter::open(dir.path(), &spec()).unwrap().commit().unwrap()
}

#[test]
fn a_recovery_can_stop_anywhere() {
    // Left by a commit that had come as far as its text.
    let mut left = states_of(&tree_after(2), 2, |dir, acknowledged| {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        commit(&mut writer, &mut model_at(2), 3).unwrap();
        acknowledged.store(3, Ordering::SeqCst);
    });
    left.retain(|state| state.acknowledged == Some(2) && state.at.starts_with("killed"));
    let killed_in = |file: &str| {
        // Text is written before and after the catalogue names its commit.
        let found = left.iter().find(|state| state.at.contains(file) && recovered(state) == 3);
        found.unwrap_or_else(|| panic!("no state of {file}"))
    };
    for left in [killed_in(".store`"), killed_in("of `manifest.new`")] {
        let states = states_of(&left.tree, 2, |dir, acknowledged| {
            drop(IndexWriter::open(dir, &spec()).unwrap());
            acknowledged.store(3, Ordering::SeqCst);
        });
        assert!(states.len() > 1, "{} left nothing to recover", left.at);
        assert_all_whole(&states, true);
    }
}

/// An index in which segments of every kind are there, full and not, in part and wholly unused:
/// what it holds on disk, its generation, and what is in it. Some are gone `before` already.
fn before_compaction(before: bool) -> (Tree, u64, Model) {
    let dir = folder();
    index(dir.path(), 9);
    let (mut model, mut generation) = (model_at(9), 9);
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    if before {
        assert!(writer.compact(ANY, |_| true).unwrap().segments > 0);
        generation = writer.commit().unwrap();
        for _ in 0..6 {
            generation += 1;
            commit(&mut writer, &mut model, generation).unwrap();
        }
    }
    drop(writer);
    (tree_of(dir.path()), generation, model)
}

/// Stops a compaction of an index of which some segments may be gone `before`; returns how many
/// it gave back.
fn stop_compaction(before: bool) -> u64 {
    let (start, generation, model) = before_compaction(before);
    let given_back = AtomicI64::new(0);
    let states = states_of(&start, generation as i64, |dir, acknowledged| {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        let note = |segments: u64| {
            given_back.store(segments as i64, Ordering::SeqCst);
            acknowledged.store((generation + segments) as i64, Ordering::SeqCst);
        };
        let done = writer.compact(ANY, |done| {
            note(done.segments);
            true
        });
        note(done.unwrap().segments);
    });
    // No compaction changes what is in an index.
    assert_all_are(&states, true, &|_| model.clone());
    given_back.into_inner() as u64
}

#[test]
fn a_compaction_can_stop_anywhere() {
    assert_eq!(stop_compaction(false), 2);
}

#[test]
fn a_compaction_after_another_can_stop_anywhere() {
    assert!(stop_compaction(true) > 0);
}

#[test]
fn the_recovery_of_a_compaction_can_stop_anywhere() {
    let (start, generation, model) = before_compaction(false);
    // Left by a compaction of one segment, after its catalogue and before its text, and before
    // and after its manifest.
    let mut left = states_of(&start, generation as i64, |dir, _| {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        assert_eq!(writer.compact(ANY, |done| done.segments == 0).unwrap().segments, 1);
    });
    left.retain(|state| state.at.starts_with("killed"));
    for file in [".store`", "of `manifest.new`", ".vectors.seg`", ".tokens.seg`"] {
        // Of a segment it is the deletion that is looked for.
        let is_segment = file.ends_with(".seg`");
        let mut killed = left.iter().filter(|state| {
            let is_there = |at: &str| at.contains(file) && (!is_segment || at.contains("Remove"));
            state.at.split("; ").any(is_there) && recovered(state) == generation + 1
        });
        let killed = killed.next().unwrap_or_else(|| panic!("no state of {file}"));
        let states = states_of(&killed.tree, generation as i64, |dir, acknowledged| {
            drop(IndexWriter::open(dir, &spec()).unwrap());
            acknowledged.store(generation as i64 + 1, Ordering::SeqCst);
        });
        assert!(states.len() > 1, "{} left nothing to recover", killed.at);
        assert_all_are(&states, true, &|_| model.clone());
    }
}

#[test]
fn a_step_of_a_compaction_that_fails_is_told_and_leaves_a_whole_index() {
    let (start, generation, model) = before_compaction(true);
    for goes_on in [false, true] {
        let model_at = |_| model.clone();
        let steps = fail_everywhere(&start, generation, goes_on, &model_at, |dir| {
            let mut writer = IndexWriter::open(dir, &spec()).map_err(|error| told(dir, &error))?;
            writer.compact(ANY, |done| done.segments == 0).map(|_| ()).map_err(|error| {
                let again = writer.commit();
                let may_go_on = again.is_ok() || matches!(again, Err(WriteError::Interrupted));
                let (text, names_folder) = told(dir, &error);
                (text, names_folder && may_go_on)
            })
        });
        assert!(steps > 20, "{steps} steps");
    }
}

#[test]
fn a_rebuild_can_stop_anywhere() {
    let states = states_of(&tree_after(3), 3, |dir, _| {
        drop(IndexWriter::rebuild(dir, &spec()).unwrap());
    });
    assert!(states.len() > 20, "{} states", states.len());
    assert_all_whole(&states, true);
}

#[test]
fn the_repair_of_a_damaged_text_can_stop_anywhere() {
    let mut tree = tree_after(3);
    tree.remove(Path::new("manifest.json"));
    let store = tree.keys().find(|path| path.extension().is_some_and(|it| it == "store"));
    let store = store.unwrap().clone();
    tree.insert(store, Some([0_u8; 9].into()));
    let states = states_of(&tree, 3, |dir, _| {
        drop(IndexWriter::open(dir, &spec()).unwrap());
    });
    assert_all_whole(&states, false);
}

/// Lets one step fail, or every one from there on that writes, as on a full disk.
struct Failing {
    at: usize,
    goes_on: bool,
    count: usize,
}

impl Observer for Failing {
    fn before(&mut self, step: Step, _: &Path) -> io::Result<()> {
        let is_write = matches!(
            step,
            Step::Create | Step::MakeFolder | Step::Write | Step::Open | Step::Apply | Step::Flush
        );
        if self.goes_on && !is_write {
            return Ok(());
        }
        self.count += 1;
        let fails = if self.goes_on { self.count >= self.at } else { self.count == self.at };
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Does `work` on `start` again and again, each time with another step that fails, until none
/// is left; checks what each leaves. Returns how many there were.
fn fail_everywhere(
    start: &Tree,
    known: u64,
    goes_on: bool,
    model_at: &(dyn Fn(u64) -> Model + Sync),
    work: impl Fn(&Path) -> Result<(), (String, bool)> + Sync,
) -> usize {
    let (next, last, refused) = (AtomicUsize::new(1), AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Mutex<BTreeMap<usize, String>> = Mutex::default();
    let one = |at: usize| -> bool {
        let dir = folder();
        put(start, dir.path());
        let failing = Arc::new(Mutex::new(Failing { at, goes_on, count: 0 }));
        let result = {
            let _watch = Watch::over(dir.path(), Arc::clone(&failing) as _);
            work(dir.path())
        };
        if let Err((error, names_folder)) = &result {
            assert!(names_folder, "step {at}: {error} is not what happened");
            refused.fetch_add(1, Ordering::Relaxed);
        }
        let acknowledged = Some(if result.is_ok() { known + 1 } else { known });
        let state = State { tree: tree_of(dir.path()), acknowledged, at: format!("step {at}") };
        assert_whole(&state, true, model_at);
        let count = failing.lock().unwrap_or_else(PoisonError::into_inner).count;
        count >= at
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while last.load(Ordering::SeqCst) == 0 {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(at))) {
                        Ok(true) => {}
                        Ok(false) => last.store(at, Ordering::SeqCst),
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                            failed.lock().unwrap().insert(at, text);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    let (last, refused) = (last.into_inner() - 1, refused.into_inner());
    println!("{last} steps failed, {refused} of them were told");
    // A merge, and what only makes room, can be done by the next writer as well.
    assert!(4 * refused > last, "{refused} of {last} failed steps were told");
    last
}

/// What is wrong, and whether it is said as it is, of a file below `dir`.
fn told(dir: &Path, error: &(dyn std::error::Error + 'static)) -> (String, bool) {
    let text = error.to_string();
    // A person has to read that the disk is full, and not that the index is damaged.
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    let is_full = chain.any(|error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
    });
    let names_folder = is_full && text.contains(&*dir.to_string_lossy());
    (format!("{text}: {error:?}"), names_folder)
}

/// Opens, commits generation `next`, and sees that a writer that failed refuses to go on.
fn open_and_commit(dir: &Path, next: u64) -> Result<(), (String, bool)> {
    let mut writer = IndexWriter::open(dir, &spec()).map_err(|error| told(dir, &error))?;
    let mut model = model_at(next - 1);
    commit(&mut writer, &mut model, next).map_err(|error| {
        let again = writer.commit();
        // Without a commit that broke off half-way, another may be tried.
        let may_go_on = again.is_ok() || matches!(again, Err(WriteError::Interrupted));
        let (text, names_folder) = told(dir, &error);
        (text, names_folder && may_go_on)
    })
}

#[test]
fn a_step_that_fails_is_told_and_leaves_a_whole_index() {
    let start = tree_after(2);
    let steps = fail_everywhere(&start, 2, false, &model_at, |dir| open_and_commit(dir, 3));
    assert!(steps > 50, "{steps} steps");
}

#[test]
fn a_disk_that_is_full_from_any_step_on_leaves_a_whole_index() {
    let start = tree_after(2);
    let steps = fail_everywhere(&start, 2, true, &model_at, |dir| open_and_commit(dir, 3));
    assert!(steps > 20, "{steps} steps");
}
