//! `tinyfind train --stage N`: fine-tuning on one's own pictures.

mod tell;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::tell::{Shown, dry_run, tell_bad, tell_result};
use crate::cli::globals::Globals;
use crate::cli::index::cancel_on_signal;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::cli::report::hinted;
use crate::cli::{Outcome, open, units};
use crate::train::data::{DataError, Layout};
use crate::train::finetune::{self, FineTuneError, Length, Plan, Prompts, Request, Validation};
use crate::train::peft::{Additions, Target};
use crate::train::{Peft, Stage, TrainError};

/// Flags of a fine-tuning.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(next_help_heading = "Fine-tuning (--stage)")]
pub(super) struct FineTuneArgs {
    /// JSON lines of {image, caption} or {image, question, answer}, a folder in MiniGPT-4's
    /// layout, or a JSON list of conversations
    #[arg(long, value_name = "FILE", conflicts_with = "recipe")]
    data: Option<PathBuf>,

    /// The bundle to make
    #[arg(long, short, value_name = "BUNDLE")]
    pub(super) output: Option<PathBuf>,

    /// How the data is laid out: jsonl, align or llava [default: told by its content]
    #[arg(long, value_name = "LAYOUT", conflicts_with = "recipe")]
    format: Option<Layout>,

    /// Folder of the pictures [default: that of the data]
    #[arg(long, value_name = "DIR", conflicts_with = "recipe")]
    images: Option<PathBuf>,

    /// What is held out: a part of the pictures, or another file
    #[arg(long, value_name = "PERCENT%|FILE", default_value = "5%", conflicts_with = "recipe")]
    #[arg(value_parser = validation)]
    validation: Validation,

    /// Words around a picture
    #[arg(long, value_enum, default_value_t = PromptsName::Asked, conflicts_with = "recipe")]
    prompts: PromptsName,

    /// What is trained beside the frozen weights [default: that of the stage]
    #[arg(long, value_enum, conflicts_with = "recipe")]
    peft: Option<PeftName>,

    /// Rank of LoRA or DoRA [default: 64]
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    rank: Option<usize>,

    /// Strength of LoRA or DoRA: it counts alpha / rank times [default: 16]
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    alpha: Option<f64>,

    /// Part of the inputs of LoRA or DoRA that is dropped [default: 0.05]
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    dropout: Option<f64>,

    /// Layers that get LoRA or DoRA: any of qkv, dense, fc1, fc2 [default: qkv,dense]
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', conflicts_with = "recipe")]
    #[arg(value_parser = target)]
    targets: Option<Vec<Target>>,

    /// Keep LoRA beside the weights instead of adding it to them (always so where they are
    /// quantised)
    #[arg(long, conflicts_with = "recipe")]
    keep_lora: bool,

    /// Type to compute in: f32, or bf16 on a GPU, with weights that are trained in f32
    #[arg(long, value_enum, conflicts_with = "recipe")]
    dtype: Option<DtypeName>,

    /// Answers that are computed together [default: as the stage has and memory allows]
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    batch: Option<usize>,

    /// Batches of a step
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    accumulate: Option<usize>,

    /// How often to go over the data [default: 5]
    #[arg(long, value_name = "X", conflicts_with_all = ["recipe", "steps"])]
    epochs: Option<f64>,

    /// How many steps to train
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,

    /// Highest learning rate [default: that of the stage]
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    lr: Option<f64>,

    /// Steps in which the rate rises [default: that of the stage, a tenth of the run at most]
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    warmup: Option<u64>,

    /// Weight decay [default: that of the stage]
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    weight_decay: Option<f64>,

    /// Greatest norm of the gradients; longer ones are shortened to it
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    clip: Option<f64>,

    /// What random choices begin with
    #[arg(long, value_name = "N", default_value_t = 42, conflicts_with = "recipe")]
    seed: u64,

