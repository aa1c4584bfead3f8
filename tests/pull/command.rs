//! `tinyfind model`, as a person or a script calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tinyfind::model::bundle::{Bundle, WeightType};
use tinyfind::model::config::{
    Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig,
};
use tinyfind::model::import::random::{Tokenizers, write_random};

/// A user with an empty home, and none of the variables of whoever runs the tests.
pub(crate) struct User {
    pub(crate) home: tempfile::TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.home.path().join("data/tinyfind/models")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfind"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let theirs = ["HF_", "HUGGING", "TINYFIND_", "XDG_", "RUST_LOG"];
            if theirs.iter().any(|prefix| name.starts_with(prefix))
                || name.to_ascii_lowercase().ends_with("_proxy")
            {
                command.env_remove(name);
            }
        }
        let folder = |name: &str| self.home.path().join(name);
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("XDG_DATA_HOME", folder("data"))
            .env("XDG_CACHE_HOME", folder("cache"))
            .env("XDG_STATE_HOME", folder("state"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn small_config(stage: u8) -> Config {
    let qformer = QFormerConfig {
        hidden: 32,
        layers: 2,
        heads: 2,
        intermediate: 64,
        ..QFormerConfig::blip2(224)
    };
    let vision = VisionConfig { width: 48, depth: 2, heads: 3, mlp: 209, ..VisionConfig::vit_g() };
    let language = LanguageConfig {
        projection_mid: 72,
        vocabulary: 448,
        hidden: 96,
        layers: 2,
        heads: 3,
        intermediate: 200,
        rotary: 12,
        ..LanguageConfig::phi2()
    };
    let retrieval = RetrievalConfig {
        qformer: qformer.clone(),
        vocabulary: 102,
        positions: 64,
        projection: 24,
        max_text: 32,
    };
    Config {
        vision: Some(vision),
        captioner: Some(qformer),
        retrieval: Some(retrieval),
        language: Some(language),
        stage,
    }
}

fn write_bundle(path: &Path, stage: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let tokenizers = Tokenizers { phi: Some("{}"), bert: Some("[PAD]\n[DEC]\n") };
    write_random(&small_config(stage), WeightType::Q4K, 1, path, tokenizers).unwrap();
}

#[test]
fn without_an_installed_model_the_built_in_one_is_there() {
    let user = User::new();
    let list = user.run(&["model", "list"]);
    assert_eq!(list.code, Some(0), "{list:?}");
    assert!(list.stdout.starts_with("nano ") && list.stdout.contains("(built in, default)"));
    assert!(list.stderr.contains("tinyfind model pull"), "{list:?}");
    let info = user.run(&["model", "info"]);
    assert_eq!(info.code, Some(0), "{info:?}");
    assert!(info.stdout.starts_with("nano\n"), "{info:?}");
    assert_eq!(user.run(&["model", "verify", "nano"]).code, Some(0));
}

#[test]
fn list_tells_of_each_model_and_marks_the_default() {
    let user = User::new();
    write_bundle(&user.models().join("tinygpt-v-stage4.gguf"), 4);
    write_bundle(&user.models().join("mine.gguf"), 3);
    let list = user.run(&["model", "list", "--json"]);
    assert_eq!(list.code, Some(0), "{list:?}");
    let lines = list.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let facts: Vec<_> = lines
        .iter()
        .map(|line| (line["name"].as_str().unwrap(), &line["stage"], &line["default"]))
        .collect();
    assert_eq!(
        facts,
        [
            ("mine", &3.into(), &false.into()),
            ("tinygpt-v-stage4", &4.into(), &true.into()),
            ("nano", &4.into(), &false.into())
        ]
    );
    assert_eq!((&lines[2]["built_in"], &lines[2]["path"]), (&true.into(), &().into()));
    assert_eq!(lines[0]["dtype"], "q8_0, q4k");
    let parts = serde_json::json!(["vit", "captioner", "retrieval", "language"]);
    assert_eq!(lines[0]["parts"], parts);
    let text = user.run(&["model", "list"]).stdout;
    assert!(text.lines().nth(1).unwrap().contains("(default)"), "{text}");
}

#[test]
fn list_names_a_file_that_is_no_bundle_and_lists_the_rest() {
    let user = User::new();
    write_bundle(&user.models().join("good.gguf"), 3);
    std::fs::write(user.models().join("bad.gguf"), "GGUF? no").unwrap();
    let list = user.run(&["model", "list"]);
    assert_eq!(list.code, Some(2));
    assert!(list.stdout.starts_with("good"), "{list:?}");
    assert!(list.stderr.contains("bad.gguf"), "{list:?}");
}

#[test]
fn info_tells_what_a_bundle_holds() {
    let user = User::new();
    let path = user.home.path().join("b.gguf");
    write_bundle(&path, 3);
    let path = path.to_str().unwrap();
    let info = user.run(&["model", "info", path, "--json", "--tensors"]);
    assert_eq!(info.code, Some(0), "{info:?}");
    let object = info.json();
    let bundle = Bundle::open(Path::new(path)).unwrap();
    assert_eq!(object["fingerprint"], bundle.fingerprint());
    let tensors = object["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), bundle.tensors().count());
    assert_eq!(tensors[0]["name"], bundle.tensors().next().unwrap().name);
    let config: Config = serde_json::from_value(object["config"].clone()).unwrap();
    assert_eq!(&config, bundle.config());
    // 2 layers of a Phi with width 96, by hand: tables, projections, attention, MLP, norms, head.
    let layer = 3 * 96 * 97 + 96 * 97 + 200 * 97 + 96 * 201 + 2 * 96 + 96 + 4 * 32;
    let language = 448 * 96 + 72 * 33 + 96 * 73 + 2 * layer + 2 * 96 + 448 * 97;
    assert_eq!(object["parts"][3]["parameters"], language);

    let text = user.run(&["model", "info", path]).stdout;
    assert!(text.contains("EVA ViT, 2 blocks of width 48"), "{text}");
    assert!(text.contains(bundle.fingerprint()), "{text}");
    // The global flag names it too.
    assert_eq!(user.run(&["--model", path, "model", "info"]).stdout, text);
}

#[test]
fn verify_accepts_a_sound_bundle_and_names_the_tensor_of_a_flipped_bit() {
    let user = User::new();
    let path = user.home.path().join("b.gguf");
    write_bundle(&path, 3);
    let name = path.to_str().unwrap();
    let sound = user.run(&["model", "verify", name]);
    assert_eq!((sound.code, sound.stdout.as_str()), (Some(0), ""), "{sound:?}");

    let bundle = Bundle::open(&path).unwrap();
    let tensor = bundle.tensors().nth(20).unwrap().clone();
    drop(bundle);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[tensor.offset as usize] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let broken = user.run(&["model", "verify", name]);
    assert_eq!(broken.code, Some(2));
    assert_eq!(broken.stdout.lines().count(), 1, "{broken:?}");
    assert!(broken.stdout.starts_with(&format!("{}: ", tensor.name)), "{broken:?}");
}
