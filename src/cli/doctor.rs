//! `tinyfind doctor`: whether everything is in place, and what to do next.

use std::path::Path;

use clap::Args;
use tinyfind_index::{IndexReader, ModelSpec, OpenError};

use super::globals::Globals;
use super::printer::{BAD, GOOD, Printer, WARNING};
use super::{Outcome, folders, open, units};
use crate::model::registry::{self, Location};

/// Check the device, the model, the index and the disk, and say what to do next.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all is well, 2 something is missing or damaged.")]
pub(crate) struct DoctorArgs {}

/// What a check found.
struct Finding {
    /// What was checked.
    subject: &'static str,
    state: State,
    /// What was found.
    text: String,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Works, but could be better.
    Poor,
    Bad,
}

impl Finding {
    fn good(subject: &'static str, text: String) -> Self {
        Self { subject, state: State::Good, text, advice: None }
    }

    fn poor(subject: &'static str, text: String, advice: &str) -> Self {
        Self { subject, state: State::Poor, text, advice: Some(advice.to_owned()) }
    }

    fn bad(subject: &'static str, text: String, advice: Option<&str>) -> Self {
        Self { subject, state: State::Bad, text, advice: advice.map(str::to_owned) }
    }

    /// Bad, because of `error`, which is told with its causes.
    fn error(subject: &'static str, error: impl Into<anyhow::Error>, advice: Option<&str>) -> Self {
        Self::bad(subject, format!("{:#}", error.into()), advice)
    }
}

/// Free space below which an index soon hits the end of its disk.
const LITTLE_SPACE_IN_BYTES: u64 = 1_000_000_000;

pub(crate) fn run(
    _args: &DoctorArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let folder = folders::index(globals)?;
    let mut findings = vec![check_device(globals)];
    let index = IndexReader::open(&folder);
    let made_by = index.as_ref().ok().and_then(|reader| reader.bound_to().cloned());
    findings.push(check_model(globals, made_by.as_ref()));
    findings.extend(check_index(index));
    findings.push(check_space(&folder));

    for finding in &findings {
        print(finding, printer)?;
    }
    let is_well = findings.iter().all(|finding| finding.state != State::Bad);
    // What is broken comes before what could be better.
    findings.sort_by_key(|finding| finding.state != State::Bad);
    let next = findings.into_iter().find_map(|finding| finding.advice);
    let next = next.as_deref().unwrap_or(if is_well {
        "nothing to do; find a photo: `tinyfind search WORDS`"
    } else {
        "mend what is bad above"
    });
    writeln!(printer.stdout(), "next    {next}")?;
    Ok(if is_well { Outcome::Done } else { Outcome::Failed })
}

fn print(finding: &Finding, printer: &mut Printer) -> std::io::Result<()> {
    let (style, state) = match finding.state {
        State::Good => (GOOD, "ok  "),
        State::Poor => (WARNING, "note"),
        State::Bad => (BAD, "bad "),
    };
    let state = printer.paint(style, state);
    writeln!(printer.stdout(), "{:<7} {state}  {}", finding.subject, finding.text)
}

fn check_device(globals: &Globals) -> Finding {
    let subject = "device";
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match globals.device.open() {
        Ok(device) if device.is_cpu() => {
            let cores = units::counted(threads as u64, "core", "cores");
            Finding::good(subject, format!("the CPU, {cores}"))
        }
        Ok(device) => Finding::good(subject, format!("{:?}", device.location())),
        Err(error) => Finding::error(
            subject,
            error,
            Some("choose another device with `--device`: `--device cpu` always works"),
        ),
    }
}

/// Whether there is a model, its header is sound, and it is the one of the index.
fn check_model(globals: &Globals, made_by: Option<&ModelSpec>) -> Finding {
    let subject = "model";
    let place = match open::find_model(globals, made_by) {
        Ok(place) => place,
        Err(error) => {
            let advice = "get a model: `tinyfind model pull`";
            return Finding::error(subject, error, Some(advice));
        }
    };
    let bundle = match place.open() {
        Ok(bundle) => bundle,
        Err(error) => {
            let advice = "get the model again: `tinyfind model pull` or `tinyfind model import`";
            return Finding::error(subject, error, Some(advice));
        }
    };
    let size = units::bytes(bundle.size_in_bytes());
    let text = match &place {
        Location::File(path) => format!("{} in `{}`, {size}", bundle.name(), path.display()),
        Location::BuiltIn => {
            format!("{}, which is built in and knows drawn scenes only, {size}", bundle.name())
        }
    };
    match made_by {
        Some(spec) if spec.fingerprint != bundle.fingerprint() => Finding::bad(
            subject,
            format!("{text}, but the index was made by another one, `{}`", spec.name),
            Some("name the model of the index with `--model`, or another index with `--index`"),
        ),
        _ if place == Location::BuiltIn => Finding::poor(
            subject,
            text,
            if registry::installed().is_ok_and(|installed| !installed.is_empty()) {
                "make another index with the model that you installed: `tinyfind --index DIR index \
                 FOLDER`"
            } else {
                "get TinyGPT-V, which knows photos (about 9 GB): `tinyfind model pull`"
            },
        ),
        _ => Finding::good(subject, text),
    }
}

/// What to do about a damaged index.
const HEAL: &str = "write anew what can be: `tinyfind index --rebuild`";

/// Whether the index opens, and every checksum and reference in it holds.
fn check_index(index: Result<IndexReader, OpenError>) -> Vec<Finding> {
    let subject = "index";
    let reader = match index {
        Ok(reader) => reader,
        Err(OpenError::Missing { dir }) => {
            let text = format!("none in `{}` yet", dir.display());
            return vec![Finding::poor(
                subject,
                text,
                "index your photos: `tinyfind index FOLDER`",
            )];
        }
        Err(error) => return vec![Finding::error(subject, error, Some(HEAL))],
    };
    let counts = reader.counts();
    let photos = units::counted(counts.photos, "photo", "photos");
    let mut findings = match reader.check() {
        Ok(report) if report.is_sound() => vec![Finding::good(subject, photos)],
        Ok(report) => {
            let damage = |problem| Finding::bad(subject, problem, Some(HEAL));
            report.problems.into_iter().map(damage).collect()
        }
        Err(error) => vec![Finding::error(subject, error, None)],
    };
    if counts.captioned < counts.photos {
        let waiting = units::count(counts.photos - counts.captioned);
        let advice = "write the missing captions: `tinyfind index FOLDER`";
        findings.push(Finding::poor("caption", format!("{waiting} photos have none yet"), advice));
    }
    if counts.failed > 0 {
        let failed = units::counted(counts.failed, "file", "files");
        let advice = "see which files failed: `tinyfind failures`";
        findings.push(Finding::poor("failed", failed, advice));
    }
    findings
}

/// Whether the disk of the index has room.
fn check_space(folder: &Path) -> Finding {
    let subject = "disk";
    // The folder itself may not exist yet.
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(folder);
    let space = match rustix::fs::statvfs(existing) {
        Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
        Err(error) => return Finding::error(subject, error, None),
    };
    let text = format!("{} free in `{}`", units::bytes(space), existing.display());
    if space < LITTLE_SPACE_IN_BYTES {
        let advice = "make room on the disk of the index, or use another with `--index DIR`";
        return Finding::poor(subject, text, advice);
    }
    Finding::good(subject, text)
}
