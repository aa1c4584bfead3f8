//! `tinyfind train --stage N` as a person uses it, on a small random model.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "cli/env.rs"]
mod env;
#[allow(unreachable_pub, reason = "shared by test binaries")]
#[path = "common/golden.rs"]
mod golden;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use env::{Env, Ran};
use image::{Rgb, RgbImage};
use serde_json::Value;
use tinyfind::model::bundle::WeightType;

/// What the pictures are said to show.
const CAPTIONS: [(&str, &str); 3] = [
    ("red.png", "a red kite over the sea"),
    ("green.png", "two green frogs sit on a leaf"),
    ("blue.png", "night falls"),
];

/// Enough to learn three captions by heart.
const LEARN: &str = "--validation 0% --rank 8 --lr 0.01 --clip 1 --steps 70";

/// Three pictures and `my.jsonl`, in which five records are bad.
fn album(env: &Env) {
    let size = 40;
    for (at, (name, _)) in (0_u32..).zip(CAPTIONS) {
        let picture = RgbImage::from_fn(size, size, |x, y| {
            let stripe = u8::from((x * (at + 1) + y * at) / 7 % 2 == 0);
            Rgb([0, 1, 2].map(|channel| if channel == at { 220 } else { 200 * stripe }))
        });
        picture.save(env.home().join(name)).unwrap();
    }
    fs::write(env.home().join("broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    let mut lines: Vec<String> = CAPTIONS
        .iter()
        .map(|(name, caption)| format!("{{\"image\": \"{name}\", \"caption\": \"{caption}\"}}"))
        .collect();
    lines.insert(1, "{\"image\": \"red.png\"}".to_owned());
    lines.insert(2, "no json".to_owned());
    lines.push("{\"image\": \"gone.png\", \"caption\": \"x\"}".to_owned());
    lines.push("{\"image\": \"red.png\", \"question\": \"what?\"}".to_owned());
    lines.push("{\"image\": \"broken.png\", \"caption\": \"x\"}".to_owned());
    fs::write(env.home().join("my.jsonl"), lines.join("\n")).unwrap();
}

fn model(env: &Env, weight_type: WeightType) {
    fs::copy(golden::bundle(3, weight_type), env.home().join("base.gguf")).unwrap();
}

fn train(env: &Env, flags: &str) -> Ran {
    let line = format!("--device cpu train --stage 3 --model base.gguf --data my.jsonl {flags}");
    env.run(&line)
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code(), 0, "{}", ran.text());
    serde_json::from_str(&ran.stdout()).unwrap()
}

/// What a model says of the three pictures.
fn captions(env: &Env, model: &str) -> Vec<String> {
    let ran = env.run(&format!("--model {model} caption --json red.png green.png blue.png"));
    assert_eq!(ran.code(), 0, "{}", ran.text());
    let caption = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap();
        object["caption"].as_str().unwrap().to_owned()
    };
    ran.stdout().lines().map(caption).collect()
}

#[test]
fn captions_that_were_learned_are_said_and_the_model_tells_where_it_came_from() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F32);
    let ran = train(&env, &format!("{LEARN} --json -o my.gguf"));
    let result = json(&ran);
    assert_eq!((&result["answers"], &result["bad_records"]), (&3.into(), &4.into()));
    assert_eq!(result["unreadable"], 1);
    assert!(result["loss"].as_f64().unwrap() < 0.2, "{result}");
    for bad in ["line 2: it has no `caption`", "line 3: it is no JSON", "line 6: `", "line 7: "] {
        assert!(ran.stderr().contains(&format!("my.jsonl, {bad}")), "{}", ran.stderr());
    }
    assert!(ran.stderr().contains("broken.png"), "{}", ran.stderr());
    assert_eq!(captions(&env, "my.gguf"), CAPTIONS.map(|(_, caption)| caption));
    assert_ne!(captions(&env, "base.gguf")[0], CAPTIONS[0].1);
    for left in ["my.gguf.checkpoint", "my.gguf.tokens"] {
        assert!(!env.home().join(left).exists(), "{left}");
    }

    let info: Value = json(&env.run("model info --json my.gguf"));
    let base: Value = json(&env.run("model info --json base.gguf"));
    let training = &info["training"][0];
    assert_eq!((&info["name"], &training["base"]), (&"my".into(), &base["name"]));
    assert_eq!(training["base_fingerprint"], base["fingerprint"]);
    assert_ne!(info["fingerprint"], base["fingerprint"]);
    assert_eq!(info["sources"], base["sources"]);
    let data = fs::read(env.home().join("my.jsonl")).unwrap();
    assert_eq!(training["data"]["file"], "my.jsonl");
    assert_eq!(training["data"]["blake3"], blake3::hash(&data).to_hex().to_string());
    assert_eq!((&training["stage"], &training["steps"]), (&3.into(), &70.into()));
    assert_eq!(training["seed"], 42);
    let text = env.run("model info my.gguf").stdout();
    assert!(text.contains("LoRA of rank 8, projections and norms"), "{text}");
    assert_eq!(env.run("model verify my.gguf").code(), 0);

    // The result can be trained on, and then tells of both.
    let more = env.run(
        "--device cpu train --stage 4 --model my.gguf --data my.jsonl -o more.gguf \
         --steps 2 --validation 0% --peft dora --rank 2 --targets qkv,fc1 --json",
    );
    assert_eq!(json(&more)["stage"], 4);
    let info: Value = json(&env.run("model info --json more.gguf"));
    assert_eq!(info["training"].as_array().unwrap().len(), 2);
    assert_eq!(info["training"][1]["base"], "my");
}

