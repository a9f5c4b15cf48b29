//! The note that a running suite leaves in its state folder, so that other commands find it; and `amends down`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::output::say;
use crate::proc_stat;
use crate::suite::{SERVICES, SUITE, Suite};

/// How long a suite may take to stop.
const STOPPING: Duration = Duration::from_secs(15);

/// A suite on this machine, and the folder with its data.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Where {
    #[command(flatten)]
    pub suite: Suite,
    /// The folder for data and logs; by default `.amends/` followed by the first port.
    #[arg(long, help_heading = SUITE, env = "AMENDS_STATE")]
    pub state: Option<PathBuf>,
}

impl Where {
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.suite.default_state())
    }

    /// Returns the run that is meant. It is found by its state folder, or by its ports if it was started with another folder.
    pub fn find(&self) -> Option<Run> {
        Run::find(&self.state())
            .or_else(|| if self.state.is_none() { Run::by_ports(&self.suite) } else { None })
    }

    pub fn nothing_runs(&self) -> String {
        match &self.state {
            Some(state) => format!("no suite runs on {}", state.display()),
            None => format!("no suite runs on the ports from {}", self.suite.ports_from),
        }
    }

    /// Returns these flags for a command that is printed; empty if they have their defaults.
    pub fn flags(&self) -> String {
        let state = self.state.as_ref().filter(|state| **state != self.suite.default_state());
        let state = state.map(|state| format!(" --state '{}'", state.display())).unwrap_or_default();
        self.suite.flags() + &state
    }
}

/// A run, as the note in the state folder describes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub pid: i32,
    /// When the process began, in the kernel's ticks. A later process with the same id began at another time.
    pub began: u64,
    pub ports_from: u16,
    /// Set once the suite accepts orders.
    pub ready: bool,
    pub services: Vec<RunningService>,
}

/// A service of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningService {
    pub name: String,
    pub pid: u32,
}

fn file(state: &Path) -> PathBuf {
    state.join("run.json")
}

impl Run {
    /// This process, before anything is started.
    pub fn this(suite: &Suite) -> Self {
        let pid = std::process::id();
        let began = began(pid).unwrap_or_default();
        Self { pid: pid.cast_signed(), began, ports_from: suite.ports_from, ready: false, services: vec![] }
    }

    /// Returns the run that uses this folder, if its process still exists.
    pub fn find(state: &Path) -> Option<Self> {
        let run: Self = serde_json::from_slice(&fs::read(file(state)).ok()?).ok()?;
        run.lives().then_some(run)
    }

    /// Returns the run that listens on these ports, whatever its state folder is: the parent process of its order service.
    pub fn by_ports(suite: &Suite) -> Option<Self> {
        let listener = |service: &str| {
            let pid = local::port_holder(suite.port(service))?.process?.pid;
            Some(RunningService { name: service.to_owned(), pid })
        };
        let services: Vec<RunningService> = SERVICES.into_iter().filter_map(listener).collect();
        let order = services.iter().find(|service| service.name == "order")?;
        let parent: u32 = proc_stat::read(order.pid)?.get(1)?.parse().ok()?;
        let is_ours = std::fs::read_link(format!("/proc/{parent}/exe")).ok()?
            == std::fs::read_link(format!("/proc/{}/exe", order.pid)).ok()?;
        let pid = parent.cast_signed();
        is_ours.then_some(Self {
            pid,
            began: began(parent)?,
            ports_from: suite.ports_from,
            ready: true,
            services,
        })
    }

    /// Writes the note in one step, so that a reader sees either the old note or the new one.
    pub fn note(&self, state: &Path) -> anyhow::Result<()> {
        let path = file(state);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("can't write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("can't write {}", path.display()))
    }

    /// Deletes the note.
    pub fn forget(state: &Path) {
        let _ = fs::remove_file(file(state));
    }

    pub fn lives(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        test_kill_process(pid).is_ok() && began(self.pid.unsigned_abs()) == Some(self.began)
    }

    fn tell(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid).context("the note has no process id")?;
        kill_process(pid, signal).with_context(|| format!("process {} can't be told to stop", self.pid))
    }
}

/// Returns the start time of a process, from /proc.
fn began(pid: u32) -> Option<u64> {
    let fields = proc_stat::read(pid)?;
    // A zombie has ended.
    if fields.first()? == "Z" { None } else { fields.get(19)?.parse().ok() }
}

/// Stops a suite and waits until its process has ended.
pub fn down(place: &Where) -> anyhow::Result<()> {
    let Some(run) = place.find() else {
        bail!("{}; choose another suite with `--ports-from` or `--state`", place.nothing_runs());
    };
    run.tell(Signal::TERM)?;
    let begun = Instant::now();
    while run.lives() {
        if begun.elapsed() > STOPPING {
            bail!("process {} has not stopped within {STOPPING:?}", run.pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say!("stopped in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Returns whether a service is ready, or the reason why it is not.
pub async fn ready(api: &Api, service: &str) -> Result<(), String> {
    let body = api.readiness(service).await?;
    if body["ready"] == true {
        return Ok(());
    }
    let failing = body["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
    let failing = failing.map(|check| {
        let part = |name: &str| check[name].as_str().unwrap_or_default();
        format!("{}: {}", part("name"), part("detail"))
    });
    Err(format!("not ready ({})", failing.collect::<Vec<_>>().join("; ")))
}
