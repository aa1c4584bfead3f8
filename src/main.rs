//! The `tinyfind` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tinyfind::cli::main()
}
