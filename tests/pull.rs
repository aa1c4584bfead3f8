//! Downloads against servers on this machine that play the hub, its host of large files, and
//! LAVIS's bucket, broken transfers included.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "pull/command.rs"]
mod command;
#[path = "pull/server.rs"]
mod server;
#[path = "pull/whole.rs"]
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use server::{COMMIT, Fault, Host, Servers, sha256};
use tinyfind::model::hub::{
    Downloader, HubError, LocalFiles, Origin, Recipe, RemoteFile, RepoKind, Retry, Role, Settings,
    Size, Step, Token,
};

/// Long enough to be cut in several places.
fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// Servers, and a user with an empty home.
struct World {
    servers: Servers,
    home: tempfile::TempDir,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let (servers, home) = (Servers::start(), tempfile::tempdir().unwrap());
        let retry = Retry {
            attempts: 4,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(20),
            silence: Duration::from_secs(5),
        };
        let settings = Settings {
            endpoint: servers.endpoint(),
            lavis: servers.lavis(),
            hub_cache: home.path().join("hub"),
            downloads: home.path().join("downloads"),
            token: None,
            offline: false,
            retry,
        };
        Self { servers, home, settings }
    }

    fn pull(&self, recipe: &Recipe) -> Result<LocalFiles, HubError> {
        Downloader::new(self.settings.clone()).pull(recipe, &mut |_| {})
    }

    /// Files of the whole home whose bytes are somewhere under way.
    fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in walkdir::WalkDir::new(self.home.path()) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|extension| extension == "incomplete") {
                found.push(path);
            }
        }
        found
    }
}

fn hub_file(repo: &str, path: &str) -> RemoteFile {
    let (kind, repo) = match repo.strip_prefix("spaces/") {
        Some(repo) => (RepoKind::Space, repo),
        None => (RepoKind::Model, repo),
    };
    let from = Origin::Hub { kind, repo: repo.to_owned(), revision: "main".to_owned() };
    RemoteFile { role: Role::Checkpoint, from, path: path.to_owned(), size: None, sha256: None }
}

fn bucket_file(path: &str) -> RemoteFile {
    RemoteFile { role: Role::Vit, from: Origin::Lavis, ..hub_file("x/y", path) }
}

fn recipe(files: impl IntoIterator<Item = RemoteFile>) -> Recipe {
    let files = files.into_iter().collect();
    Recipe { name: "test".to_owned(), stage: 3, files, config: None }
}

