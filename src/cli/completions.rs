//! `tinyfind completions`: completion scripts.

use clap::Args;
use clap_complete::Shell;

use super::Outcome;
use super::printer::Printer;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tinyfind completions bash > ~/.local/share/bash-completion/completions/tinyfind
  tinyfind completions fish > ~/.config/fish/completions/tinyfind.fish
  tinyfind completions zsh  > ~/.zfunc/_tinyfind")]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

pub(crate) fn run(
    args: &CompletionsArgs,
    command: &mut clap::Command,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    // Made in memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "tinyfind", &mut script);
    printer.stdout().write_all(&script)?;
    Ok(Outcome::Done)
}
