//! The indexing job from end to end, with a model that needs no weights.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod common;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use common::{BLUE, GREEN, RED, TestEnv, YELLOW, png, set_time};
use proptest::prelude::*;
use tinyfind::{
    crawl::Pattern,
    decode::Unreadable,
    indexer::{self, IndexError, IndexRequest, Phase, Planned, Reporter, Summary},
    vlm::{Calls, FakeVlm, Vlm as _},
};
use tinyfind_index::{ContentHash, FileState, IndexWriter, Term};

fn names(env: &TestEnv) -> Vec<String> {
    env.contents().into_keys().map(|path| path.display().to_string()).collect()
}

#[test]
fn a_folder_becomes_searchable_by_words_and_meaning() {
    let env = TestEnv::new();
    env.photo("a/red.png", RED, 1);
    env.photo("b/blue.png", BLUE, 2);
    let (summary, calls) = env.run();
    assert_eq!(summary, Summary { added: 2, captioned: 2, ..Summary::default() });
    assert_eq!((calls.embedded, calls.captioned), (2, 2));

    let contents = env.contents();
    let blue = &contents[Path::new("b/blue.png")];
    assert_eq!(blue.caption.as_deref(), Some("a blue picture, 32 x 32 pixels"));
    assert_eq!((blue.metadata.width, blue.metadata.height), (20, 12));
    let reader = env.reader();
    let words = [Term::Word("blue".into())];
    let filter = tinyfind_index::Filter::default();
    assert_eq!(reader.by_words(&words, &filter, 9).unwrap()[0].0, blue.doc);
    let query = FakeVlm::default().embed_queries(&["something blue"]).unwrap().remove(0);
    assert_eq!(reader.by_vector(&query, &filter, 9).unwrap()[0].0, blue.doc);
}

#[test]
fn a_second_run_opens_nothing() {
    let env = TestEnv::new();
    for (seed, name) in ["a.png", "b.png", "c/d.png"].into_iter().enumerate() {
        let path = env.photo(name, RED, seed as u32);
        set_time(&path, 7);
    }
    env.run();
    let before = env.contents();
    // Whoever opened this one would see that it is no photo any more.
    let length = fs::metadata(env.path("a.png")).unwrap().len();
    fs::write(env.path("a.png"), vec![b'x'; length as usize]).unwrap();
    set_time(&env.path("a.png"), 7);

    let generation = env.reader().generation();
    let (summary, calls) = env.run();
    assert_eq!(summary, Summary { unchanged: 3, ..Summary::default() });
    assert_eq!(calls, Calls::default());
    assert_eq!(env.contents(), before);
    assert_eq!(env.reader().generation(), generation, "nothing to commit");
}

#[test]
fn a_moved_photo_keeps_its_number_and_caption() {
    let env = TestEnv::new();
    env.photo("old/a.png", RED, 1);
    env.photo("old/b.png", BLUE, 2);
    env.run();
    let before = env.contents();
    fs::rename(env.path("old"), env.path("new")).unwrap();
    fs::rename(env.path("new/b.png"), env.path("z.png")).unwrap();

    let (summary, calls) = env.run();
    assert_eq!(summary, Summary { renamed: 2, ..Summary::default() });
    assert_eq!(calls, Calls::default());
    let after = env.contents();
    assert_eq!(names(&env), ["new/a.png", "z.png"]);
    assert_eq!(after[Path::new("new/a.png")], before[Path::new("old/a.png")]);
    assert_eq!(after[Path::new("z.png")], before[Path::new("old/b.png")]);
}

#[test]
fn a_deleted_photo_leaves_and_a_changed_one_is_read_again() {
    let env = TestEnv::new();
    env.photo("gone.png", RED, 1);
    env.photo("changed.png", RED, 2);
    env.photo("same.png", RED, 3);
    env.run();
    let before = env.contents();
    fs::remove_file(env.path("gone.png")).unwrap();
    set_time(&env.photo("changed.png", BLUE, 2), 50);

    let (summary, calls) = env.run();
    let expected =
        Summary { removed: 1, updated: 1, unchanged: 1, captioned: 1, ..Summary::default() };
    assert_eq!(summary, expected);
    assert_eq!((calls.embedded, calls.captioned), (1, 1));
    let after = env.contents();
    assert_eq!(names(&env), ["changed.png", "same.png"]);
    let changed = &after[Path::new("changed.png")];
    assert_eq!(changed.caption.as_deref(), Some("a blue picture, 32 x 32 pixels"));
    assert_ne!(changed.doc, before[Path::new("changed.png")].doc);
    assert_eq!(after[Path::new("same.png")], before[Path::new("same.png")]);
}

