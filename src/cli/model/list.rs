//! `tinyfind model list`.

use clap::Args;
use serde_json::json;

use super::summary;
use crate::cli::Outcome;
use crate::cli::printer::{FAINT, Printer, STRONG};
use crate::model::hub::Bytes;
use crate::model::registry::{BUILT_IN, Location, Registry};

/// List the installed models and the built-in one.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs, printer: &mut Printer) -> anyhow::Result<Outcome> {
    let registry = Registry::of_user()?;
    let installed = registry.installed()?;
    let default = registry.default_model()?;
    let mut models: Vec<(String, Location)> =
        installed.into_iter().map(|model| (model.name, Location::File(model.path))).collect();
    if models.iter().all(|(name, _)| name != BUILT_IN) {
        models.push((BUILT_IN.to_owned(), Location::BuiltIn));
    }
    let longest = models.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut outcome = Outcome::Done;
    for (name, place) in models {
        let bundle = match place.open() {
            Ok(bundle) => bundle,
            Err(error) => {
                outcome = Outcome::Failed;
                printer.error(&error.into());
                continue;
            }
        };
        let (is_default, is_built_in) = (place == default, place == Location::BuiltIn);
        let (parts, stage) = (summary::parts(&bundle), bundle.config().stage);
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        if args.json {
            let line = json!({
                "name": name,
                "path": (!is_built_in).then(|| bundle.path().to_string_lossy()),
                "size_in_bytes": bundle.size_in_bytes(),
                "dtype": summary::dtypes(&parts),
                "stage": stage,
                "parts": names,
                "fingerprint": bundle.fingerprint(),
                "built_in": is_built_in,
                "default": is_default,
            });
            writeln!(printer.stdout(), "{line}")?;
            continue;
        }
        let marks = match (is_built_in, is_default) {
            (true, true) => "  (built in, default)",
            (true, false) => "  (built in)",
            (false, true) => "  (default)",
            (false, false) => "",
        };
        let name = printer.paint(STRONG, &format!("{name:longest$}"));
        let marks = printer.paint(FAINT, marks);
        writeln!(
            printer.stdout(),
            "{name}  {:>8}  {:<10}  stage {stage}  {}{marks}",
            Bytes(bundle.size_in_bytes()).to_string(),
            summary::dtypes(&parts),
            names.join(", "),
        )?;
    }
    if default == Location::BuiltIn {
        printer.hint(&format!(
            "`tinyfind model pull` gets the published model, into `{}`",
            registry.dir().display()
        ));
    }
    Ok(outcome)
}
