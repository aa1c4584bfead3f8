//! `tinyfind train --recipe NAME`: a whole model from nothing.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::cli::{
    Outcome, globals::Globals, index::cancel_on_signal, printer::Printer, progress::Progress,
};
use crate::train::{
    Measure, StepReport,
    nano::{
        recipe,
        run::{Run, Watch},
    },
};

/// Flags of a recipe.
#[derive(Debug, Args)]
pub(super) struct RecipeArgs {
    /// Folder of checkpoints and finished stages; the same folder continues a run
    #[arg(long, value_name = "DIR", default_value = "nano-training", conflicts_with = "stage")]
    work: PathBuf,

    /// Stop after this stage
    #[arg(long, value_name = "STAGE", conflicts_with = "stage")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(recipe::STAGES))]
    until: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Recipe {
    /// The small model that knows drawn scenes
    Nano,
}

pub(super) fn run(
    args: &RecipeArgs,
    recipe: Recipe,
    output: Option<&Path>,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let Recipe::Nano = recipe;
    without_spinning_threads()?;
    if let Some(path) = output.filter(|path| path.exists()) {
        anyhow::bail!("`{}` is there already; name another file with `-o`", path.display());
    }
    std::fs::create_dir_all(&args.work)
        .with_context(|| format!("cannot make `{}`", args.work.display()))?;
    let device = globals.device.open()?;
    let mut shown = Shown::new(globals);
    let stop = cancel_on_signal(shown.progress.speaker().clone())?;
    let run = Run { folder: args.work.clone(), stop: &stop };
    let outcome = recipe::run(&run, args.until.as_deref(), output, &device, &mut shown)?;
    shown.progress.end();
    match outcome {
        recipe::Outcome::Finished => Ok(Outcome::Done),
        recipe::Outcome::Stopped => {
            printer.note("stopped; the same command continues");
            Ok(Outcome::Failed)
        }
    }
}

/// Starts the program anew with candle's own threads off.
///
/// They wait in a loop at the end of every sum of two tensors, which costs two shards that run
/// side by side most of their time: a step takes ten times as long. How many there are can only
/// be said in the environment, before candle's first operation.
#[cfg(unix)]
fn without_spinning_threads() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;

    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let arguments = std::env::args_os().skip(1);
    let error = std::process::Command::new(program).args(arguments).env(THREADS, "1").exec();
    Err(error).context("cannot start the program anew")
}

#[cfg(not(unix))]
fn without_spinning_threads() -> anyhow::Result<()> {
    Ok(())
}

/// Time between two lines of losses.
const BETWEEN_LINES: Duration = Duration::from_secs(20);

/// A bar for each stage and a line of losses now and then.
struct Shown {
    progress: Progress,
    stage: String,
    said: Instant,
    sums: Vec<(&'static str, f32, f32)>,
}

impl Shown {
    fn new(globals: &Globals) -> Self {
        let progress = Progress::new(globals);
        Self { progress, stage: String::new(), said: Instant::now(), sums: Vec::new() }
    }
}

impl Watch for Shown {
    fn step(&mut self, stage: &str, total: u64, report: &StepReport) {
        if self.stage != stage {
            stage.clone_into(&mut self.stage);
            // How long the first step took is not known.
            self.progress.begin_at("training", total, report.step + 1);
        }
        self.progress.at(report.step + 1);
        for &(name, value) in [("loss", report.loss)].iter().chain(&report.parts) {
            match self.sums.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, n)) => (*sum, *n) = (*sum + value, *n + 1.0),
                None => self.sums.push((name, value, 1.0)),
            }
        }
        if self.said.elapsed() >= BETWEEN_LINES || report.step + 1 == total {
            let parts: Vec<String> = self
                .sums
                .drain(..)
                .map(|(name, sum, n)| format!("{name} {:.3}", sum / n))
                .collect();
            let line = format!(
                "{stage} {}/{total}: {}, norm {:.2}, rate {:.1e}",
                report.step + 1,
                parts.join(", "),
                report.norm,
                report.rate
            );
            self.progress.speaker().say(&line);
            self.said = Instant::now();
        }
    }

    fn measured(&mut self, stage: &str, measure: &Measure) {
        let parts = measure.parts.iter().map(|(name, value)| format!(", {name} {value:.3}"));
        let parts: String = parts.collect();
        let line = format!("{stage}, on pictures it did not see: loss {:.3}{parts}", measure.loss);
        self.progress.speaker().say(&line);
    }

    fn done(&mut self, stage: &str, file: &Path) {
        self.progress.speaker().say(&format!("{stage} is done: `{}`", file.display()));
    }
}
