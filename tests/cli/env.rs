//! A home of its own for every test.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary home folder, in which the program is run.
pub(crate) struct Env {
    home: tempfile::TempDir,
}

impl Env {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// The home folder, which is the current folder too.
    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap()
    }

    /// The program, about to be run with nothing of the real environment that matters to it.
    pub(crate) fn command<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfind"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["XDG_", "TINYFIND_", "HF_", "RUST_LOG", "NO_COLOR"]
                .iter()
                .any(|it| text.starts_with(it))
            {
                command.env_remove(&name);
            }
        }
        command.current_dir(self.home()).env("HOME", self.home()).env("COLUMNS", "100");
        command.args(arguments);
        command
    }

    /// Runs the program on words split at spaces.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with(line.split_whitespace(), b"")
    }

    /// Runs the program on `arguments`, with `stdin`.
    pub(crate) fn run_with<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
        stdin: &[u8],
    ) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Whoever does not read stdin closes it early.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Ran { output: child.wait_with_output().unwrap(), home: self.home() }
    }
}

/// What came of running the program.
pub(crate) struct Ran {
    pub(crate) output: Output,
    pub(crate) home: PathBuf,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        self.named(&self.output.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        self.named(&self.output.stderr)
    }

    /// Exit code, stdout and stderr, with the home folder as `~`.
    pub(crate) fn text(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        format!("exit {}\n--- stdout\n{stdout}--- stderr\n{stderr}", self.code())
    }

    fn named(&self, bytes: &[u8]) -> String {
        let home: &Path = &self.home;
        String::from_utf8_lossy(bytes).replace(&*home.to_string_lossy(), "~")
    }
}
