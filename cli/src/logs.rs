//! `amends logs`: the logs of a suite on this machine.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::output::say;
use crate::run::Where;
use crate::suite::SERVICES;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much of the end of a file is read at most, for its last lines.
const TAIL: u64 = 1 << 20;

/// Which logs to show.
#[derive(Debug, Args)]
pub struct Logs {
    /// A service, or postgres, kafka, or up (a suite in the background); all services unless given.
    #[arg(value_parser = PossibleValuesParser::new(SERVICES.into_iter().chain(["postgres", "kafka", "up"])))]
    part: Option<String>,
    /// How many of the last lines of each log to show.
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    place: Where,
}

/// A log that is read.
struct Log {
    name: String,
    path: PathBuf,
    reader: BufReader<File>,
}

impl Log {
    fn open(name: &str, path: PathBuf) -> anyhow::Result<Self> {
        let file = File::open(&path).with_context(|| {
            format!("can't read {}; has a suite been started with this --state?", path.display())
        })?;
        Ok(Self { name: name.to_owned(), path, reader: BufReader::new(file) })
    }

    /// Returns whether the file that is read has another name now.
    fn was_renamed(&self) -> bool {
        let read = self.reader.get_ref().metadata().map(|file| (file.dev(), file.ino()));
        let named = std::fs::metadata(&self.path).map(|file| (file.dev(), file.ino()));
        !matches!((read, named), (Ok(read), Ok(named)) if read == named)
    }

    /// Reads the last lines.
    fn tail(&mut self, lines: usize) -> anyhow::Result<Vec<String>> {
        let length = self.reader.seek(SeekFrom::End(0))?;
        self.reader.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let all = self.rest()?;
        Ok(all[all.len().saturating_sub(lines)..].to_vec())
    }

    /// Reads the lines that were written since the last call.
    fn rest(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = self.reader.read_until(b'\n', &mut bytes);
            let read = read.with_context(|| format!("can't read {}", self.path.display()))?;
            if read == 0 {
                return Ok(lines);
            }
            if bytes.last() != Some(&b'\n') {
                // The rest of the line is not written yet.
                self.reader.seek_relative(-i64::try_from(read)?)?;
                return Ok(lines);
            }
            lines.push(plain(&String::from_utf8_lossy(&bytes)));
        }
    }
}

/// Returns a line without its end, and with control characters in a form that a terminal does not obey.
fn plain(line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    line.chars().fold(String::with_capacity(line.len()), |mut plain, c| {
        if c.is_control() && c != '\t' {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
        plain
    })
}

impl Logs {
    pub fn run(self) -> anyhow::Result<()> {
        let state = self.place.state();
        let names = self.part.as_ref().map_or_else(|| SERVICES.to_vec(), |part| vec![part.as_str()]);
        let mut logs = Vec::new();
        for name in names {
            let folder = if SERVICES.contains(&name) { state.join("logs") } else { state.clone() };
            logs.push(Log::open(name, folder.join(format!("{name}.log")))?);
        }
        let named = logs.len() > 1;
        for log in &mut logs {
            let lines = log.tail(self.lines)?;
            print(log, &lines, named);
        }
        if self.follow { follow(&mut logs, named) } else { Ok(()) }
    }
}

/// Prints what is written to the logs, until this process is ended.
fn follow(logs: &mut [Log], named: bool) -> anyhow::Result<()> {
    loop {
        std::thread::sleep(LOOK_EVERY);
        for log in &mut *logs {
            let lines = log.rest()?;
            print(log, &lines, named);
            // At a server's start its log gets another name, and a new one begins.
            if log.was_renamed()
                && let Ok(new) = Log::open(&log.name, log.path.clone())
            {
                *log = new;
            }
        }
    }
}

fn print(log: &Log, lines: &[String], named: bool) {
    for line in lines {
        if named {
            say!("{:<13} {line}", log.name);
        } else {
            say!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_read_and_then_what_is_added() {
        let path = std::env::temp_dir().join(format!("amends-logs-{}", std::process::id()));
        std::fs::write(&path, "one\ntwo\u{1b}[31m\nthree\nfo").expect("a file");
        let mut log = Log::open("order", path.clone()).expect("a log");
        assert_eq!(log.tail(2).expect("lines"), ["two\\u{1b}[31m", "three"]);
        assert!(log.rest().expect("lines").is_empty(), "a line that is not complete waits");
        let mut file = File::options().append(true).open(&path).expect("a file");
        file.write_all(b"ur\nfive\n").expect("written");
        assert_eq!(log.rest().expect("lines"), ["four", "five"]);
        assert!(!log.was_renamed());
        std::fs::remove_file(&path).expect("removed");
        assert!(log.was_renamed());
        let missing = Log::open("order", path.clone()).err().expect("no file").to_string();
        assert!(missing.contains(&path.display().to_string()), "{missing}");
    }
}