    /// Most tokens that are learned of an answer [default: 160, in stage 4 500]
    #[arg(long, value_name = "N", conflicts_with = "recipe")]
    answer_tokens: Option<usize>,

    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "recipe")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,

    /// Keep the pictures' visual tokens in this file, for other runs on them
    #[arg(long, value_name = "FILE", conflicts_with = "recipe")]
    tokens: Option<PathBuf>,

    /// Name of the result [default: that of its file]
    #[arg(long, value_name = "NAME", conflicts_with = "recipe")]
    name: Option<String>,

    /// Begin anew, whatever checkpoint or result is there
    #[arg(long, conflicts_with = "recipe")]
    restart: bool,

    /// Only tell what would be trained, and what it takes of memory and time
    #[arg(long, conflicts_with = "recipe")]
    dry_run: bool,

    /// One JSON object as the result
    #[arg(long, conflicts_with = "recipe")]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PromptsName {
    /// Those with which tinyfind asks later
    Asked,
    /// Those of the published recipe
    Published,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PeftName {
    /// Nothing
    None,
    /// Low-rank additions
    Lora,
    /// The same, with lengths of their own
    Dora,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DtypeName {
    /// 32-bit floats
    F32,
    /// 16-bit brain floats
    Bf16,
}

fn validation(text: &str) -> Result<Validation, String> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..100.0).contains(&percent) => Ok(Validation::Part(percent / 100.0)),
            _ => Err("expected a part below 100%, as `5%`, or a file".to_owned()),
        },
        None => Ok(Validation::File(PathBuf::from(text))),
    }
}

fn target(text: &str) -> Result<Target, &'static str> {
    match text.trim() {
        "qkv" => Ok(Target::QueryKeyValue),
        "dense" => Ok(Target::Dense),
        "fc1" => Ok(Target::Fc1),
        "fc2" => Ok(Target::Fc2),
        _ => Err("expected qkv, dense, fc1 or fc2"),
    }
}

pub(super) fn run(
    args: &FineTuneArgs,
    stage: Stage,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let device = globals.device.open()?;
    let plan = Plan::new(request(args, stage, globals)?, &device).map_err(explain)?;
    tell_bad(&plan.data.path, &plan.bad, printer);
    if let Some(file) = plan.validation_file() {
        tell_bad(file, &plan.bad_held, printer);
    }
    if plan.cut() > 0 {
        let answers = units::counted(plan.cut() as u64, "answer is", "answers are");
        printer.warn(&format!("{answers} longer than what is learned of one (--answer-tokens)"));
    }
    if args.dry_run {
        return dry_run(&plan, args.json, printer);
    }
    let progress = Progress::new(globals);
    let stop = cancel_on_signal(progress.speaker().clone())?;
    let mut shown = Shown::new(progress);
    let begun = Instant::now();
    let outcome = plan.run(&mut shown, &stop);
    drop(shown);
    let (step, total) = match outcome.map_err(explain)? {
        finetune::Outcome::Done(done) => {
            tell_result(&plan, &done, begun, args.json, printer)?;
            return Ok(Outcome::Done);
        }
        finetune::Outcome::StoppedLooking => (0, plan.schedule(plan.examples().0).total),
        finetune::Outcome::Stopped { step, total } => (step, total),
    };
    if args.json {
        writeln!(printer.stdout(), "{}", json!({ "stopped_at_step": step, "steps": total }))?;
    }
    printer.hint(if args.restart {
        "stopped; run it again without `--restart` to go on from here"
    } else {
        "stopped; run the same command again to go on from here"
    });
    Ok(Outcome::Failed)
}