/// A world with one large file, its recipe, its bytes and its hash.
fn large(length: usize) -> (World, Recipe, Vec<u8>, String) {
    let world = World::new();
    let content = bytes(1, length);
    let tag = world.servers.put("me/mine", "big.pth", &content, true);
    (world, recipe([hub_file("me/mine", "big.pth")]), content, tag)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn files_of_the_hub_lie_where_its_other_tools_look_for_them() {
    let world = World::new();
    let (big, small) = (bytes(2, 70_000), b"{\"small\": true}".to_vec());
    let big_tag = world.servers.put("spaces/me/demo", "phi-2/weights.bin", &big, true);
    let small_tag = world.servers.put("spaces/me/demo", "phi-2/config.json", &small, false);
    let files = ["phi-2/weights.bin", "phi-2/config.json"]
        .map(|path| RemoteFile { role: Role::Phi, ..hub_file("spaces/me/demo", path) });
    let local = world.pull(&recipe(files)).unwrap();

    let repo = world.settings.hub_cache.join("spaces--me--demo");
    let snapshot = repo.join("snapshots").join(COMMIT).join("phi-2");
    assert_eq!(local.input(Role::Phi).unwrap(), snapshot);
    assert_eq!(read(&snapshot.join("weights.bin")), big);
    assert_eq!(read(&snapshot.join("config.json")), small);
    assert_eq!(read(&repo.join("blobs").join(big_tag)), big);
    assert_eq!(read(&repo.join("blobs").join(small_tag)), small);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(local.fetched_in_bytes(), (big.len() + small.len()) as u64);
    assert!(world.leftovers().is_empty());
}

#[test]
fn a_second_pull_downloads_nothing() {
    let (world, mut recipe, big, _) = large(50_000);
    world.servers.put_in_bucket("vit.pth", &bytes(3, 20_000), true);
    recipe.files.push(bucket_file("vit.pth"));
    world.pull(&recipe).unwrap();
    world.servers.take_seen();

    let local = world.pull(&recipe).unwrap();
    assert!(world.servers.gets().is_empty(), "{:?}", world.servers.gets());
    assert_eq!(local.fetched_in_bytes(), 0);
    assert_eq!(local.size_in_bytes(), 70_000);
    assert_eq!(read(&local.input(Role::Checkpoint).unwrap()), big);
}

#[test]
fn a_cut_connection_is_gone_on_from_where_it_broke() {
    let (world, recipe, content, _) = large(100_000);
    world.servers.fail("me/mine/big.pth", [Fault::CutAfter(30_000), Fault::CutAfter(25_000)]);
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
    let starts = world.servers.gets().into_iter().filter(|seen| seen.host == Host::Cdn);
    let starts: Vec<_> = starts.map(|seen| seen.from).collect();
    assert_eq!(starts, [None, Some(30_000), Some(55_000)]);
}

#[test]
fn a_later_run_goes_on_from_what_an_earlier_one_left() {
    let (mut world, recipe, content, _) = large(100_000);
    world.settings.retry.attempts = 1;
    world.servers.fail("me/mine/big.pth", [Fault::CutAfter(40_000)]);
    let broken = world.pull(&recipe).unwrap_err();
    assert!(matches!(broken, HubError::Unreachable { .. }), "{broken}");
    assert_eq!(world.leftovers().len(), 1);

    world.servers.take_seen();
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
    assert!(world.servers.gets().iter().all(|seen| seen.from == Some(40_000)));
    assert!(world.leftovers().is_empty());
}

#[test]
fn the_bucket_too_is_gone_on_from_where_it_broke() {
    let world = World::new();
    let content = bytes(4, 90_000);
    world.servers.put_in_bucket("vit.pth", &content, true);
    world.servers.fail("vit.pth", [Fault::CutAfter(10_000)]);
    let local = world.pull(&recipe([bucket_file("vit.pth")])).unwrap();
    assert_eq!(local.files[0].path, world.settings.downloads.join("blip2/vit.pth"));
    assert_eq!(read(&local.files[0].path), content);
    assert_eq!(world.servers.gets()[1].from, Some(10_000));
}

#[test]
fn a_server_that_cannot_go_on_sends_the_file_from_its_beginning() {
    let (world, recipe, content, _) = large(100_000);
    world.servers.fail("me/mine/big.pth", [Fault::CutAfter(60_000), Fault::IgnoreRange]);
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn another_part_than_asked_for_is_refused() {
    let (world, recipe, ..) = large(100_000);
    world.servers.fail("me/mine/big.pth", [Fault::CutAfter(60_000), Fault::WrongRange]);
    let wrong = world.pull(&recipe).unwrap_err();
    assert!(matches!(wrong, HubError::Answer { .. }), "{wrong}");
}

#[test]
fn wrong_bytes_are_an_error_thrown_away_and_fetched_again_by_the_next_run() {
    let (world, recipe, content, tag) = large(40_000);
    world.servers.fail("me/mine/big.pth", [Fault::WrongBytes]);
    let wrong = world.pull(&recipe).unwrap_err();
    let text = wrong.to_string();
    assert!(matches!(wrong, HubError::WrongHash { .. }), "{text}");
    assert!(text.contains("big.pth") && text.contains(&tag), "{text}");
    let repo = world.settings.hub_cache.join("models--me--mine");
    assert!(!repo.join("blobs").join(&tag).exists());
    assert!(!repo.join("snapshots").exists());
    assert!(world.leftovers().is_empty());

    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn wrong_bytes_of_a_small_file_and_of_the_bucket_are_seen_too() {
    let world = World::new();
    world.servers.put("me/mine", "vocab.txt", b"one\ntwo\n", false);
    world.servers.put_in_bucket("vit.pth", &bytes(5, 9_000), true);
    world.servers.fail("me/mine/vocab.txt", [Fault::WrongBytes]);
    world.servers.fail("vit.pth", [Fault::WrongBytes]);
    for file in [hub_file("me/mine", "vocab.txt"), bucket_file("vit.pth")] {
        let wrong = world.pull(&recipe([file.clone()])).unwrap_err();
        assert!(matches!(wrong, HubError::WrongHash { .. }), "{wrong}");
        world.pull(&recipe([file])).unwrap();
    }
}

#[test]
fn damaged_leftovers_are_started_again_without_help() {
    let (world, recipe, content, tag) = large(40_000);
    let blobs = world.settings.hub_cache.join("models--me--mine/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{tag}.incomplete")), bytes(99, 15_000)).unwrap();
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn leftovers_longer_than_the_file_are_started_again() {
    let (world, recipe, content, tag) = large(40_000);
    let blobs = world.settings.hub_cache.join("models--me--mine/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{tag}.incomplete")), bytes(99, 50_000)).unwrap();
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn a_busy_host_is_asked_again() {
    let (world, recipe, content, _) = large(10_000);
    let busy = || Fault::Status(503, "retry-after: 0\r\n");
    world.servers.fail_head("me/mine/big.pth", [busy(), Fault::Status(429, "")]);
    world.servers.fail("me/mine/big.pth", [busy(), Fault::Status(500, "")]);
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn a_host_that_stays_busy_is_given_up_after_the_attempts_allowed() {
    let (world, recipe, ..) = large(10_000);
    let busy = || Fault::Status(503, "");
    world.servers.fail("me/mine/big.pth", std::iter::repeat_with(busy).take(10));
    let error = world.pull(&recipe).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { attempts: 4, .. }), "{error}");
    let asked = world.servers.gets().into_iter().filter(|seen| seen.host == Host::Cdn);
    assert_eq!(asked.count(), 4);
}

