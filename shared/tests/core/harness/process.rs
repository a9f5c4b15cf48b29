//! This binary as another process, which runs one of the services.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local::{Signal, free_port, spawn_bound};
use rustix::process::{Pid, kill_process};
use shared::service::{self, App};

use super::PATIENCE;
use crate::loyalty::Loyalty;
use crate::relayed::Relayed;

/// The variable that says which service a process is to run.
const SERVICE: &str = "CORE_TEST_SERVICE";

/// Runs the service that the variable names. Without it this does nothing, so it passes as a test.
#[test]
fn serve() {
    let Ok(name) = std::env::var(SERVICE) else { return };
    let ended = match name.as_str() {
        Loyalty::NAME => service::main_from::<Loyalty>([&name]),
        Relayed::NAME => service::main_from::<Relayed>([&name]),
        other => panic!("there is no service {other}"),
    };
    // The test runner would end with a code of its own.
    let code = (0..=u8::MAX).find(|code| ExitCode::from(*code) == ended).expect("a code");
    std::process::exit(code.into());
}

/// A command that runs a service in another process, with these settings.
pub fn command<A: App>(settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", "harness::process::serve", "--nocapture"])
        .env_remove("RUST_LOG")
        .env(SERVICE, A::NAME)
        .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null());
    command
}

/// A service that runs. Dropped, it is gone.
pub struct Process {
    pub port: u16,
    child: Child,
}

impl Process {
    /// Starts a service on this port, or on a free one.
    pub fn start<A: App>(port: Option<u16>, settings: &[(&'static str, String)], log: &Path) -> Self {
        let port = port.unwrap_or_else(|| free_port().expect("a free port"));
        let log = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let mut command = command::<A>(settings);
        command
            .env("HTTP_ADDR", format!("127.0.0.1:{port}"))
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        // A test that panics or is killed leaves nothing behind.
        let child = spawn_bound(command, Signal::KILL).expect("a process");
        Self { port, child }
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("an end");
    }

    /// Stops it in the middle of whatever it does, until it is thawed.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on as if nothing had happened.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.child.try_wait().expect("a child") {
                return ended;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
