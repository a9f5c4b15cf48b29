//! Telling a waiting person what is being waited for.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Hears what is going on. Steps overlap (both servers start at once), so each is named in every call.
pub trait Progress: Send + Sync {
    /// `what` begins.
    fn step(&self, what: &str);
    /// `what` goes on, now with `detail`.
    fn detail(&self, what: &str, detail: &str);
    /// `what` is over, after `took`; `outcome` says what there is now.
    fn done(&self, what: &str, outcome: &str, took: Duration);
    /// `what` failed; the error that the call returns says why.
    fn failed(&self, what: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn detail(&self, _: &str, _: &str) {}
    fn done(&self, _: &str, _: &str, _: Duration) {}
    fn failed(&self, _: &str) {}
}

/// Spinners with the time elapsed on a terminal's stderr, plain lines on any other.
pub struct Terminal {
    screen: Option<MultiProgress>,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Terminal {
    /// Looks once whether stderr is a terminal.
    pub fn new() -> Terminal {
        let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
        Terminal { screen, running: Mutex::default() }
    }

    fn say(&self, line: &str) {
        match &self.screen {
            // Between spinners only the screen itself may print, or the lines overwrite each other.
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

/// One step: begun when made, failed when dropped before it was done.
pub struct Step<'p> {
    progress: &'p dyn Progress,
    what: String,
    begun: Instant,
    over: bool,
}

impl<'p> Step<'p> {
    /// `what` begins.
    pub fn begin(progress: &'p dyn Progress, what: impl Into<String>) -> Step<'p> {
        let what = what.into();
        progress.step(&what);
        Step { progress, what, begun: Instant::now(), over: false }
    }

    /// It goes on, now with `detail`.
    pub fn detail(&self, detail: &str) {
        self.progress.detail(&self.what, detail);
    }

    /// It is over; `outcome` says what there is now.
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
