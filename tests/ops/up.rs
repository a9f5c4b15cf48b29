//! A suite that the command line under test starts.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};

/// A suite with ports and a folder of its own. It is taken down when the test ends, however it ends.
pub(super) struct Up {
    pub(super) ports_from: u16,
    pub(super) state: PathBuf,
}

impl Up {
    pub(super) fn new(name: &str) -> Self {
        let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        Self { ports_from: free_range(), state }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command
            .args(arguments)
            // It chooses the servers of the other tests. These look at processes of this machine.
            .env_remove(local::Backend::VARIABLE)
            .env("AMENDS_PORTS_FROM", self.ports_from.to_string())
            .env("AMENDS_STATE", &self.state);
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    pub(super) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(super) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

/// Returns the first of thirteen free ports in a row. Each caller gets others, and none that [`local::free_port`] returns.
fn free_range() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(30_000);
    loop {
        let from = NEXT.fetch_add(20, Ordering::Relaxed);
        assert!(from < 32_000, "no thirteen free ports in a row");
        if (from..from + 13).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return from;
        }
    }
}