#[test]
fn a_host_that_falls_silent_is_asked_again() {
    let (mut world, recipe, content, _) = large(10_000);
    world.settings.retry.silence = Duration::from_millis(150);
    let silence = Fault::Silence(Duration::from_secs(2));
    world.servers.fail("me/mine/big.pth", [silence]);
    let local = world.pull(&recipe).unwrap();
    assert_eq!(read(&local.files[0].path), content);
}

#[test]
fn a_file_of_another_size_than_promised_is_refused() {
    let (world, recipe, content, _) = large(10_000);
    world.servers.fail("me/mine/big.pth", [Fault::Longer(5)]);
    let wrong = world.pull(&recipe).unwrap_err();
    assert!(matches!(wrong, HubError::WrongSize { found: 10_005, .. }), "{wrong}");
    assert_eq!(read(&world.pull(&recipe).unwrap().files[0].path), content);
}

#[test]
fn a_file_of_another_size_or_hash_than_published_is_refused_before_it_is_fetched() {
    let (world, recipe, content, _) = large(10_000);
    let with = |size, sha256: &str| {
        let mut pinned = recipe.clone();
        pinned.files[0].size = size;
        pinned.files[0].sha256 = Some(sha256.to_owned());
        world.pull(&pinned)
    };
    let right = &sha256(&content)[..12];
    let wrong = with(Some(Size::Exact(9_999)), right).unwrap_err();
    assert!(matches!(wrong, HubError::WrongSize { found: 10_000, .. }), "{wrong}");
    let wrong = with(None, "039628734f71").unwrap_err();
    assert!(matches!(wrong, HubError::WrongHash { .. }), "{wrong}");
    assert!(world.servers.gets().is_empty());
    let about = Size::Between { at_least: 9_000, at_most: 11_000 };
    assert!(with(Some(about), right).is_ok());
}

#[test]
fn a_pinned_hash_is_checked_where_the_host_promises_none() {
    let world = World::new();
    let content = bytes(6, 5_000);
    world.servers.put_in_bucket("vit.pth", &content, false);
    let pinned = |digits: &str| {
        world.pull(&recipe([RemoteFile {
            sha256: Some(digits.to_owned()),
            ..bucket_file("vit.pth")
        }]))
    };
    let wrong = pinned("039628734f71").unwrap_err();
    assert!(matches!(wrong, HubError::WrongHash { .. }), "{wrong}");
    assert!(pinned(&sha256(&content)[..12]).is_ok());
}

#[test]
fn a_missing_file_is_an_error_with_its_address_before_anything_is_fetched() {
    let (world, mut recipe, ..) = large(10_000);
    recipe.files.push(RemoteFile { role: Role::Vit, ..hub_file("me/mine", "gone.pth") });
    let error = world.pull(&recipe).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HubError::NotFound { .. }), "{text}");
    assert!(text.contains("/me/mine/resolve/") && text.contains("gone.pth"), "{text}");
    assert!(text.contains("no such entry"), "{text}");
    assert!(world.servers.gets().is_empty());
}

