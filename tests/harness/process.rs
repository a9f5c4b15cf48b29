//! A service as a process of its own.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use local::{Signal, free_port, spawn_bound};
use rustix::process::{Pid, kill_process};

use super::PATIENCE;

pub struct Process {
    pub port: u16,
    child: Child,
}

impl Process {
    pub fn start(service: &str, port: Option<u16>, settings: &[(&'static str, String)], log: &Path) -> Self {
        let port = port.unwrap_or_else(|| free_port().expect("a free port"));
        let log = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command
            .args(["serve", service])
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .env("HTTP_ADDR", format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        // A test that panics or is killed leaves nothing behind.
        let child = spawn_bound(command, Signal::KILL).expect("a process");
        Self { port, child }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }

    pub fn kill9(&mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("an end");
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Asks the process to stop, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end().await
    }

    /// Waits until the process has ended by itself.
    pub async fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
