//! How far a long job has come: bars where a person watches, a line now and then elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::globals::Globals;
use super::units;

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Progress of one phase after the other, on stderr.
pub(crate) struct Progress {
    speaker: Speaker,
    phase: Option<Phase>,
}

/// Prints lines above the bar of the phase under way; for other threads too.
#[derive(Clone)]
pub(crate) struct Speaker {
    shown: Shown,
    bar: Arc<Mutex<ProgressBar>>,
}

impl Speaker {
    /// Prints a line that stays, unless `-q`.
    pub(crate) fn say(&self, line: &str) {
        if self.shown != Shown::No {
            let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
            bar.suspend(|| print_line(line));
        }
    }

    fn show(&self, new: ProgressBar) {
        let old =
            std::mem::replace(&mut *self.bar.lock().unwrap_or_else(PoisonError::into_inner), new);
        old.finish_and_clear();
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// A bar that is drawn again and again.
    Bar,
    /// A line every [`BETWEEN_LINES`], for logs and pipes.
    Lines,
    /// Not at all: `-q`.
    No,
}

/// The phase under way.
struct Phase {
    /// What it does, as `embedding`.
    name: &'static str,
    /// Of how many; `None` while that is being found out.
    total: Option<u64>,
    /// How many were done before it began here.
    before: u64,
    done: u64,
    /// What else there is to say, as `loss 1.234`.
    note: String,
    begun: Instant,
    last_line: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// Bars on a terminal, lines elsewhere and beside the log of `-v`, nothing under `-q`.
    pub(crate) fn new(globals: &Globals) -> Self {
        let is_watched = io::stderr().is_terminal() && globals.verbose == 0;
        let shown = match (globals.quiet, is_watched) {
            (true, _) => Shown::No,
            (false, true) => Shown::Bar,
            (false, false) => Shown::Lines,
        };
        let bar = Arc::new(Mutex::new(ProgressBar::hidden()));
        Self { speaker: Speaker { shown, bar }, phase: None }
    }

    /// What prints lines above the bar.
    pub(crate) fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Begins a phase of `total` steps, or of nobody knows how many; ends the one before.
    pub(crate) fn begin(&mut self, name: &'static str, total: Option<u64>) {
        self.start(name, total, 0);
    }

    fn start(&mut self, name: &'static str, total: Option<u64>, done: u64) {
        self.end();
        let bar = match self.speaker.shown {
            Shown::Bar => bar(name, total, done),
            Shown::Lines | Shown::No => ProgressBar::hidden(),
        };
        self.speaker.show(bar.clone());
        let now = Instant::now();
        self.phase = Some(Phase {
            name,
            total,
            before: done,
            done,
            note: String::new(),
            begun: now,
            last_line: now,
            bar,
        });
    }

    /// Begins a phase of which `done` steps were done by an earlier run.
    pub(crate) fn begin_at(&mut self, name: &'static str, total: u64, done: u64) {
        self.start(name, Some(total), done);
    }

    /// Whether the phase under way is the one of that name.
    pub(crate) fn is_at(&self, name: &str) -> bool {
        self.phase.as_ref().is_some_and(|phase| phase.name == name)
    }

    /// Says something else about the phase, in place of what was said before.
    pub(crate) fn tell(&mut self, note: String) {
        if let Some(phase) = &mut self.phase {
            phase.bar.set_message(note.clone());
            phase.note = note;
        }
    }

    /// Says that `done` steps of the phase are done.
    pub(crate) fn at(&mut self, done: u64) {
        let Some(phase) = &mut self.phase else { return };
        phase.done = done;
        phase.bar.set_position(done);
        if self.speaker.shown == Shown::Lines && phase.last_line.elapsed() >= BETWEEN_LINES {
            phase.last_line = Instant::now();
            self.speaker.say(&phase.line());
        }
    }

    /// Says that `steps` more of the phase are done.
    pub(crate) fn advance(&mut self, steps: u64) {
        let done = self.phase.as_ref().map_or(0, |phase| phase.done);
        self.at(done + steps);
    }

    /// Ends the phase, with a line of how far it came where lines are printed.
    pub(crate) fn end(&mut self) {
        let Some(phase) = self.phase.take() else { return };
        self.speaker.show(ProgressBar::hidden());
        if self.speaker.shown == Shown::Lines && phase.done > 0 {
            self.speaker.say(&phase.line());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

impl Phase {
    /// `embedding: 120 of 500 (24 %), 3.2 a second, 2 min 05 s left`.
    fn line(&self) -> String {
        let mut line = format!("{}: {}", self.name, units::count(self.done));
        let Some(total) = self.total else { return line };
        let percent = units::percent(self.done, total);
        let _ = write!(line, " of {} ({percent})", units::count(total));
        if !self.note.is_empty() {
            let _ = write!(line, ", {}", self.note);
        }
        let elapsed = self.begun.elapsed().as_secs_f64();
        if self.done > self.before && elapsed > 0.0 {
            let per_second = (self.done - self.before) as f64 / elapsed;
            let _ = write!(line, ", {}", units::rate(per_second));
            if self.done < total {
                let left = (total - self.done) as f64 / per_second;
                let left = units::duration(Duration::from_secs_f64(left));
                let _ = write!(line, ", {left} left");
            }
        }
        line
    }
}

/// One line on stderr. Whoever closed stderr does not want to know.
fn print_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn bar(name: &'static str, total: Option<u64>, done: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    let template = match total {
        Some(_) => "{prefix:<10} {wide_bar} {count} {rate} {left} {msg}",
        None => "{prefix:<10} {spinner} {count}",
    };
    let count = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let done = units::count(state.pos());
        let _ = match state.len() {
            Some(total) => write!(text, "{done} of {}", units::count(total)),
            None => write!(text, "{done}"),
        };
    };
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        if state.per_sec() > 0.0 {
            let _ = write!(text, "{}", units::rate(state.per_sec()));
        }
    };
    let left = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        if state.per_sec() > 0.0 {
            let _ = write!(text, "{} left", units::duration(state.eta()));
        }
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("count", count)
        .with_key("rate", rate)
        .with_key("left", left);
    bar.set_style(style);
    bar.set_prefix(name);
    // A bar notes its position when it is drawn, and takes what was done before for the work of a
    // moment: so it is drawn once where nobody sees it.
    bar.set_position(done);
    bar.tick();
    bar.reset_eta();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_count_rate_and_time_left() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let mut phase = Phase {
            name: "embedding",
            total: Some(1500),
            before: 0,
            done: 500,
            note: String::new(),
            begun: ago(100),
            last_line: ago(0),
            bar: ProgressBar::hidden(),
        };
        assert_eq!(phase.line(), "embedding: 500 of 1,500 (33 %), 5.0 a second, 3 min 20 s left");
        (phase.before, phase.note) = (400, "loss 0.500".to_owned());
        assert_eq!(
            phase.line(),
            "embedding: 500 of 1,500 (33 %), loss 0.500, 60.0 a minute, 16 min 40 s left"
        );
        (phase.before, phase.note) = (0, String::new());
        phase.done = 1500;
        assert_eq!(phase.line(), "embedding: 1,500 of 1,500 (100 %), 15.0 a second");
        phase.done = 0;
        assert_eq!(phase.line(), "embedding: 0 of 1,500 (0 %)");
        phase.total = None;
        assert_eq!(phase.line(), "embedding: 0");
    }
}