#[test]
fn a_touched_photo_is_not_computed_again() {
    let env = TestEnv::new();
    let path = env.photo("a.png", RED, 1);
    env.run();
    let before = env.contents();
    set_time(&path, 99);
    let (summary, calls) = env.run();
    assert_eq!(summary, Summary { touched: 1, ..Summary::default() });
    assert_eq!(calls, Calls::default());
    assert_eq!(env.contents(), before);
    assert_eq!(env.run().0, Summary { unchanged: 1, ..Summary::default() });
}

#[test]
fn equal_content_is_computed_once() {
    let env = TestEnv::new();
    for name in ["a.png", "b.png", "c/a.png", "d.png", "e.png", "f.png"] {
        env.photo(name, GREEN, 5);
    }
    env.photo("other.png", RED, 6);
    let request = IndexRequest { threads: NonZeroUsize::new(4), ..env.request() };
    let (summary, calls) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!(summary, Summary { added: 7, copied: 5, captioned: 7, ..Summary::default() });
    assert_eq!((calls.embedded, calls.captioned), (2, 2));

    env.photo("g.png", GREEN, 5);
    let (summary, calls) = env.run();
    assert_eq!(summary, Summary { added: 1, copied: 1, unchanged: 7, ..Summary::default() });
    assert_eq!(calls, Calls::default());
    let contents = env.contents();
    let original = &contents[Path::new("a.png")];
    let copy = &contents[Path::new("g.png")];
    assert_eq!((&copy.caption, &copy.embedding), (&original.caption, &original.embedding));
    assert!(copy.doc > original.doc);
}

#[test]
fn a_path_that_got_another_content_hands_its_features_on() {
    let env = TestEnv::new();
    env.photo("b.png", RED, 1);
    env.run();
    // The photo moved away and another took its name.
    fs::rename(env.path("b.png"), env.path("a.png")).unwrap();
    set_time(&env.photo("b.png", BLUE, 2), 60);
    let (summary, calls) = env.run();
    let expected = Summary { added: 1, copied: 1, updated: 1, captioned: 1, ..Summary::default() };
    assert_eq!(summary, expected);
    assert_eq!((calls.embedded, calls.captioned), (1, 1));
}

#[test]
fn photos_that_change_places_end_with_the_right_content() {
    let env = TestEnv::new();
    set_time(&env.photo("a.png", RED, 1), 1);
    set_time(&env.photo("b.png", BLUE, 2), 2);
    env.run();
    set_time(&env.photo("a.png", BLUE, 2), 3);
    set_time(&env.photo("b.png", RED, 1), 4);
    let (summary, _) = env.run();
    assert_eq!(summary.updated, 2);
    let contents = env.contents();
    let caption = |name: &str| contents[Path::new(name)].caption.clone().unwrap();
    assert!(caption("a.png").starts_with("a blue"), "{}", caption("a.png"));
    assert!(caption("b.png").starts_with("a red"), "{}", caption("b.png"));
}

