//! Errors as a person reads them, and the log.

use std::fmt;
use std::io::IsTerminal as _;

use super::globals::Globals;
use super::printer::{BAD, GOOD, paint, wants_color};

/// Gives an error the next step, which is printed below it as `hint:`.
pub(crate) trait WithHint<T> {
    /// Adds `hint` to an error; without an error it is not made.
    fn hint<H: Into<String>>(self, hint: impl FnOnce() -> H) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    fn hint<H: Into<String>>(self, hint: impl FnOnce() -> H) -> anyhow::Result<T> {
        self.map_err(|error| hinted(error, hint()))
    }
}

/// `error` with the next step.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { error: error.into(), hint: hint.into() })
}

/// An error that knows the next step; it reads like the error itself.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// `error: ...`, a line for each cause, and the hint.
pub(super) fn describe(error: &anyhow::Error, color: bool) -> String {
    let mut text = format!("{} {error}", paint(color, BAD, "error:"));
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !last.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
        last = cause;
    }
    if let Some(hint) = find_hint(error) {
        text.push('\n');
        text.push_str(&paint(color, GOOD, "hint:"));
        text.push(' ');
        text.push_str(hint);
    }
    text
}

fn find_hint(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()).map(|it| it.hint.as_str())
}

/// Starts the log on stderr: warnings, with `-v` what happens, with `-vv` and `-vvv` more of it.
/// `RUST_LOG` overrules.
pub(super) fn start_log(globals: &Globals) {
    let level = match (globals.quiet, globals.verbose) {
        (true, _) => "off",
        (false, 0) => "tinyfind=warn,tinyfind_index=warn,off",
        (false, 1) => "tinyfind=info,tinyfind_index=info,warn",
        (false, 2) => "tinyfind=debug,tinyfind_index=debug,info",
        (false, _) => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // A second start in one process (tests) keeps the first log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(wants_color(globals.color, std::io::stderr().is_terminal()))
        .with_target(false)
        .without_time()
        .try_init();
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_the_next_step() {
        let error = Err::<(), _>(std::io::Error::other("disk on fire"))
            .context("cannot read `x`")
            .hint(|| "buy a new disk")
            .context("cannot open the index")
            .expect_err("made above");
        insta::assert_snapshot!(describe(&error, false), @r"
        error: cannot open the index
          caused by: cannot read `x`
          caused by: disk on fire
        hint: buy a new disk
        ");
    }

    #[test]
    fn a_cause_that_was_told_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot open: no such file");
        assert_eq!(describe(&error, false), "error: cannot open: no such file");
    }
}
