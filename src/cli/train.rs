//! `tinyfind train`.

mod finetune;
mod recipe;

use clap::Args;

use super::Outcome;
use super::globals::Globals;
use super::printer::Printer;
use crate::train::Stage;

/// Train a model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tinyfind train --stage 3 --model tinygpt-v-stage3 --data my.jsonl -o my.gguf
  tinyfind train --stage 3 --data my.jsonl --dry-run
  tinyfind train --recipe nano -o nano.gguf

Ctrl-C saves and stops; the same command goes on from there.

Exit codes: 0 done, 2 a failure, or stopped.")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    what: What,

    #[command(flatten)]
    recipe: recipe::RecipeArgs,

    #[command(flatten)]
    fine_tune: finetune::FineTuneArgs,
}

/// One of the two ways to train.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Fine-tune on your own pictures by the recipe of this stage: 1, 2, 3 or 4
    #[arg(long, value_name = "N", value_parser = stage, requires = "data")]
    stage: Option<Stage>,

    /// Make a whole model by this recipe
    #[arg(long, value_name = "NAME", value_enum)]
    recipe: Option<recipe::Recipe>,
}

fn stage(text: &str) -> Result<Stage, &'static str> {
    let stage: Option<Stage> = text.parse().ok();
    stage.filter(|stage| stage.number().is_some()).ok_or("expected 1, 2, 3 or 4")
}

pub(crate) fn run(
    args: &TrainArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    match (args.what.recipe, args.what.stage) {
        (Some(recipe), _) => {
            let output = args.fine_tune.output.as_deref();
            recipe::run(&args.recipe, recipe, output, globals, printer)
        }
        (None, Some(stage)) => finetune::run(&args.fine_tune, stage, globals, printer),
        (None, None) => anyhow::bail!("name a `--stage` or a `--recipe`"),
    }
}