#[test]
fn broken_files_are_listed_and_tried_again_only_when_they_change() {
    let env = TestEnv::new();
    env.copy_fixture("malformed");
    env.photo("good.png", RED, 1);
    let (summary, _) = env.run();
    assert_eq!(summary.added, 3, "two of the PngSuite are whole");
    let failures = env.failures();
    assert_eq!(failures.len() as u64, summary.failed);
    assert!(summary.failed >= 25, "{failures:#?}");
    let reason = |name: &str| failures[&Path::new("malformed").join(name)].clone();
    assert_eq!(reason("empty.jpg"), "is empty");
    assert_eq!(reason("truncated_half.jpg"), "truncated JPEG: the end of the picture is missing");
    assert_eq!(reason("heic_named.jpg"), "HEIC photos are not read yet; convert it to JPEG");

    let (again, calls) = env.run();
    assert_eq!(again.still_failed, summary.failed);
    assert_eq!((again.failed, calls), (0, Calls::default()));

    env.photo("malformed/empty.jpg", BLUE, 2);
    let (third, _) = env.run();
    assert_eq!((third.added, third.failed), (1, 0));
    assert!(!env.failures().contains_key(Path::new("malformed/empty.jpg")));

    let request = IndexRequest { retry_failed: true, ..env.request() };
    let (retried, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!(retried.failed, summary.failed - 1);
    assert_eq!(retried.still_failed, 0);
}

#[test]
fn a_photo_that_breaks_leaves_the_search_and_comes_back_when_mended() {
    let env = TestEnv::new();
    let path = env.photo("a.png", RED, 1);
    env.run();
    fs::write(&path, b"not a photo any more").unwrap();
    let (summary, _) = env.run();
    assert_eq!((summary.failed, summary.removed), (1, 0));
    assert!(env.contents().is_empty());
    assert_eq!(env.failures()[Path::new("a.png")], "is not a photo: text");
    set_time(&env.photo("a.png", RED, 1), 70);
    assert_eq!(env.run().0.added, 1);
    assert!(env.failures().is_empty());
}

#[test]
fn copies_of_a_broken_file_fail_with_the_same_reason() {
    let env = TestEnv::new();
    let whole = png(RED, 1);
    let mut broken = whole.clone();
    let length = broken.len();
    broken.truncate(length - 20);
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        env.write(name, &broken);
    }
    let (summary, calls) = env.run();
    assert_eq!((summary.failed, calls.embedded), (4, 0));
    let failures = env.failures();
    assert!(failures.values().all(|reason| *reason == failures[Path::new("a.png")]));
}

#[test]
fn photos_of_unknown_formats_are_counted_and_listed_but_not_opened() {
    let env = TestEnv::new();
    env.write("a.HEIC", b"");
    env.write("b.heic", b"x");
    env.write("c.dng", b"x");
    env.write("film.MOV", b"x");
    let (summary, _) = env.run();
    assert_eq!(summary.unsupported, [(Unreadable::Heic, 2), (Unreadable::Raw, 1)].into());
    assert_eq!((summary.videos, summary.failed), (1, 0));
    let failures = env.failures();
    assert_eq!(failures.len(), 3);
    let reason = &failures[Path::new("c.dng")];
    assert_eq!(reason, "camera RAW photos are not read yet; convert it to JPEG");

    let generation = env.reader().generation();
    let (again, _) = env.run();
    assert_eq!(again.unsupported, summary.unsupported);
    assert_eq!(env.reader().generation(), generation);
}

#[test]
fn a_root_that_is_missing_or_empty_removes_nothing_unless_pruned() {
    let env = TestEnv::new();
    env.photo("disk/a.png", RED, 1);
    env.photo("disk/b.png", RED, 2);
    env.photo("home/c.png", RED, 3);
    let request = IndexRequest::new([env.path("disk"), env.path("home")]);
    env.run_with(&request, FakeVlm::default(), &mut ());
    fs::rename(env.path("disk"), env.root().join("away")).unwrap();

    let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.removed, summary.unchanged), (0, 1));
    assert_eq!(summary.kept, [(env.path("disk"), 2)]);
    assert_eq!(summary.problems[0].path, env.path("disk"));
    assert_eq!(env.contents().len(), 3);

    // The place where a disk is mounted stays when the disk goes.
    fs::create_dir(env.path("disk")).unwrap();
    let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.removed, summary.kept), (0, vec![(env.path("disk"), 2)]));
    assert_eq!(env.contents().len(), 3);

    let request = IndexRequest { prune: true, ..request };
    let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.removed, summary.kept), (2, vec![]));
    assert_eq!(names(&env), ["home/c.png"]);
}