#[test]
fn a_closed_repository_opens_to_the_token() {
    let (mut world, recipe, content, _) = large(10_000);
    world.servers.require_token("hf_secret");
    let error = world.pull(&recipe).unwrap_err().to_string();
    assert!(error.contains("set HF_TOKEN"), "{error}");

    world.settings.token = Token::new("hf_other");
    let error = world.pull(&recipe).unwrap_err().to_string();
    assert!(error.contains("check HF_TOKEN") && !error.contains("hf_other"), "{error}");

    world.settings.token = Token::new("hf_secret");
    assert_eq!(read(&world.pull(&recipe).unwrap().files[0].path), content);
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let (mut world, mut recipe, ..) = large(10_000);
    world.servers.put_in_bucket("vit.pth", &bytes(7, 1_000), true);
    recipe.files.push(bucket_file("vit.pth"));
    world.settings.token = Token::new("hf_secret");
    world.pull(&recipe).unwrap();
    let seen = world.servers.take_seen();
    for host in [Host::Hub, Host::Cdn, Host::Bucket] {
        assert!(seen.iter().any(|seen| seen.host == host), "{host:?} was not asked");
    }
    for request in seen {
        let sent = request.authorization.is_some();
        assert_eq!(sent, request.host == Host::Hub, "{request:?}");
    }
}

#[test]
fn offline_nothing_is_asked_and_what_is_here_is_used() {
    let (mut world, mut recipe, ..) = large(10_000);
    world.servers.put_in_bucket("vit.pth", &bytes(8, 1_000), true);
    recipe.files.push(bucket_file("vit.pth"));
    world.settings.offline = true;
    let error = world.pull(&recipe).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(error.to_string().contains("big.pth"), "{error}");

    world.settings.offline = false;
    let online = world.pull(&recipe).unwrap();
    world.servers.take_seen();
    world.settings.offline = true;
    let offline = world.pull(&recipe).unwrap();
    let paths = |local: &LocalFiles| -> Vec<PathBuf> {
        local.files.iter().map(|file| file.path.clone()).collect()
    };
    assert_eq!(paths(&offline), paths(&online));
    assert!(world.servers.take_seen().is_empty());
}

#[test]
fn offline_a_file_that_is_not_the_published_one_is_refused() {
    let (mut world, mut recipe, ..) = large(10_000);
    world.pull(&recipe).unwrap();
    world.settings.offline = true;
    recipe.files[0].sha256 = Some("039628734f71".to_owned());
    let wrong = world.pull(&recipe).unwrap_err();
    assert!(matches!(wrong, HubError::WrongHash { .. }), "{wrong}");
    recipe.files[0].size = Some(Size::Exact(10_001));
    let wrong = world.pull(&recipe).unwrap_err();
    assert!(matches!(wrong, HubError::WrongSize { found: 10_000, .. }), "{wrong}");
}

#[test]
fn what_is_here_is_used_where_no_host_answers() {
    let (mut world, mut recipe, ..) = large(10_000);
    world.servers.put_in_bucket("vit.pth", &bytes(9, 1_000), true);
    recipe.files.push(bucket_file("vit.pth"));
    world.pull(&recipe).unwrap();

    // A port that was just given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    world.settings.endpoint.clone_from(&nobody);
    world.settings.lavis = nobody;
    let mut notes = Vec::new();
    let mut listen = |step: Step<'_>| {
        if let Step::Note(text) = step {
            notes.push(text.to_owned());
        }
    };
    let local = Downloader::new(world.settings.clone()).pull(&recipe, &mut listen).unwrap();
    assert_eq!(local.fetched_in_bytes(), 0);
    assert!(notes.iter().any(|note| note.contains("the hub does not answer")), "{notes:?}");

    recipe.files.push(RemoteFile { role: Role::Phi, ..hub_file("me/mine", "new.pth") });
    let error = world.pull(&recipe).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
}

