//! Which TCP ports are used, and by whom.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;

/// The ports of both servers, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Where PostgreSQL listens.
    pub postgres: u16,
    /// Where Kafka's clients connect.
    pub kafka: u16,
    /// Where Kafka's controller listens; only the broker itself connects there.
    pub kafka_controller: u16,
}

impl Ports {
    /// Picks three free ports, for tests.
    pub fn free() -> io::Result<Ports> {
        Ok(Ports { postgres: free_port()?, kafka: free_port()?, kafka_controller: free_port()? })
    }
}

/// Picks one free port below the range from which the kernel takes the ports of outgoing connections, so
/// that none of those grabs it before the server is up. A process never picks the same port twice.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 15_000;
    static START: OnceLock<u32> = OnceLock::new();
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // A random start keeps processes that run at the same time apart.
    let start = *START.get_or_init(|| (RandomState::new().hash_one(std::process::id()) % 15_000) as u32);
    for _ in 0..COUNT {
        let next = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + next) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port between 15000 and 30000 is free"))
}

/// Who uses a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process, unless it belongs to another user or another container and can't be seen.
    pub process: Option<Process>,
    /// False when the port is merely the near end of an outgoing connection, which passes.
    pub listening: bool,
}

/// A process as `ps` would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, cut to a readable length.
    pub command: String,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Process {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let mut command: String = line.trim().chars().take(120).collect();
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

/// Fails with an error that names the holder when `port` can't be bound; `what` says what it is for.
pub fn ensure_free(port: u16, what: &str) -> Result<(), Error> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => {
            Err(Error::PortBusy { port, what: what.to_owned(), holder: port_holder(port) })
        }
        Err(source) => Err(Error::PortRefused { port, what: what.to_owned(), source }),
    }
}

/// Finds out who uses a local TCP port, a listener before anyone else.
pub fn port_holder(port: u16) -> Option<Holder> {
    let mut sockets: Vec<Socket> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(Socket::parse).collect::<Vec<_>>())
        .filter(|socket| socket.port == port)
        .collect();
    sockets.sort_by_key(|socket| !socket.listening);
    let first = sockets.first()?;
    // Inode 0 means that no process has the socket any more (it is in TIME_WAIT).
    let process = (first.inode != 0).then(|| owner(first.inode)).flatten();
    Some(Holder { process, listening: first.listening })
}

struct Socket {
    port: u16,
    listening: bool,
    inode: u64,
}

impl Socket {
    /// Reads one line of /proc/net/tcp: `sl local rem st queues timer retransmits uid timeout inode …`.
    fn parse(line: &str) -> Option<Socket> {
        let mut columns = line.split_whitespace();
        let port = columns.nth(1)?.rsplit_once(':')?.1;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        Some(Socket {
            port: u16::from_str_radix(port, 16).ok()?,
            listening: state == "0A",
            inode: inode.parse().ok()?,
        })
    }
}

fn owner(inode: u64) -> Option<Process> {
    let wanted = format!("socket:[{inode}]");
    pids()
        .find(|pid| {
            let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                return false;
            };
            open.flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
        })
        .map(Process::of)
}

/// All processes that can be seen.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
