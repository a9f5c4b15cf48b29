//! Processes of this machine, as `/proc` shows them.

use std::fmt;
use std::fs;
use std::time::Duration;

/// How long a wait for another process pauses between two checks.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A process, described as `ps` would describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, cut after 120 characters.
    pub command: String,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Process {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let mut command: String = line.trim().chars().take(120).collect();
        // Kernel threads and zombies have a name, but no command line.
        if command.is_empty() {
            command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        }
        Process { pid, command }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// The user of a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process. It is `None` if the process belongs to another user or another container, which hides it.
    pub process: Option<Process>,
    /// Whether the process listens on the port. If not, the port is the local end of an outgoing connection and
    /// becomes free when that connection ends.
    pub listening: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, self.listening) {
            (Some(process), true) => write!(f, "{process}"),
            (Some(process), false) => write!(f, "an outgoing connection of {process}"),
            (None, true) => {
                f.write_str("a process that can't be seen from here (another user's, or a container's)")
            }
            (None, false) => f.write_str("a connection that is just being closed"),
        }
    }
}

/// Returns the ids of all processes that this process may see.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