#[test]
fn only_photos_under_the_roots_of_a_run_can_be_gone() {
    let env = TestEnv::new();
    env.photo("a/x.png", RED, 1);
    env.photo("b/y.png", RED, 2);
    env.run();
    fs::remove_file(env.path("a/x.png")).unwrap();
    env.photo("b/z.png", RED, 3);
    let request = IndexRequest::new([env.path("b")]);
    let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.added, summary.removed), (1, 0));
    assert_eq!(names(&env), ["a/x.png", "b/y.png", "b/z.png"]);
}

#[test]
fn excluded_photos_leave_the_index() {
    let env = TestEnv::new();
    env.photo("a.png", RED, 1);
    env.photo("raw/b.png", RED, 2);
    env.run();
    let request = IndexRequest { exclude: vec![Pattern::new("raw").unwrap()], ..env.request() };
    let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.removed, summary.unchanged), (1, 1));
    assert_eq!(names(&env), ["a.png"]);
}

#[test]
#[cfg(unix)]
fn pipes_loops_sockets_and_strange_names_are_survived() {
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};
    let env = TestEnv::new();
    env.photo("good.png", RED, 1);
    let strange = std::ffi::OsStr::from_bytes(b"caf\xe9 \n\xff.png");
    fs::write(env.photos().join(strange), png(YELLOW, 2)).unwrap();
    env.write("empty.png", b"");
    let pipe = env.path("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(env.path("socket.png")).unwrap();
    symlink(env.photos(), env.path("loop")).unwrap();
    symlink("/dev/zero", env.path("zero.png")).unwrap();
    for follow_links in [false, true] {
        let request = IndexRequest { follow_links, ..env.request() };
        let (summary, _) = env.run_with(&request, FakeVlm::default(), &mut ());
        assert_eq!(summary.failed + summary.still_failed, 1, "{summary:?}");
        assert_eq!(summary.problems.len(), usize::from(follow_links));
    }
    let contents = env.contents();
    assert_eq!(contents.len(), 2);
    assert!(contents[Path::new(strange)].caption.as_deref().unwrap().starts_with("a yellow"));
    assert_eq!(env.failures()[Path::new("empty.png")], "is empty");
}

#[test]
#[cfg(unix)]
fn a_file_that_cannot_be_read_now_is_tried_again_by_every_run() {
    let env = TestEnv::new();
    let mut swap = Swapping { at: env.path("a.png"), to: env.root().join("saved") };
    env.photo("a.png", RED, 1);
    let (summary, _) = env.run_with(&env.request(), FakeVlm::default(), &mut swap);
    assert_eq!((summary.failed, summary.added), (1, 0));
    assert_eq!(summary.still_failed, 0);
    assert!(env.failures()[Path::new("a.png")].starts_with("cannot be read: "));
    fs::remove_file(env.path("a.png")).unwrap();
    fs::rename(&swap.to, env.path("a.png")).unwrap();
    assert_eq!(env.run().0.added, 1);
    assert!(env.failures().is_empty());
}

/// Puts a link that leads to itself in the place of a file when the crawl is over: a system
/// that refuses to open it, for a while.
#[cfg(unix)]
struct Swapping {
    at: PathBuf,
    to: PathBuf,
}

#[cfg(unix)]
impl Reporter for Swapping {
    fn planned(&mut self, _: &Planned) {
        fs::rename(&self.at, &self.to).unwrap();
        std::os::unix::fs::symlink(&self.at, &self.at).unwrap();
    }
}

#[test]
fn a_file_deleted_during_the_run_is_no_failure() {
    struct Deleting(PathBuf);
    impl Reporter for Deleting {
        fn planned(&mut self, planned: &Planned) {
            assert_eq!(*planned, Planned { new: 2, ..Planned::default() });
            fs::remove_file(&self.0).unwrap();
        }
    }
    let env = TestEnv::new();
    env.photo("a.png", RED, 1);
    let path = env.photo("b.png", RED, 2);
    let (summary, _) = env.run_with(&env.request(), FakeVlm::default(), &mut Deleting(path));
    assert_eq!((summary.added, summary.failed), (1, 0));
    assert_eq!(names(&env), ["a.png"]);
    assert!(env.failures().is_empty());
}

/// Counts what it is told, and cancels after so many files or captions.
#[derive(Default)]
struct Counting<'a> {
    cancel: Option<(&'a AtomicBool, Phase, u64)>,
    totals: Vec<(Phase, u64)>,
    done: Vec<(Phase, u64)>,
    ended: Vec<Phase>,
    commits: u64,
    failed: u64,
}

