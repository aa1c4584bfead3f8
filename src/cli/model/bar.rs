//! One bar on stderr for work that is counted in bytes.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::globals::Globals;
use crate::cli::printer::Printer;

/// What has been done, how fast, and how long the rest will take; on a terminal only.
///
/// Where there is no terminal, or a log is being written to it, what the bar would show is
/// said in lines instead, one for each new thing.
pub(super) struct Bar {
    bar: ProgressBar,
    what: String,
}

impl Bar {
    pub(super) fn new(globals: &Globals) -> Self {
        let bar = if globals.quiet || globals.verbose > 0 {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        };
        Self { bar, what: String::new() }
    }

    /// From here on `total` bytes are counted, of which `done` are done.
    pub(super) fn begin(&self, total: u64, done: u64) {
        // The template is constant, and a wrong one only makes a plainer bar.
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:24} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  \
             {eta} left  {wide_msg}",
        ) {
            self.bar.set_style(style.progress_chars("━╸─"));
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        // What was done before says nothing about the rate.
        self.bar.reset_eta();
        self.bar.enable_steady_tick(Duration::from_millis(250));
    }

    /// So many bytes are done.
    pub(super) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// What is worked on now.
    pub(super) fn now(&mut self, printer: &mut Printer, what: &str) {
        if self.what == what {
            return;
        }
        what.clone_into(&mut self.what);
        if self.bar.is_hidden() {
            printer.note(what);
        } else {
            self.bar.set_message(what.to_owned());
        }
    }

    /// Says something by the way, above the bar.
    pub(super) fn note(&self, printer: &mut Printer, text: &str) {
        self.bar.suspend(|| printer.note(text));
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