fn request(args: &FineTuneArgs, stage: Stage, globals: &Globals) -> anyhow::Result<Request> {
    let data = args.data.clone().unwrap_or_default();
    let output = match (&args.output, args.dry_run) {
        (Some(output), _) => output.clone(),
        (None, true) => PathBuf::from("fine-tuned.gguf"),
        (None, false) => {
            return Err(hinted(
                anyhow::anyhow!("the result needs a file"),
                "name it with `-o my.gguf`, or see what would be done with `--dry-run`",
            ));
        }
    };
    let mut request = Request::new(open::find_model(globals, None)?, data, stage, output);
    request.layout = args.format;
    request.images.clone_from(&args.images);
    request.validation = args.validation.clone();
    request.prompts = match args.prompts {
        PromptsName::Asked => Prompts::Asked,
        PromptsName::Published => Prompts::Published,
    };
    request.peft = peft(args, stage);
    request.keep_lora = args.keep_lora;
    request.dtype = args.dtype.map(|dtype| match dtype {
        DtypeName::F32 => candle_core::DType::F32,
        DtypeName::Bf16 => candle_core::DType::BF16,
    });
    request.batch = args.batch;
    request.accumulate = args.accumulate;
    request.length = args.epochs.map(Length::Epochs).or(args.steps.map(Length::Steps));
    request.rate = args.lr;
    request.warmup = args.warmup;
    request.weight_decay = args.weight_decay;
    request.clip = args.clip;
    request.seed = args.seed;
    request.answer_tokens = args.answer_tokens;
    request.checkpoint_every = args.checkpoint_every;
    request.tokens.clone_from(&args.tokens);
    if let Some(name) = &args.name {
        request.name.clone_from(name);
    }
    request.restart = args.restart;
    Ok(request)
}

/// What was asked for beside the weights; `None` where nothing was.
fn peft(args: &FineTuneArgs, stage: Stage) -> Option<Peft> {
    let changed = args.rank.is_some()
        || args.alpha.is_some()
        || args.dropout.is_some()
        || args.targets.is_some();
    if args.peft.is_none() && !changed {
        return None;
    }
    let published = stage.published().peft;
    let default = published.additions().cloned().unwrap_or_default();
    let additions = Additions {
        rank: args.rank.unwrap_or(default.rank),
        alpha: args.alpha.unwrap_or(default.alpha),
        dropout: args.dropout.unwrap_or(default.dropout),
        targets: args.targets.clone().unwrap_or(default.targets),
    };
    Some(match args.peft {
        Some(PeftName::None) => Peft::None,
        Some(PeftName::Dora) => Peft::Dora(additions),
        Some(PeftName::Lora) | None => Peft::Lora(additions),
    })
}

/// `error` with the next step.
fn explain(error: FineTuneError) -> anyhow::Error {
    let hint = match &error {
        FineTuneError::Data(DataError::Layout { .. }) => "`--format` says how the data is laid out",
        FineTuneError::Data(DataError::AllBad { .. }) => {
            "paths of pictures are relative to the data, or to the folder of `--images`"
        }
        FineTuneError::Nothing { .. } => "`--prompts asked` learns from all kinds of records",
        FineTuneError::NoPart { .. } => "import the model again with all its parts",
        FineTuneError::Adapter(_) => {
            "import the model with `--dtype f16`, or leave the flags of LoRA out"
        }
        FineTuneError::Dtype(_) => "a CPU trains in f32, a GPU in bf16 or f32",
        FineTuneError::Exists { .. } => "name another file with `-o`, or replace it: `--restart`",
        FineTuneError::Overwrites { .. } => "name another file with `-o`",
        FineTuneError::InUse { .. } => "wait until it is done, or name another result with `-o`",
        FineTuneError::NotTokens { .. } => "name another file with `--tokens` or `-o`",
        FineTuneError::Train(TrainError::Checkpoint { .. }) => {
            "go on with the settings that it was begun with, or begin anew with `--restart`"
        }
        FineTuneError::Train(TrainError::Loss { .. } | TrainError::Gradient { .. }) => {
            "begin anew with `--restart` and a lower `--lr`, or with `--clip 1`"
        }
        _ => return error.into(),
    };
    hinted(error, hint)
}
