//! Progress messages for people who wait for a start.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Receives what happens during a start.
///
/// Steps overlap, because both servers start at the same time. So every call names its step.
pub trait Progress: Send + Sync {
    /// The step `what` begins.
    fn step(&self, what: &str);
    /// The step `what` continues with `detail`, for example a file that is being downloaded.
    fn detail(&self, what: &str, detail: &str);
    /// The step `what` succeeded after the time `took`. `outcome` describes the result.
    fn done(&self, what: &str, outcome: &str, took: Duration);
    /// The step `what` failed. The call that reported the step returns the error.
    fn failed(&self, what: &str);
}

/// Ignores all messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn detail(&self, _: &str, _: &str) {}
    fn done(&self, _: &str, _: &str, _: Duration) {}
    fn failed(&self, _: &str) {}
}

/// Writes to stderr: spinners with the elapsed time if it is a terminal, else plain lines.
pub struct Terminal {
    screen: Option<MultiProgress>,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Terminal {
    /// Checks now, and only now, whether stderr is a terminal.
    pub fn new() -> Terminal {
        let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
        Terminal { screen, running: Mutex::default() }
    }

    fn say(&self, line: &str) {
        match &self.screen {
            // Lines that bypass the screen and the spinners would overwrite each other.
            Some(screen) => drop(screen.println(line)),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    fn end(&self, what: &str) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(what) {
            bar.finish_and_clear();
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Terminal {
    fn step(&self, what: &str) {
        let Some(screen) = &self.screen else {
            return self.say(&format!("  … {what}"));
        };
        let bar = screen.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("  {spinner} {prefix} {msg:.dim} {elapsed:.dim}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned(), bar);
    }

    fn detail(&self, what: &str, detail: &str) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(what) {
            bar.set_message(detail.to_owned());
        }
    }

    fn done(&self, what: &str, outcome: &str, took: Duration) {
        self.end(what);
        self.say(&format!("  ✓ {outcome} ({:.1} s)", took.as_secs_f64()));
    }

    fn failed(&self, what: &str) {
        self.end(what);
        self.say(&format!("  ✗ {what}"));
    }
}

/// A step that has begun. If it is dropped before [`Step::done`], it has failed.
pub struct Step<'p> {
    progress: &'p dyn Progress,
    what: String,
    begun: Instant,
    over: bool,
}

impl<'p> Step<'p> {
    /// Reports that the step `what` begins.
    pub fn begin(progress: &'p dyn Progress, what: impl Into<String>) -> Step<'p> {
        let what = what.into();
        progress.step(&what);
        Step { progress, what, begun: Instant::now(), over: false }
    }

    /// Reports what the step does now, for example the file that is being downloaded.
    pub fn detail(&self, detail: &str) {
        self.progress.detail(&self.what, detail);
    }

    /// Reports that the step succeeded. `outcome` describes the result.
    pub fn done(mut self, outcome: &str) {
        self.over = true;
        self.progress.done(&self.what, outcome, self.begun.elapsed());
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.progress.failed(&self.what);
        }
    }
}
