//! The whole of `tinyfind model pull`: from files on two hosts to an installed bundle.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::command::{Run, User};
use super::server::{Fault, Servers, sha256};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens")
}

/// Hosts with the files of the golden cases a3 and b3, which share a ViT, and the manifest of
/// them, with their exact sizes and the beginnings of their hashes, as those of the published
/// files are known.
fn published() -> (Servers, serde_json::Value) {
    let (servers, a3, b3) = (Servers::start(), goldens().join("a3"), goldens().join("b3"));
    let mut files = Vec::new();
    let mut hub = |role: &str, kind: &str, repo: &str, path: &str, file: &Path, large: bool| {
        let bytes = fs::read(file).unwrap();
        let folder = if kind == "space" { format!("spaces/{repo}") } else { repo.to_owned() };
        servers.put(&folder, path, &bytes, large);
        let mut entry = json!({
            "role": role,
            "from": {"hub": {"kind": kind, "repo": repo}},
            "path": path,
            "size": bytes.len(),
        });
        if large {
            entry["sha256"] = sha256(&bytes)[..12].into();
        }
        files.push(entry);
    };
    for (file, large) in
        [("config.json", false), ("tokenizer.json", false), ("pytorch_model.bin", true)]
    {
        let (path, local) = (format!("phi-2/{file}"), a3.join("phi-2").join(file));
        hub("phi", "space", "demo/space", &path, &local, large);
    }
    let checkpoint = "TinyGPT-V_for_Stage3.pth";
    hub("checkpoint", "model", "me/tiny", checkpoint, &a3.join(checkpoint), true);
    let vocabulary = b3.join("bert/vocab.txt");
    hub("retrieval_vocabulary", "model", "bert", "vocab.txt", &vocabulary, false);
    for (role, file, folder) in [
        ("vit", "eva_vit_g.pth", &a3),
        ("qformer", "blip2_pretrained_flant5xxl.pth", &a3),
        ("retrieval", "blip2_pretrained.pth", &b3),
    ] {
        let bytes = fs::read(folder.join(file)).unwrap();
        servers.put_in_bucket(file, &bytes, true);
        files.push(json!({"role": role, "from": "lavis", "path": file, "size": bytes.len()}));
    }
    let meta = fs::read_to_string(a3.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let mut config = meta["dims"].clone();
    // The one size of b3 that a3, which has no retrieval side, does not name.
    config["proj"] = 24.into();
    let manifest = json!({"name": "tiny-a3", "stage": 3, "files": files, "config": config});
    (servers, manifest)
}

struct World {
    servers: Servers,
    user: User,
    manifest: PathBuf,
}

impl World {
    fn new() -> Self {
        let (servers, manifest) = published();
        let user = User::new();
        let path = user.home.path().join("manifest.json");
        fs::write(&path, manifest.to_string()).unwrap();
        Self { servers, user, manifest: path }
    }

    fn pull(&self, more: &[&str]) -> Run {
        let manifest = self.manifest.to_str().unwrap();
        let arguments = [&["model", "pull", "--manifest", manifest], more].concat();
        let mut command = self.user.command(&arguments);
        command
            .env("HF_ENDPOINT", self.servers.endpoint())
            .env("TINYFIND_LAVIS_ENDPOINT", self.servers.lavis());
        Run::of(command.output().unwrap())
    }
}

#[test]
fn pull_ends_with_an_installed_bundle_that_verify_accepts() {
    let world = World::new();
    // On the way a connection breaks and a host is busy.
    world.servers.fail("spaces/demo/space/phi-2/pytorch_model.bin", [Fault::CutAfter(300_000)]);
    world.servers.fail("eva_vit_g.pth", [Fault::Status(503, "retry-after: 0\r\n")]);
    let pulled = world.pull(&["--dtype", "f32"]);
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    assert!(pulled.stderr.contains("downloads stay in"), "{pulled:?}");
    assert!(world.user.models().join("tiny-a3.gguf").is_file());

    let verified = world.user.run(&["model", "verify", "tiny-a3"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let info = world.user.run(&["model", "info", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!((info["name"].as_str(), info["stage"].as_u64()), (Some("tiny-a3"), Some(3)));
    let parts = info["parts"].as_array().unwrap().iter().map(|part| part["name"].clone());
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts, ["vit", "captioner", "retrieval", "language"]);
    // Every published file is named with its size.
    let vit = fs::metadata(goldens().join("a3/eva_vit_g.pth")).unwrap().len();
    let sources = info["sources"].as_array().unwrap();
    assert!(sources.iter().any(|s| s["file"] == "eva_vit_g.pth" && s["size"] == vit), "{info}");
}

#[test]
fn a_pulled_bundle_equals_one_imported_from_the_same_files() {
    let world = World::new();
    assert_eq!(world.pull(&["--dtype", "q8_0"]).code, Some(0));
    let (a3, b3) = (goldens().join("a3"), goldens().join("b3"));
    let dims = world.user.home.path().join("dims.json");
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&world.manifest).unwrap()).unwrap();
    fs::write(&dims, manifest["config"].to_string()).unwrap();
    let bundle = world.user.home.path().join("imported.gguf");
    let mut command = world.user.command(&["model", "import", "--stage", "3", "--dtype", "q8_0"]);
    command
        .arg("--vit")
        .arg(a3.join("eva_vit_g.pth"))
        .arg("--qformer")
        .arg(a3.join("blip2_pretrained_flant5xxl.pth"))
        .arg("--phi")
        .arg(a3.join("phi-2"))
        .arg("--checkpoint")
        .arg(a3.join("TinyGPT-V_for_Stage3.pth"))
        .arg("--retrieval")
        .arg(b3.join("blip2_pretrained.pth"))
        .arg("--retrieval-vocab")
        .arg(b3.join("bert/vocab.txt"))
        .arg("--config")
        .arg(dims)
        .arg("-o")
        .arg(&bundle);
    let imported = Run::of(command.output().unwrap());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let fingerprint = |model: &str| {
        let info = world.user.run(&["model", "info", model, "--json"]);
        let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
        info["fingerprint"].as_str().unwrap().to_owned()
    };
    assert_eq!(fingerprint("tiny-a3"), fingerprint(bundle.to_str().unwrap()));
}

#[test]
fn a_second_pull_is_content_with_the_installed_model_and_a_forced_one_with_the_downloads() {
    let world = World::new();
    assert_eq!(world.pull(&[]).code, Some(0));
    world.servers.take_seen();
    let again = world.pull(&[]);
    assert_eq!(again.code, Some(0));
    assert!(again.stderr.contains("installed already"), "{again:?}");
    assert!(world.servers.take_seen().is_empty());

    let forced = world.pull(&["--force"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(world.servers.gets().is_empty(), "{:?}", world.servers.gets());
}

#[test]
fn downloads_go_where_asked_once_the_model_is_installed() {
    let world = World::new();
    let pulled = world.pull(&["--remove-downloads", "--name", "other"]);
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    assert!(world.user.models().join("other.gguf").is_file());
    let cache = world.user.home.path().join("cache");
    let large = walkdir::WalkDir::new(cache)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file() && entry.metadata().unwrap().len() > 1_000);
    let large: Vec<_> = large.map(walkdir::DirEntry::into_path).collect();
    assert!(large.is_empty(), "{large:?}");
}

#[test]
fn a_pull_that_fails_installs_nothing_and_says_why() {
    let world = World::new();
    world.servers.fail("me/tiny/TinyGPT-V_for_Stage3.pth", [Fault::WrongBytes]);
    let pulled = world.pull(&[]);
    assert_eq!(pulled.code, Some(2));
    assert!(pulled.stderr.contains("TinyGPT-V_for_Stage3.pth"), "{pulled:?}");
    assert!(pulled.stderr.contains("SHA-256"), "{pulled:?}");
    assert!(!world.user.models().join("tiny-a3.gguf").exists());
    assert_eq!(world.pull(&[]).code, Some(0));
}
