//! TCP ports on loopback: the ones the servers use, free ones, and the processes that hold them.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::process::{Holder, Process, pids};

/// The ports of both servers, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The port of PostgreSQL.
    pub postgres: u16,
    /// The port that Kafka's clients connect to.
    pub kafka: u16,
    /// The port of Kafka's controller. Only the broker itself connects to it.
    pub kafka_controller: u16,
}

impl Ports {
    /// Picks three free ports, for tests.
    ///
    /// Fails if no port between 15000 and 30000 is free.
    pub fn free() -> io::Result<Ports> {
        Ok(Ports { postgres: free_port()?, kafka: free_port()?, kafka_controller: free_port()? })
    }
}

/// Picks a free port between 15000 and 30000. A process never gets the same port twice.
///
/// The range lies below the one from which the kernel takes the ports of outgoing connections. Such a connection
/// could otherwise take the port before the server is up. Fails if the whole range is in use.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 15_000;
    static START: OnceLock<u32> = OnceLock::new();
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time start at different random ports, so they seldom pick the same one.
    let start =
        *START.get_or_init(|| (RandomState::new().hash_one(std::process::id()) % u64::from(COUNT)) as u32);
    for _ in 0..COUNT {
        let next = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + next) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port between 15000 and 30000 is free"))
}

/// Checks that `port` can be bound on 127.0.0.1. `what` is the port's purpose, for the error message.
///
/// Fails with [`Error::PortBusy`], which names the holder, or with [`Error::PortRefused`] if the kernel refuses the
/// port.
pub fn ensure_free(port: u16, what: &str) -> Result<(), Error> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => {
            Err(Error::PortBusy { port, what: what.to_owned(), holder: port_holder(port) })
        }
        Err(source) => Err(Error::PortRefused { port, what: what.to_owned(), source }),
    }
}

/// Returns the user of a local TCP port, or `None` if nothing uses it. A listener comes before all others.
pub fn port_holder(port: u16) -> Option<Holder> {
    let mut sockets: Vec<Socket> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(Socket::parse).collect::<Vec<_>>())
        .filter(|socket| socket.port == port)
        .collect();
    sockets.sort_by_key(|socket| !socket.listening);
    let first = sockets.first()?;
    // Inode 0 means that no process has the socket any more: it is in TIME_WAIT.
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
