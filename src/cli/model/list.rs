//! `tinyfind model list`.

use clap::Args;
use serde_json::json;

use super::summary;
use crate::cli::Outcome;
use crate::cli::printer::{FAINT, Printer, STRONG};
use crate::model::bundle::Bundle;
use crate::model::hub::Bytes;
use crate::model::registry::Registry;

/// List the installed models.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs, printer: &mut Printer) -> anyhow::Result<Outcome> {
    let registry = Registry::of_user()?;
    let installed = registry.installed()?;
    if installed.is_empty() {
        printer.note(&format!("no model is installed in `{}`", registry.dir().display()));
        printer.hint("`tinyfind model pull` gets the published one");
        return Ok(Outcome::Nothing);
    }
    let default = registry.default_model()?;
    let longest = installed.iter().map(|model| model.name.chars().count()).max().unwrap_or(0);
    let mut outcome = Outcome::Done;
    for model in installed {
        let is_default = model.path == default;
        let bundle = match Bundle::open(&model.path) {
            Ok(bundle) => bundle,
            Err(error) => {
                outcome = Outcome::Failed;
                printer.error(&error.into());
                continue;
            }
        };
        let (parts, stage) = (summary::parts(&bundle), bundle.config().stage);
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        if args.json {
            let line = json!({
                "name": model.name,
                "path": model.path.to_string_lossy(),
                "size_in_bytes": model.size_in_bytes,
                "dtype": summary::dtypes(&parts),
                "stage": stage,
                "parts": names,
                "fingerprint": bundle.fingerprint(),
                "default": is_default,
            });
            writeln!(printer.stdout(), "{line}")?;
            continue;
        }
        let name = printer.paint(STRONG, &format!("{:longest$}", model.name));
        let mark = if is_default { printer.paint(FAINT, "  (default)") } else { String::new() };
        writeln!(
            printer.stdout(),
            "{name}  {:>8}  {:<10}  stage {stage}  {}{mark}",
            Bytes(model.size_in_bytes).to_string(),
            summary::dtypes(&parts),
            names.join(", "),
        )?;
    }
    Ok(outcome)
}