#[test]
fn a_run_killed_and_stopped_in_the_middle_ends_in_the_same_file() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F32);
    let flags = "--validation 50% --rank 4 --lr 0.01 --steps 40 --accumulate 2 --batch 1 \
                 --checkpoint-every 4";
    let whole = train(&env, &format!("{flags} -o my.gguf --json"));
    let loss = json(&whole)["validation_loss"].as_f64().unwrap();
    let path = env.home().join("my.gguf");
    let expected = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();

    let start = || {
        let line = format!(
            "--device cpu train --stage 3 --model base.gguf --data my.jsonl -o my.gguf {flags}"
        );
        let mut command = env.command(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut interrupted = 0;
    for signal in [libc::SIGKILL, libc::SIGINT] {
        let checkpoint = env.home().join("my.gguf.checkpoint");
        let before = fs::metadata(&checkpoint).and_then(|m| m.modified()).ok();
        let mut child = start();
        let begun = Instant::now();
        // Until it has written a checkpoint of its own.
        while fs::metadata(&checkpoint).and_then(|m| m.modified()).ok() == before {
            if child.try_wait().unwrap().is_some() || begun.elapsed() > Duration::from_secs(60) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        #[expect(unsafe_code, reason = "the standard library only kills")]
        // SAFETY: a signal to a child that was not waited for yet.
        unsafe {
            libc::kill(child.id() as libc::pid_t, signal);
        }
        let status = child.wait().unwrap();
        assert!(!status.success() || path.exists());
        interrupted += usize::from(!path.exists());
        if signal == libc::SIGINT && !path.exists() {
            assert_eq!(status.code(), Some(2));
        }
        let other = train(&env, &format!("{flags} -o my.gguf --seed 1"));
        if !path.exists() {
            assert_eq!(other.code(), 2);
            assert!(other.stderr().contains("other settings"), "{}", other.stderr());
        }
    }
    assert!(interrupted > 0, "the runs were too short to be stopped");
    let ended = train(&env, &format!("{flags} -o my.gguf --json"));
    assert!(ended.stderr().contains("going on at step"), "{}", ended.stderr());
    assert_eq!(json(&ended)["validation_loss"].as_f64().unwrap(), loss);
    assert!(fs::read(&path).unwrap() == expected, "another file");

    let again = train(&env, &format!("{flags} -o my.gguf"));
    assert_eq!(again.code(), 2);
    assert!(again.stderr().contains("--restart"), "{}", again.stderr());
    assert_eq!(train(&env, &format!("{flags} -o my.gguf --restart")).code(), 0);
    assert!(fs::read(&path).unwrap() == expected, "another file");
}

#[test]
fn quantised_weights_keep_the_lora_beside_them_and_learn() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::Q8_0);
    let result = json(&train(&env, &format!("{LEARN} --json -o my.gguf")));
    assert_eq!(result["keeps_lora"], true);
    let base = fs::metadata(env.home().join("base.gguf")).unwrap().len();
    assert!(result["size_in_bytes"].as_u64().unwrap() > base);
    assert_eq!(captions(&env, "my.gguf"), CAPTIONS.map(|(_, caption)| caption));
    let info = env.run("model info my.gguf").stdout();
    assert!(info.contains("LoRA of rank 8 kept apart"), "{info}");
    assert_eq!(env.run("model verify my.gguf").code(), 0);

    let dora = train(&env, "--peft dora -o dora.gguf");
    assert_eq!(dora.code(), 2);
    assert!(dora.stderr().contains("--dtype f16"), "{}", dora.stderr());
    // A LoRA that stands beside the weights goes on from where it is.
    let flags = "--validation 0% --lr 0.0001 --steps 1 --json -o on.gguf";
    let line = format!("--device cpu train --stage 3 --model my.gguf --data my.jsonl {flags}");
    let on = json(&env.run(&line));
    assert!(on["loss"].as_f64().unwrap() < 0.3, "{on}");
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F16);
    let plan = json(&train(&env, "--dry-run --json --epochs 2 --batch 2 --validation 34%"));
    assert_eq!((&plan["records"], &plan["bad_records"]), (&4.into(), &4.into()));
    assert_eq!((&plan["answers"], &plan["held_out"]), (&3.into(), &1.into()));
    assert_eq!((&plan["steps"], &plan["batch"]), (&3.into(), &2.into()));
    assert!(plan["seconds_looking"].as_f64().unwrap() > 0.0, "{plan}");
    assert!(plan["seconds_training"].as_f64().unwrap() > 0.0, "{plan}");
    let parts = plan["memory_parts"].as_object().unwrap();
    assert!(parts.values().all(|bytes| bytes.as_u64().unwrap() > 0), "{plan}");
    let told = train(&env, "--dry-run");
    assert!(told.stdout().contains("my.jsonl (jsonl): 4 good records, 4 bad"), "{}", told.text());
    let mut left: Vec<_> =
        fs::read_dir(env.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let expected = ["base.gguf", "blue.png", "broken.png", "green.png", "my.jsonl", "red.png"];
    assert_eq!(left, expected.map(Into::<std::ffi::OsString>::into));
}

