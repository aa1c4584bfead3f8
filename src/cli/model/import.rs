//! `tinyfind model import`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::bar::Bar;
use crate::cli::Outcome;
use crate::cli::globals::Globals;
use crate::cli::printer::Printer;
use crate::cli::report::hinted;
use crate::model::bundle::WeightType;
use crate::model::hub::Bytes;
use crate::model::import::{
    Dims, ImportError, ImportOptions, ImportProgress, ImportSources, ImportStep, Lora, import,
};
use crate::model::registry::Registry;

/// Make a bundle of published files on disk.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tinyfind model import --vit eva_vit_g.pth --qformer blip2_pretrained_flant5xxl.pth \\
      --phi phi-2/ --checkpoint TinyGPT-V_for_Stage3.pth --stage 3 \\
      --retrieval blip2_pretrained.pth --retrieval-vocab vocab.txt

Parts may be left out: without --phi there are no captions and no answers, without --retrieval no
search by meaning.")]
pub(crate) struct ImportArgs {
    /// The ViT, `eva_vit_g.pth`; not needed where --retrieval holds it
    #[arg(long, value_name = "FILE")]
    vit: Option<PathBuf>,

    /// BLIP-2's Q-Former for captions, `blip2_pretrained_flant5xxl.pth`
    #[arg(long, value_name = "FILE")]
    qformer: Option<PathBuf>,

    /// Folder of Phi-2 with its tokenizer, in any published layout
    #[arg(long, value_name = "DIR")]
    phi: Option<PathBuf>,

    /// Phi-2's `tokenizer.json`, where it is not in that folder
    #[arg(long, value_name = "FILE|DIR")]
    phi_tokenizer: Option<PathBuf>,

    /// TinyGPT-V's checkpoint, `TinyGPT-V_for_StageN.pth`
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// Which training stage that is: 4 looks at pictures of 448 px, the others of 224
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=4))]
    stage: u8,

    /// BLIP-2 for retrieval: `blip2_pretrained.pth`, or file or folder of Hugging Face's
    #[arg(long, value_name = "FILE|DIR")]
    retrieval: Option<PathBuf>,

    /// BERT's `vocab.txt`, where it is not in the folder of --retrieval
    #[arg(long, value_name = "FILE")]
    retrieval_vocab: Option<PathBuf>,

    /// JSON with sizes that the files cannot tell [default: those of the published model]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    conversion: Conversion,

    /// Write the bundle to this file [default: into the models folder]
    #[arg(long, short, value_name = "BUNDLE")]
    output: Option<PathBuf>,

    /// Name of the model [default: `tinygpt-v-stageN`, or the name of --output]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// How published files are converted.
#[derive(Debug, Args)]
pub(super) struct Conversion {
    /// How weights are stored.
    #[arg(long, value_name = "TYPE", default_value_t = WeightType::Q8_0)]
    #[arg(help = "How weights are stored: f32, f16, bf16, q8_0, q4_0, q5_0, q4k, q5k or q6k")]
    dtype: WeightType,

    /// Keep `LoRA` beside the weights.
    #[arg(long, help = "Keep LoRA beside the weights instead of adding it to them")]
    keep_lora: bool,
}

pub(super) fn run(
    args: &ImportArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let dims = match &args.config {
        Some(path) => Dims::read(path)?,
        None => Dims::default(),
    };
    let sources = ImportSources {
        vit: args.vit.clone(),
        qformer: args.qformer.clone(),
        phi: args.phi.clone(),
        phi_tokenizer: args.phi_tokenizer.clone(),
        checkpoint: args.checkpoint.clone(),
        stage: args.stage,
        retrieval: args.retrieval.clone(),
        retrieval_vocab: args.retrieval_vocab.clone(),
        dims,
    };
    let (name, output) = target(args)?;
    make(&sources, &args.conversion, &name, &output, globals, printer)?;
    Ok(Outcome::Done)
}

/// The name and the file of the bundle.
fn target(args: &ImportArgs) -> anyhow::Result<(String, PathBuf)> {
    let of_file = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    let name = args.name.clone().or_else(|| of_file(args.output.as_deref()?));
    let name = name.unwrap_or_else(|| format!("tinygpt-v-stage{}", args.stage));
    let output = match &args.output {
        Some(path) => path.clone(),
        None => Registry::of_user()?.path_of(&name)?,
    };
    Ok((name, output))
}

/// Makes the bundle `output` and tells what became of it.
pub(super) fn make(
    sources: &ImportSources,
    conversion: &Conversion,
    name: &str,
    output: &Path,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let options = ImportOptions {
        weight_type: conversion.dtype,
        lora: if conversion.keep_lora { Lora::Keep } else { Lora::Merge },
        name: Some(name.to_owned()),
    };
    let mut bar = Bar::new(globals);
    let mut step = None;
    let made = import(sources, &options, output, &mut |at: ImportProgress<'_>| {
        if step != Some(at.step) {
            step = Some(at.step);
            bar.begin(at.total, at.done);
        }
        let what = match at.step {
            ImportStep::Hash => "reading the files",
            ImportStep::Write => "converting the weights",
        };
        bar.now(printer, what);
        bar.at(at.done);
    });
    bar.finish();
    let made = made.map_err(|error| match error {
        ImportError::Shape { .. } => hinted(
            error,
            "a network of other sizes than the published one needs them in `--config`",
        ),
        _ => error.into(),
    })?;
    let (size, tensors, dtype) = (Bytes(made.bytes), made.tensors, conversion.dtype);
    let place = output.display();
    printer.note(&format!("{name}: {tensors} tensors, {size} in {dtype}, in `{place}`"));
    Ok(())
}