impl Reporter for Counting<'_> {
    fn phase_started(&mut self, phase: Phase, total: u64) {
        self.totals.push((phase, total));
        self.done.push((phase, 0));
    }

    fn advanced(&mut self, phase: Phase, by: u64) {
        let (current, done) = self.done.last_mut().unwrap();
        assert_eq!(*current, phase);
        *done += by;
        if let Some((cancel, when, after)) = self.cancel
            && when == phase
            && *done >= after
        {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    fn failed(&mut self, _: &Path, _: &str) {
        self.failed += 1;
    }

    fn committed(&mut self, _: u64) {
        self.commits += 1;
    }

    fn phase_ended(&mut self, phase: Phase) {
        self.ended.push(phase);
    }
}

#[test]
fn the_reporter_is_told_of_every_file_in_both_phases() {
    let env = TestEnv::new();
    for seed in 0..9 {
        env.photo(&format!("{seed}.png"), RED, seed % 7);
    }
    env.write("bad.jpg", b"text");
    let mut counting = Counting::default();
    env.run_with(&env.request(), FakeVlm::default(), &mut counting);
    let expected = [(Phase::Embed, 10), (Phase::Caption, 9)];
    assert_eq!(
        (counting.totals.as_slice(), counting.done.as_slice()),
        (&expected[..], &expected[..])
    );
    assert_eq!(counting.ended, [Phase::Embed, Phase::Caption]);
    assert_eq!((counting.failed, counting.commits), (1, 2));
}

/// A library with all that a run can meet; the same in every environment.
fn mixed_library(env: &TestEnv) {
    for seed in 0..40 {
        let colour = [RED, GREEN, BLUE, YELLOW][seed as usize % 4];
        let path = env.photo(&format!("{}/{seed:02}.png", seed % 3), colour, seed % 31);
        set_time(&path, u64::from(seed));
    }
    for name in ["truncated_half.jpg", "empty.jpg", "header_0x0.jpg"] {
        let path = env.write(
            &format!("1/{name}"),
            &fs::read(Path::new("tests/fixtures/photos/malformed").join(name)).unwrap(),
        );
        set_time(&path, 77);
    }
}

#[test]
fn a_run_that_is_stopped_again_and_again_ends_with_the_index_of_one_that_is_not() {
    let whole = TestEnv::new();
    mixed_library(&whole);
    let (expected, calls) = whole.run();
    let stopped = TestEnv::new();
    mixed_library(&stopped);

    let mut runs = 0;
    let (mut added, mut captioned, mut embedded) = (0, 0, 0);
    loop {
        let cancel = AtomicBool::new(false);
        let phase = if runs < 4 { Phase::Embed } else { Phase::Caption };
        let mut counting = Counting { cancel: Some((&cancel, phase, 5)), ..Counting::default() };
        let mut vlm = FakeVlm::default().with_batches(3, 4);
        vlm = vlm.with_delay(Duration::from_millis(1));
        let mut writer = IndexWriter::open(&stopped.index(), vlm.spec()).unwrap();
        let request = IndexRequest { threads: NonZeroUsize::new(3), ..stopped.request() };
        let summary =
            indexer::run(&mut writer, &mut vlm, &request, &mut counting, &cancel).unwrap();
        drop(writer);
        assert_eq!(stopped.reader().counts().photos, added + summary.added, "committed");
        added += summary.added;
        captioned += summary.captioned;
        embedded += vlm.calls().embedded;
        runs += 1;
        if !summary.interrupted {
            break;
        }
        assert!(runs < 40, "it never ends");
    }
    assert!(runs > 5, "stopped only {runs} times");
    assert_eq!((added, captioned), (expected.added, expected.captioned));
    assert_eq!(embedded, calls.embedded, "nothing was computed twice");
    assert_eq!(stopped.contents(), whole.contents());
    assert_eq!(stopped.failures(), whole.failures());
}

#[test]
fn the_index_does_not_depend_on_threads_or_batches() {
    let one = TestEnv::new();
    mixed_library(&one);
    let request = IndexRequest { threads: NonZeroUsize::new(1), ..one.request() };
    one.run_with(&request, FakeVlm::default().with_batches(1, 1), &mut ());
    let many = TestEnv::new();
    mixed_library(&many);
    let request = IndexRequest { threads: NonZeroUsize::new(8), ..many.request() };
    many.run_with(&request, FakeVlm::default().with_batches(7, 64), &mut ());
    assert_eq!(one.contents(), many.contents());
    assert_eq!(one.failures(), many.failures());
}

#[test]
fn a_run_cancelled_before_it_begins_does_nothing() {
    let env = TestEnv::new();
    env.photo("a.png", RED, 1);
    let mut vlm = FakeVlm::default();
    let mut writer = IndexWriter::open(&env.index(), vlm.spec()).unwrap();
    let cancel = AtomicBool::new(true);
    let summary = indexer::run(&mut writer, &mut vlm, &env.request(), &mut (), &cancel).unwrap();
    assert_eq!(summary, Summary { interrupted: true, ..Summary::default() });
}

#[test]
fn a_model_that_fails_stops_the_run_and_loses_nothing() {
    let env = TestEnv::new();
    for seed in 0..12 {
        env.photo(&format!("{seed:02}.png"), RED, seed);
    }
    let run = |mut vlm: FakeVlm| {
        let mut writer = IndexWriter::open(&env.index(), vlm.spec()).unwrap();
        let cancel = AtomicBool::new(false);
        let result = indexer::run(&mut writer, &mut vlm, &env.request(), &mut (), &cancel);
        (result, vlm.calls())
    };
    let (result, calls) = run(FakeVlm::default().failing_after_embedding(8));
    assert!(matches!(result, Err(IndexError::Model { .. })), "{result:?}");
    assert_eq!(env.contents().len(), calls.embedded);
    assert!((1..=8).contains(&calls.embedded), "{calls:?}");

    let vlm = FakeVlm::default().with_batches(4, 4).failing_after_captioning(6);
    let (result, calls) = run(vlm);
    assert!(matches!(result, Err(IndexError::Model { .. })), "{result:?}");
    assert_eq!(calls.captioned, 4);
    let counts = env.reader().counts();
    assert_eq!((counts.photos, counts.captioned), (12, 4));

    let (result, calls) = run(FakeVlm::default());
    assert_eq!(result.unwrap().captioned, 8);
    assert_eq!((calls.embedded, calls.captioned), (0, 8));
}

#[test]
fn captions_can_be_left_for_another_run() {
    let env = TestEnv::new();
    env.photo("a.png", RED, 1);
    let request = IndexRequest { no_caption: true, ..env.request() };
    let (summary, calls) = env.run_with(&request, FakeVlm::default(), &mut ());
    assert_eq!((summary.added, summary.captioned, calls.captioned), (1, 0, 0));
    assert_eq!(env.contents()[Path::new("a.png")].caption, None);
    let (summary, calls) = env.run();
    assert_eq!((summary.captioned, calls.embedded), (1, 0));
}

#[test]
fn real_photos_of_every_format_are_indexed() {
    let env = TestEnv::new();
    for folder in ["photos", "exif", "formats"] {
        env.copy_fixture(folder);
    }
    let (summary, _) = env.run();
    let unsupported: u64 = summary.unsupported.values().sum();
    assert_eq!((summary.failed, unsupported), (0, 4), "{:?}", env.failures());
    assert_eq!(summary.added, 16 + 9 + 8);
    let contents = env.contents();
    let barn = &contents[Path::new("exif/barn_orient6.jpg")].metadata;
    assert_eq!((barn.width, barn.height), (512, 768));
    let paris = &contents[Path::new("exif/chelsea_paris.jpg")].metadata;
    assert_eq!(paris.gps, Some((48.858_222, 2.2945)));
    assert_eq!(paris.camera.as_deref(), Some("TestCam T1"));
    // Without an extension it was not found; named as a root, it is.
    let request = IndexRequest::new([env.path("formats/coffee_noext")]);
    assert_eq!(env.run_with(&request, FakeVlm::default(), &mut ()).0.added, 1);
    let record = env.record("formats/coffee_noext").unwrap();
    assert!(matches!(record.state, FileState::Indexed { captioned: true, .. }));
}

/// What may happen to a library between two runs.
#[derive(Debug, Clone)]
enum Change {
    Write { name: usize, content: u32 },
    Touch { name: usize },
    Delete { name: usize },
    Move { from: usize, to: usize },
    Break { name: usize },
    Run { stop_after: Option<u64> },
}

fn change() -> impl Strategy<Value = Change> {
    let name = 0_usize..6;
    prop_oneof![
        3 => (name.clone(), 0_u32..8).prop_map(|(name, content)| Change::Write { name, content }),
        1 => name.clone().prop_map(|name| Change::Touch { name }),
        1 => name.clone().prop_map(|name| Change::Delete { name }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Change::Move { from, to }),
        1 => name.prop_map(|name| Change::Break { name }),
        2 => proptest::option::of(0_u64..3).prop_map(|stop_after| Change::Run { stop_after }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_the_index_holds_what_the_folder_holds(
        history in proptest::collection::vec(change(), 1..25)
    ) {
        const COLOURS: [[u8; 3]; 4] = [RED, GREEN, BLUE, YELLOW];
        let env = TestEnv::new();
        let mut model = FakeVlm::default().with_batches(2, 3);
        let mut writer = IndexWriter::open(&env.index(), model.spec()).unwrap();
        let path = |name: usize| env.path(&format!("{}/{name}.png", name % 2));
        for folder in ["0", "1"] {
            fs::create_dir(env.path(folder)).unwrap();
        }
        // A file that keeps every folder from being empty.
        env.photo("always.png", RED, 999);
        let mut clock = 0;
        let mut run = |stop_after| {
            let cancel = AtomicBool::new(false);
            let mut counting = Counting {
                cancel: Option::map(stop_after, |after| (&cancel, Phase::Embed, after)),
                ..Counting::default()
            };
            indexer::run(&mut writer, &mut model, &env.request(), &mut counting, &cancel).unwrap()
        };
        for change in history {
            clock += 1;
            match change {
                Change::Write { name, content } => {
                    fs::write(path(name), png(COLOURS[content as usize % 4], content)).unwrap();
                    set_time(&path(name), clock);
                }
                Change::Break { name } => {
                    fs::write(path(name), b"broken").unwrap();
                    set_time(&path(name), clock);
                }
                Change::Touch { name } if path(name).exists() => set_time(&path(name), clock),
                Change::Delete { name } if path(name).exists() => {
                    fs::remove_file(path(name)).unwrap();
                }
                Change::Move { from, to } if path(from).exists() => {
                    fs::rename(path(from), path(to)).unwrap();
                }
                Change::Run { stop_after } => {
                    run(stop_after);
                }
                Change::Touch { .. } | Change::Delete { .. } | Change::Move { .. } => {}
            }
        }
        let last = run(None);
        prop_assert!(!last.interrupted);
        let again = run(None);
        let quiet = Summary {
            unchanged: again.unchanged,
            still_failed: again.still_failed,
            ..Summary::default()
        };
        prop_assert_eq!(again, quiet, "the run before left something undone");

        let (contents, failures) = (env.contents(), env.failures());
        let mut files = 0;
        for name in 0..6 {
            let Ok(bytes) = fs::read(path(name)) else { continue };
            files += 1;
            let relative = path(name).strip_prefix(env.photos()).unwrap().to_owned();
            if bytes == b"broken" {
                prop_assert_eq!(&failures[&relative], "is not a photo: text");
                continue;
            }
            let seen = &contents[&relative];
            prop_assert_eq!(seen.hash, ContentHash::of(&bytes));
            let decoded = tinyfind::decode::decode_file(&path(name), Some(32)).unwrap();
            let mut fresh = FakeVlm::default();
            let features = fresh.embed_images(&[decoded.image]).unwrap().remove(0);
            let caption = fresh.caption(&[&features.visual_tokens]).unwrap().remove(0);
            prop_assert_eq!(seen.caption.as_deref(), Some(caption.as_str()));
        }
        prop_assert_eq!(contents.len() + failures.len(), files + 1);
    }
}
