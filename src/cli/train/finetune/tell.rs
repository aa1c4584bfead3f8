//! What a fine-tuning tells: before it begins, while it runs and when it is done.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::explain;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::cli::{Outcome, units};
use crate::train::data::Bad;
use crate::train::finetune::{Done, Plan, Time, Watch};
use crate::train::{Peft, StepReport};

/// Most bad records that are told; the rest is counted.
const BAD_TOLD: usize = 20;

pub(super) fn tell_bad(file: &Path, bad: &[Bad], printer: &mut Printer) {
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    for bad in bad.iter().take(BAD_TOLD) {
        printer.warn(&format!("{file}, {bad}"));
    }
    if let Some(more) = bad.len().checked_sub(BAD_TOLD).filter(|more| *more > 0) {
        printer.warn(&format!("{file}: {} more bad records", units::count(more as u64)));
    }
}

/// `LoRA of rank 64, projections and norms`.
fn method(plan: &Plan) -> String {
    match &plan.peft {
        Peft::None => "projections and norms".to_owned(),
        Peft::Lora(it) => format!("LoRA of rank {}, projections and norms", it.rank),
        Peft::Dora(it) => format!("DoRA of rank {}, projections and norms", it.rank),
    }
}

pub(super) fn dry_run(
    plan: &Plan,
    as_json: bool,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let (learn, held) = plan.examples();
    let schedule = plan.schedule(learn);
    let memory = plan.footprint();
    let time = plan.time().map_err(explain)?;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let bad = plan.bad.len() + plan.bad_held.len();
    if as_json {
        let object = json!({
            "data": plan.data.path.to_string_lossy(),
            "format": plan.data.layout.name(),
            "records": plan.data.records.len(),
            "bad_records": bad,
            "answers": learn,
            "held_out": held,
            "pictures": plan.picture_count(),
            "trained_weights": plan.trained(),
            "method": method(plan),
            "steps": schedule.total,
            "batch": plan.batch,
            "accumulate": plan.shards,
            "memory_in_bytes": memory.total(),
            "memory_parts": memory,
            "seconds_looking": seconds(time.looking),
            "seconds_training": seconds(time.training),
            "time_unknown": time.unknown,
        });
        writeln!(printer.stdout(), "{object}")?;
        return Ok(Outcome::Done);
    }
    let count = |n: usize| units::count(n as u64);
    let pictures = units::counted(plan.picture_count() as u64, "picture", "pictures");
    let (data, format) = (plan.data.path.display(), plan.data.layout);
    let records = count(plan.data.records.len());
    let steps = units::count(schedule.total);
    let (answers, held_out) = (count(learn), count(held));
    let out = printer.stdout();
    writeln!(out, "data     {data} ({format}): {records} good records, {} bad", count(bad))?;
    writeln!(out, "learn    {answers} answers, {held_out} more held out, {pictures}")?;
    writeln!(out, "train    {} weights: {}", units::count(plan.trained()), method(plan))?;
    writeln!(out, "steps    {steps}, each {} batches of {}", plan.shards, plan.batch)?;
    writeln!(
        out,
        "memory   about {}: weights {}, trained ones {}, gradients {}, their means {}, \
         activations {}",
        units::bytes(memory.total()),
        units::bytes(memory.frozen),
        units::bytes(memory.trained),
        units::bytes(memory.gradients),
        units::bytes(memory.moments),
        units::bytes(memory.activations),
    )?;
    writeln!(out, "time     {}", time_line(&time))?;
    Ok(Outcome::Done)
}

fn time_line(time: &Time) -> String {
    let told = |time: Option<Duration>| time.map_or("an unknown time".to_owned(), units::duration);
    let line = format!(
        "about {} to look at the pictures, {} to train",
        told(time.looking),
        told(time.training)
    );
    match &time.unknown {
        Some(why) => format!("{line} ({why})"),
        None => line,
    }
}

pub(super) fn tell_result(
    plan: &Plan,
    done: &Done,
    begun: Instant,
    as_json: bool,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let bad = plan.bad.len() + plan.bad_held.len();
    if as_json {
        let object = json!({
            "path": done.path.to_string_lossy(),
            "name": done.about.name,
            "size_in_bytes": done.bytes,
            "fingerprint": done.about.fingerprint,
            "stage": done.about.config.stage,
            "steps": done.steps,
            "answers": done.examples,
            "held_out": done.held_out,
            "bad_records": bad,
            "unreadable": done.unreadable,
            "loss": done.loss,
            "validation_loss": done.validation_loss,
            "keeps_lora": done.keeps_lora,
            "seconds": begun.elapsed().as_secs_f64(),
        });
        writeln!(printer.stdout(), "{object}")?;
        return Ok(());
    }
    if bad + done.unreadable > 0 {
        let records = units::counted((bad + done.unreadable) as u64, "record", "records");
        printer.warn(&format!("{records} could not be learned from"));
    }
    let mut facts = vec![
        units::bytes(done.bytes),
        format!("{} steps in {}", units::count(done.steps), units::duration(begun.elapsed())),
    ];
    if let Some(loss) = done.validation_loss {
        facts.push(format!("loss {loss:.3} on what was held out"));
    }
    if done.keeps_lora {
        facts.push("LoRA beside the weights".to_owned());
    }
    printer.note(&format!("`{}`: {}", done.path.display(), facts.join(", ")));
    Ok(())
}

/// A bar for each phase, and lines for what happens seldom.
pub(super) struct Shown {
    progress: Progress,
    told: usize,
}

impl Shown {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, told: 0 }
    }
}

impl Watch for Shown {
    fn looked(&mut self, done: u64, total: u64) {
        if !self.progress.is_at("looking") {
            self.progress.begin("looking", Some(total));
        }
        self.progress.at(done);
    }

    fn bad_picture(&mut self, path: &Path, reason: &str) {
        self.told += 1;
        if self.told <= BAD_TOLD {
            self.progress.speaker().say(&format!("failed: `{}` {reason}", path.display()));
        }
        if self.told == BAD_TOLD {
            self.progress.speaker().say("further failures are not told here");
        }
    }

    fn continued(&mut self, step: u64, total: u64) {
        self.progress.begin_at("training", total, step);
        let (step, total) = (units::count(step), units::count(total));
        self.progress.speaker().say(&format!("going on at step {step} of {total}"));
    }

    fn step(&mut self, total: u64, report: &StepReport) {
        if !self.progress.is_at("training") {
            // How long the first step took is not known.
            self.progress.begin_at("training", total, report.step + 1);
        }
        self.progress.tell(format!("loss {:.3}", report.loss));
        self.progress.at(report.step + 1);
    }

    fn validated(&mut self, step: u64, loss: f64) {
        let step = units::count(step);
        let line = format!("loss {loss:.3} on what is held out, after {step} steps");
        self.progress.speaker().say(&line);
    }

    fn writing(&mut self) {
        self.progress.end();
    }
}
