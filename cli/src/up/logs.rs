//! Bounds the logs of a running suite. Its programs append to them for as long as the suite runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::output::complain;

/// A log that is longer is emptied; what it had is kept until the next time.
const LONGEST: u64 = 16 * 1024 * 1024;
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Bounds the logs in some folders.
pub struct Logs<'f> {
    folders: [&'f Path; 2],
    looked: Instant,
}

impl<'f> Logs<'f> {
    pub fn new(folders: [&'f Path; 2]) -> Self {
        Self { folders, looked: Instant::now() }
    }

    /// Bounds the logs, if the last look is some seconds ago.
    pub fn bound(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        for folder in self.folders {
            if let Err(error) = bound(folder, LONGEST) {
                complain!("the logs in {} can't be bounded: {error}", folder.display());
            }
        }
    }
}

/// Empties the logs of a folder that are longer than `longest`, and keeps a copy of each beside it. A program keeps its log
/// open, so the file must stay the same. The few lines between the copy and the emptying are lost.
fn bound(folder: &Path, longest: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && fs::metadata(&path)?.len() > longest {
            let mut before = File::create(path.with_extension("log.1"))?;
            io::copy(&mut File::open(&path)?, &mut before)?;
            OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_emptied_and_written_on() {
        let folder = std::env::temp_dir().join(format!("amends-logs-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("order.log");
        let mut log = OpenOptions::new().create(true).append(true).open(&path).expect("a log");
        let other = folder.join("data");
        fs::write(&other, "not a log, and long").expect("a file");
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a text");
        for line in ["first", "second"] {
            log.write_all(line.as_bytes()).expect("written");
            bound(&folder, 10).expect("bounded");
        }
        assert_eq!((text("order.log").as_str(), text("order.log.1").as_str()), ("", "firstsecond"));
        log.write_all(b"third").expect("written");
        bound(&folder, 10).expect("bounded");
        assert_eq!((text("order.log").as_str(), text("data").as_str()), ("third", "not a log, and long"));
        fs::remove_dir_all(&folder).expect("removed");
    }
}