#[test]
fn a_blob_that_another_tool_fetched_is_linked_and_not_fetched() {
    let (world, recipe, content, tag) = large(10_000);
    let blobs = world.settings.hub_cache.join("models--me--mine/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&tag), &content).unwrap();
    let local = world.pull(&recipe).unwrap();
    assert!(world.servers.gets().is_empty());
    assert_eq!(read(&local.files[0].path), content);
    assert!(!local.files[0].fetched);
}

#[test]
fn a_file_put_into_the_downloads_by_hand_is_checked_and_used() {
    let world = World::new();
    let content = bytes(10, 8_000);
    world.servers.put_in_bucket("vit.pth", &content, true);
    let path = world.settings.downloads.join("blip2/vit.pth");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let recipe = recipe([bucket_file("vit.pth")]);
    fs::write(&path, &content).unwrap();
    world.pull(&recipe).unwrap();
    assert!(world.servers.gets().is_empty());

    // Of the right size, but not that file.
    fs::remove_file(path.with_file_name("vit.pth.origin.json")).unwrap();
    fs::write(&path, bytes(11, 8_000)).unwrap();
    world.pull(&recipe).unwrap();
    assert_eq!(read(&path), content);
}

#[test]
fn a_file_that_changed_in_the_bucket_is_fetched_again() {
    let world = World::new();
    world.servers.put_in_bucket("vit.pth", &bytes(12, 8_000), true);
    let recipe = recipe([bucket_file("vit.pth")]);
    world.pull(&recipe).unwrap();
    let new = bytes(13, 8_000);
    world.servers.put_in_bucket("vit.pth", &new, true);
    assert_eq!(read(&world.pull(&recipe).unwrap().files[0].path), new);
}

#[test]
fn all_files_of_a_repository_come_from_one_commit() {
    let world = World::new();
    for file in ["a.json", "b.json"] {
        world.servers.put("me/mine", file, file.as_bytes(), false);
    }
    let recipe = recipe(["a.json", "b.json"].map(|file| hub_file("me/mine", file)));
    // The branch moves while the files are being looked up.
    let other = "f".repeat(40);
    let mut asked = 0;
    let mut move_branch = |step: Step<'_>| {
        if matches!(step, Step::Asking(_)) {
            asked += 1;
            world.servers.set_commit(if asked == 1 { COMMIT } else { &other });
        }
    };
    let pulled = Downloader::new(world.settings.clone()).pull(&recipe, &mut move_branch);
    // The server has forgotten the first commit, so the second file is not there: better none
    // than one of each.
    assert!(matches!(pulled, Err(HubError::NotFound { .. })));
    let heads = world.servers.take_seen();
    assert!(heads.last().unwrap().path.contains(COMMIT), "{heads:?}");
}

#[test]
fn a_hostile_host_cannot_write_outside_the_cache() {
    let (world, recipe, ..) = large(1_000);
    for tag in ["../../evil", "a/b", "", "..", "a b"] {
        world.servers.set_tag("me/mine/big.pth", tag);
        let error = world.pull(&recipe).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{tag}: {error}");
    }
    let (world, recipe, ..) = large(1_000);
    world.servers.set_commit("../../../evil");
    let error = world.pull(&recipe).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
    assert!(!world.settings.hub_cache.exists());
}

#[test]
fn two_pulls_at_once_fetch_a_file_once() {
    let (world, recipe, content, _) = large(300_000);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| world.pull(&recipe))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for result in results {
        assert_eq!(read(&result.unwrap().files[0].path), content);
    }
    let gets = world.servers.gets().into_iter().filter(|seen| seen.host == Host::Cdn);
    assert_eq!(gets.count(), 1);
}

#[test]
fn progress_begins_with_what_is_here_and_ends_at_the_total() {
    let (mut world, mut recipe, ..) = large(100_000);
    world.servers.put_in_bucket("vit.pth", &bytes(14, 30_000), true);
    world.pull(&self::recipe([bucket_file("vit.pth")])).unwrap();
    world.settings.retry.attempts = 1;
    world.servers.fail("me/mine/big.pth", [Fault::CutAfter(20_000)]);
    world.pull(&recipe).unwrap_err();

    recipe.files.push(bucket_file("vit.pth"));
    let (mut begun, mut arrived) = (Vec::new(), Vec::new());
    let mut listen = |step: Step<'_>| match step {
        Step::Begin { total_in_bytes, here_in_bytes } => {
            begun.push((total_in_bytes, here_in_bytes));
        }
        Step::Arrived(bytes) => arrived.push(bytes),
        _ => {}
    };
    Downloader::new(world.settings.clone()).pull(&recipe, &mut listen).unwrap();
    assert_eq!(begun, [(130_000, 50_000)]);
    assert!(arrived.is_sorted(), "{arrived:?}");
    assert_eq!((arrived.first(), arrived.last()), (Some(&50_000), Some(&130_000)));
}

#[test]
fn removing_takes_what_this_pull_brought_and_leaves_the_rest() {
    let (world, mut recipe, ..) = large(10_000);
    let old = world.pull(&recipe).unwrap();
    world.servers.put_in_bucket("vit.pth", &bytes(15, 1_000), true);
    world.servers.put("me/mine", "new.json", b"{}", false);
    recipe.files.push(bucket_file("vit.pth"));
    recipe.files.push(hub_file("me/mine", "new.json"));
    let local = world.pull(&recipe).unwrap();
    local.remove_fetched().unwrap();
    assert!(old.files[0].path.exists());
    let gone: Vec<_> = local.files.iter().map(|file| file.path.exists()).collect();
    assert_eq!(gone, [true, false, false]);
    assert!(!world.settings.downloads.join("blip2/vit.pth.origin.json").exists());
}
