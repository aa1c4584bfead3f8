//! `tinyfind model info`.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::{open, summary};
use crate::cli::Outcome;
use crate::cli::globals::Globals;
use crate::cli::printer::{FAINT, Printer, STRONG};
use crate::cli::units;
use crate::model::bundle::{Bundle, RecipeStage, Training};
use crate::model::hub::Bytes;

/// Show what a bundle holds and what it was made from.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Bundle file or name of an installed model [default: as `--model`]
    #[arg(value_name = "BUNDLE|NAME")]
    bundle: Option<OsString>,

    /// Also list every tensor with its type and shape
    #[arg(long)]
    tensors: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    args: &InfoArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let bundle = open(args.bundle.as_deref(), globals)?;
    if args.json {
        let object = as_json(&bundle, args.tensors);
        writeln!(printer.stdout(), "{object:#}")?;
    } else {
        as_text(&bundle, args.tensors, printer)?;
    }
    Ok(Outcome::Done)
}

fn as_json(bundle: &Bundle, with_tensors: bool) -> serde_json::Value {
    let about = bundle.about();
    let tensors = with_tensors.then(|| {
        let tensors = bundle.tensors().map(|tensor| {
            json!({
                "name": tensor.name,
                "dtype": summary::dtype_name(tensor.dtype),
                "shape": tensor.shape,
                "size_in_bytes": tensor.size,
            })
        });
        tensors.collect::<Vec<_>>()
    });
    let mut object = json!({
        "name": about.name,
        "path": bundle.path().to_string_lossy(),
        "size_in_bytes": bundle.size_in_bytes(),
        "stage": about.config.stage,
        "fingerprint": about.fingerprint,
        "parts": summary::parts(bundle),
        "config": about.config,
        "tensor_count": bundle.tensors().count(),
        "sources": about.sources,
        "recipe": about.recipe,
        "training": about.training,
        "license": about.license,
        "licences": about.licences,
    });
    if let Some(tensors) = tensors {
        object["tensors"] = tensors.into();
    }
    object
}

fn as_text(bundle: &Bundle, with_tensors: bool, printer: &mut Printer) -> anyhow::Result<()> {
    let about = bundle.about();
    let parts = summary::parts(bundle);
    let name = printer.paint(STRONG, &about.name);
    write!(printer.stdout(), "{name}\n  file         ")?;
    printer.path(bundle.path())?;
    let size = Bytes(bundle.size_in_bytes());
    let parameters: u64 = parts.iter().map(|part| part.parameters).sum();
    let out = printer.stdout();
    writeln!(out)?;
    writeln!(out, "  size         {size}, {} parameters", millions(parameters))?;
    writeln!(out, "  weights      {}", summary::dtypes(&parts))?;
    writeln!(out, "  stage        {}", about.config.stage)?;
    writeln!(out, "  tensors      {}", bundle.tensors().count())?;
    writeln!(out, "  fingerprint  {}", about.fingerprint)?;
    if !about.license.is_empty() {
        writeln!(out, "  licence      {}", about.license)?;
    }
    heading(printer, "parts")?;
    for part in &parts {
        let (size, count) = (Bytes(part.size_in_bytes).to_string(), millions(part.parameters));
        let line =
            format!("  {:<10} {:<5} {size:>9}  {count:>7}  {}", part.name, part.dtype, part.what);
        writeln!(printer.stdout(), "{line}")?;
    }
    if !about.sources.is_empty() {
        heading(printer, "made from")?;
        let roles = about.sources.iter().map(|source| source.role.chars().count());
        let width = roles.max().unwrap_or(0);
        for source in &about.sources {
            let size = Bytes(source.size).to_string();
            let hash = printer.paint(FAINT, &format!("blake3 {}", source.blake3));
            let line = format!("  {:width$}  {} ({size})", source.role, source.file);
            writeln!(printer.stdout(), "{line}\n  {:width$}  {hash}", "")?;
        }
    }
    if !about.recipe.is_empty() {
        heading(printer, "trained")?;
        let printed = trained(&about.recipe);
        write!(printer.stdout(), "{printed}")?;
    }
    for training in &about.training {
        heading(printer, "fine-tuned")?;
        let printed = fine_tuned(training, printer);
        write!(printer.stdout(), "{printed}")?;
    }
    if !about.licences.is_empty() {
        heading(printer, "licences")?;
        for line in about.licences.lines() {
            writeln!(printer.stdout(), "  {line}")?;
        }
    }
    if with_tensors {
        heading(printer, "tensors")?;
        for tensor in bundle.tensors() {
            let dtype = summary::dtype_name(tensor.dtype);
            writeln!(printer.stdout(), "  {dtype:<5} {:?} {}", tensor.shape, tensor.name)?;
        }
    }
    Ok(())
}

/// The stages that a model was trained in from nothing, a line each.
fn trained(stages: &[RecipeStage]) -> String {
    let width = |of: fn(&RecipeStage) -> String| {
        stages.iter().map(|stage| of(stage).len()).max().unwrap_or(0)
    };
    let (names, steps) = (width(|s| s.name.clone()), width(|s| units::count(s.steps)));
    stages.iter().fold(String::new(), |mut text, stage| {
        let RecipeStage { name, batch, rate, version, .. } = stage;
        let pictures = units::counted(*batch as u64, "picture", "pictures");
        let count = units::count(stage.steps);
        let _ = writeln!(
            text,
            "  {name:names$}  {count:>steps$} steps of {pictures}, rate {rate:e}, by tinyfind {version}"
        );
        text
    })
}

/// Where a fine-tuned model came from, a fact a line.
fn fine_tuned(training: &Training, printer: &Printer) -> String {
    let hash = |hash: &str| printer.paint(FAINT, hash);
    let mut text = format!(
        "  from        {}\n              {}\n",
        training.base,
        hash(&format!("fingerprint {}", training.base_fingerprint))
    );
    let size = Bytes(training.data.size);
    let _ = writeln!(text, "  data        {} ({size})", training.data.file);
    let _ = writeln!(text, "              {}", hash(&format!("blake3 {}", training.data.blake3)));
    let _ = writeln!(text, "  recipe      stage {}: {}", training.stage, training.method);
    let _ = writeln!(
        text,
        "  steps       {} of {}, {} in all",
        units::count(training.steps),
        units::counted(training.batch as u64, "answer", "answers"),
        units::counted(training.examples as u64, "answer", "answers"),
    );
    let _ = writeln!(text, "  rate, seed  {:e}, {}", training.rate, training.seed);
    if let Some(loss) = training.validation_loss {
        let _ = writeln!(text, "  held out    loss {loss:.3}");
    }
    let _ = writeln!(text, "  by          tinyfind {}", training.version);
    text
}

fn heading(printer: &mut Printer, text: &str) -> anyhow::Result<()> {
    let text = printer.paint(STRONG, text);
    writeln!(printer.stdout(), "\n{text}")?;
    Ok(())
}

/// `985.9 M`, or the number itself where it is small.
fn millions(number: u64) -> String {
    if number < 1_000_000 { number.to_string() } else { format!("{:.1} M", number as f64 / 1e6) }
}