#[test]
fn what_cannot_be_trained_is_refused_with_the_next_step() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F32);
    let data = |name: &str, text: &str| fs::write(env.home().join(name), text).unwrap();
    data("bad.jsonl", "{}\n[]\n");
    data("asked.jsonl", "{\"image\": \"red.png\", \"question\": \"a\", \"answer\": \"b\"}");
    data("broken.jsonl", "{\"image\": \"broken.png\", \"caption\": \"x\"}");
    let run = |flags: &str| {
        let ran = env.run(&format!("--device cpu train --model base.gguf -o x.gguf {flags}"));
        assert_eq!(ran.code(), 2, "{flags}: {}", ran.text());
        assert!(!Path::exists(&env.home().join("x.gguf")), "{flags}");
        ran.stderr()
    };
    for (flags, wanted) in [
        ("--stage 3 --data bad.jsonl", "all 2 records of `bad.jsonl` are bad; line 1: it has no"),
        ("--stage 3 --data none.jsonl", "cannot read `none.jsonl`"),
        ("--stage 3 --data broken.jsonl", "none of the pictures can be read"),
        ("--stage 1 --prompts published --data asked.jsonl", "learn from captions alone"),
        ("--stage 3 --data my.jsonl --dtype bf16", "a CPU trains in f32"),
        ("--stage 3 --data my.jsonl --lr 0", "a learning rate cannot be 0"),
        ("--stage 3 --data my.jsonl --rank 0", "a rank cannot be 0"),
        ("--stage 3 --data my.jsonl --keep-lora --targets qkv", "both of them"),
        ("--stage 3 --data my.jsonl --format llava", "no JSON list"),
        ("--stage 5 --data my.jsonl", "expected 1, 2, 3 or 4"),
        ("--recipe nano --data my.jsonl", "cannot be used with"),
        ("--data my.jsonl", "<--stage <N>|--recipe <NAME>>"),
        ("--stage 3 --data my.jsonl --validation 100%", "below 100%"),
    ] {
        let told = run(flags);
        assert!(told.contains(wanted), "{flags}: {told}");
    }
}

#[test]
fn the_result_never_takes_the_place_of_what_was_read() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F32);
    for input in ["my.jsonl", "base.gguf"] {
        let before = fs::read(env.home().join(input)).unwrap();
        let ran = train(&env, &format!("{LEARN} --restart -o {input}"));
        assert_eq!(ran.code(), 2, "{}", ran.text());
        assert!(ran.stderr().contains("is read by this run"), "{}", ran.stderr());
        assert_eq!(fs::read(env.home().join(input)).unwrap(), before);
    }
}

#[test]
fn numbers_beyond_all_reason_are_refused() {
    let env = Env::new();
    album(&env);
    model(&env, WeightType::F32);
    for flag in ["--batch 18446744073709551615", "--accumulate 1000000000", "--rank 99999999"] {
        let ran = train(&env, &format!("{flag} --steps 1 -o my.gguf"));
        assert_eq!(ran.code(), 2, "{}", ran.text());
        assert!(ran.stderr().contains("cannot be"), "{}", ran.stderr());
    }
}

#[test]
fn a_recipe_does_not_replace_a_file() {
    let env = Env::new();
    fs::write(env.home().join("here.gguf"), "mine").unwrap();
    let ran = env.run("train --recipe nano -o here.gguf");
    assert_eq!(ran.code(), 2, "{}", ran.text());
    assert!(ran.stderr().contains("is there already"), "{}", ran.stderr());
    assert!(!env.home().join("nano-training").exists());
}
