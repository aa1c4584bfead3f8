//! `tinyfind model verify`.

use std::ffi::OsString;

use clap::Args;

use super::open;
use crate::cli::Outcome;
use crate::cli::globals::Globals;
use crate::cli::printer::Printer;
use crate::cli::report::hinted;
use crate::model::hub::Bytes;

/// Read every tensor of a bundle and check it.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Bundle file or name of an installed model [default: as `--model`]
    #[arg(value_name = "BUNDLE|NAME")]
    bundle: Option<OsString>,
}

/// Names each broken tensor on stdout and fails if there is one.
pub(super) fn run(
    args: &VerifyArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let bundle = open(args.bundle.as_deref(), globals)?;
    let found = bundle.verify()?;
    for tensor in &found.bad {
        writeln!(printer.stdout(), "{}: {}", tensor.name, tensor.what)?;
    }
    if found.bad.is_empty() {
        let (name, tensors) = (bundle.name(), found.tensors);
        printer.note(&format!("{name}: {tensors} tensors are sound, {}", Bytes(found.bytes)));
        return Ok(Outcome::Done);
    }
    let broken = anyhow::anyhow!(
        "{} of {} tensors of `{}` are broken",
        found.bad.len(),
        found.tensors,
        bundle.path().display()
    );
    Err(hinted(
        broken,
        "make the bundle again with `tinyfind model import` or `model pull --force`",
    ))
}
