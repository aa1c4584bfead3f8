//! `tinyfind model pull`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::bar::Bar;
use super::import::{self, Conversion};
use crate::cli::Outcome;
use crate::cli::globals::Globals;
use crate::cli::printer::Printer;
use crate::model::hub::{
    Bytes, Downloader, LocalFiles, PUBLISHED, Recipe, RetrievalFrom, Role, Settings, Step,
};
use crate::model::import::{Dims, ImportSources};
use crate::model::registry::Registry;

/// Download the published files of a model and install it.
#[derive(Debug, Args)]
#[command(after_help = "\
What is downloaded lies in the cache of the Hugging Face hub (HF_HOME), where its other tools
find it, and in tinyfind/downloads beside it. A download that was broken off goes on where it
stopped. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to those tools;
TINYFIND_LAVIS_ENDPOINT is the address of a folder with LAVIS's BLIP-2 files.")]
pub(crate) struct PullArgs {
    /// Model to pull
    #[arg(value_name = "NAME", default_value = PUBLISHED[0])]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PUBLISHED))]
    published: String,

    /// Pull the files that this JSON file lists instead: other weights of the same network
    #[arg(long, value_name = "FILE", conflicts_with_all = ["published", "retrieval_from"])]
    manifest: Option<PathBuf>,

    /// Who provides the retrieval side: the hub's file holds a second copy of the ViT
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    retrieval_from: Provider,

    #[command(flatten)]
    conversion: Conversion,

    /// Name to install it under [default: its own]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Download and install it even if a model of that name is installed
    #[arg(long)]
    force: bool,

    /// Remove the downloads of this run once the model is installed
    #[arg(long)]
    remove_downloads: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Provider {
    /// LAVIS's bucket, 0.8 GB
    #[default]
    Lavis,
    /// Salesforce's repository on the hub, 4.7 GB
    Hub,
}

pub(super) fn run(
    args: &PullArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let recipe = recipe(args)?;
    let registry = Registry::of_user()?;
    let name = args.name.as_ref().unwrap_or(&recipe.name);
    let bundle = registry.path_of(name)?;
    if bundle.exists() && !args.force {
        printer.note(&format!("{name} is installed already, in `{}`", bundle.display()));
        printer.hint("`--force` makes it anew, `--name` installs it under another name");
        return Ok(Outcome::Done);
    }

    let settings = Settings::of_user()?;
    let places = [settings.hub_cache.clone(), settings.downloads.clone()];
    let files = download(&recipe, settings, globals, printer)?;
    let dims = match &recipe.config {
        Some(sizes) => serde_json::from_value(sizes.clone()).context("in the manifest's config")?,
        None => Dims::default(),
    };
    let sources = ImportSources {
        vit: files.input(Role::Vit),
        qformer: files.input(Role::Qformer),
        phi: files.input(Role::Phi),
        phi_tokenizer: None,
        checkpoint: files.input(Role::Checkpoint),
        stage: recipe.stage,
        retrieval: files.input(Role::Retrieval),
        retrieval_vocab: files.input(Role::RetrievalVocabulary),
        dims,
    };
    import::make(&sources, &args.conversion, name, &bundle, globals, printer)?;

    if args.remove_downloads {
        files.remove_fetched()?;
        let removed = Bytes(files.fetched_in_bytes());
        printer.note(&format!("removed {removed} of downloads; files that were here before stay"));
    } else {
        let kept = Bytes(files.size_in_bytes());
        let [hub, downloads] = places.map(|place| place.display().to_string());
        printer.note(&format!(
            "{kept} of downloads stay in `{hub}` and `{downloads}`; the model does not need them"
        ));
    }
    Ok(Outcome::Done)
}

fn recipe(args: &PullArgs) -> anyhow::Result<Recipe> {
    if let Some(path) = &args.manifest {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        return Recipe::from_json(&text).with_context(|| format!("in `{}`", path.display()));
    }
    let retrieval = match args.retrieval_from {
        Provider::Lavis => RetrievalFrom::Lavis,
        Provider::Hub => RetrievalFrom::Hub,
    };
    Recipe::published(&args.published, retrieval)
        .with_context(|| format!("`{}` is not a published model", args.published))
}

fn download(
    recipe: &Recipe,
    settings: Settings,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<LocalFiles> {
    let mut bar = Bar::new(globals);
    let pulled = Downloader::new(settings).pull(recipe, &mut |step| match step {
        Step::Asking(name) => tracing::info!(name, "asking"),
        Step::Begin { total_in_bytes, here_in_bytes } => {
            let (here, total) = (Bytes(here_in_bytes), Bytes(total_in_bytes));
            bar.note(printer, &format!("{}: {total} to have, {here} here already", recipe.name));
            if here_in_bytes < total_in_bytes {
                bar.begin(total_in_bytes, here_in_bytes);
            }
        }
        Step::File(name) => bar.now(printer, name),
        Step::Arrived(bytes) => bar.at(bytes),
        Step::Note(text) => bar.note(printer, text),
    });
    bar.finish();
    Ok(pulled?)
}
