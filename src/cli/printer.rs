//! Where everything that a person or a script reads goes out: data to stdout, the rest to stderr.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};

use super::globals::Globals;
use super::report;

/// Matched words, ranks, and what a table is about.
pub(crate) const STRONG: Style = Style::new().bold();
/// Words of a caption that the query names.
pub(crate) const MATCHED: Style = Style::new().bold().underline();
/// What can be skipped when reading.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Something went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something wants attention.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Something failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Owner of stdout and stderr.
pub(crate) struct Printer {
    stdout: Stdout,
    color_on_stderr: bool,
    quiet: bool,
}

/// Stdout, buffered, which remembers that its reader went away.
struct Stdout {
    inner: BufWriter<io::Stdout>,
    pipe_closed: bool,
    is_terminal: bool,
    color: bool,
}

impl Stdout {
    fn remember<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.pipe_closed |= error.kind() == io::ErrorKind::BrokenPipe;
        }
        result
    }
}

impl Write for Stdout {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(buffer);
        self.remember(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.remember(result)
    }
}

impl Printer {
    /// A printer that heeds `--color` (and `NO_COLOR`) and `--quiet`.
    pub(crate) fn new(globals: &Globals) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            stdout: Stdout {
                inner: BufWriter::new(io::stdout()),
                pipe_closed: false,
                is_terminal,
                color: wants_color(globals.color, is_terminal),
            },
            color_on_stderr: wants_color(globals.color, io::stderr().is_terminal()),
            quiet: globals.quiet,
        }
    }

    /// Where data goes.
    pub(crate) fn stdout(&mut self) -> &mut dyn Write {
        &mut self.stdout
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Whether the reader of stdout went away: what it read was enough for it.
    pub(crate) fn pipe_closed(&self) -> bool {
        self.stdout.pipe_closed
    }

    /// `text` for stdout, in `style` where colours are on.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        paint(self.stdout.color, style, text)
    }

    /// `text` for [`Self::note`], in `style` where colours are on.
    pub(crate) fn paint_note(&self, style: Style, text: &str) -> String {
        paint(self.color_on_stderr, style, text)
    }

    /// Writes `path` to stdout byte for byte, but for control characters, and bytes that are not
    /// UTF-8, where a terminal might obey them: a file name must not move a cursor.
    pub(crate) fn path(&mut self, path: &Path) -> io::Result<()> {
        if self.stdout.is_terminal {
            let shown = printable(path.as_os_str());
            self.stdout.write_all(&shown)
        } else {
            self.raw_path(path)
        }
    }

    /// Writes `path` to stdout byte for byte.
    pub(crate) fn raw_path(&mut self, path: &Path) -> io::Result<()> {
        self.stdout.write_all(path.as_os_str().as_encoded_bytes())
    }

    /// Says something by the way on stderr, unless `-q`.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.tell(text);
        }
    }

    /// Warns on stderr, unless `-q`.
    pub(crate) fn warn(&mut self, text: &str) {
        if !self.quiet {
            let label = paint(self.color_on_stderr, WARNING, "warning:");
            self.tell(&format!("{label} {text}"));
        }
    }

    /// Tells the next step on stderr, unless `-q`.
    pub(crate) fn hint(&mut self, text: &str) {
        if !self.quiet {
            let label = paint(self.color_on_stderr, GOOD, "hint:");
            self.tell(&format!("{label} {text}"));
        }
    }

    /// Prints an error with its causes and the next step, even under `-q`.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        let text = report::describe(error, self.color_on_stderr);
        self.tell(&text);
    }

    /// One line or more on stderr. Whoever closed stderr does not want to know.
    fn tell(&mut self, text: &str) {
        // What was printed before comes before, also where both go to one file.
        let _ = self.stdout.flush();
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// `text` in `style`, if `color`.
pub(crate) fn paint(color: bool, style: Style, text: &str) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Whether `choice` means colours on a stream that is or is not a terminal.
///
/// `NO_COLOR`, set to anything but nothing, turns `auto` off (<https://no-color.org>).
pub(super) fn wants_color(choice: ColorChoice, is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => is_terminal && !set("NO_COLOR") && !is_dumb,
    }
}

/// The bytes of `name` with those of control characters and those that are not UTF-8 as `\xNN`:
/// some terminals obey U+0080 to U+009F, as characters or as bytes.
fn printable(name: &OsStr) -> Vec<u8> {
    let mut shown = Vec::with_capacity(name.len());
    let escape = |shown: &mut Vec<u8>, bytes: &[u8]| {
        for byte in bytes {
            shown.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    };
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            if c.is_control() {
                escape(&mut shown, bytes);
            } else {
                shown.extend_from_slice(bytes);
            }
        }
        escape(&mut shown, chunk.invalid());
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn control_characters_of_a_name_do_not_reach_a_terminal() {
        assert_eq!(printable(OsStr::new("a\x1b[2Jü.jpg")), "a\\x1b[2Jü.jpg".as_bytes());
        assert_eq!(printable(OsStr::new("a\u{9b}2J")), b"a\\xc2\\x9b2J");
        assert_eq!(printable(OsStr::from_bytes(b"a\x9b2J")), b"a\\x9b2J");
    }

    #[test]
    fn color_only_where_asked_for() {
        assert_eq!(paint(false, STRONG, "x"), "x");
        assert_eq!(paint(true, STRONG, "x"), "\u{1b}[1mx\u{1b}[0m");
        assert!(!wants_color(ColorChoice::Auto, false));
        assert!(wants_color(ColorChoice::Always, false));
        assert!(!wants_color(ColorChoice::Never, true));
    }
}
