//! What a running suite leaves in its state folder, so that other commands find it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Api;
use crate::output::{complain, say};
use crate::suite::{SERVICES, Suite};

/// How long a suite may take to stop.
const STOPPING: Duration = Duration::from_secs(15);

/// Which suite, and where it keeps its data.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Where {
    #[command(flatten)]
    pub suite: Suite,
    /// The folder for data and logs; unless given, `.amends/` and the first port.
    #[arg(long, env = "AMENDS_STATE")]
    pub state: Option<PathBuf>,
}

impl Where {
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.suite.default_state())
    }
}

/// A run, as it is noted in the state folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub pid: i32,
    /// When the process began, in the kernel's ticks: tells it from a later process with the same id.
    pub began: u64,
    pub ports_from: u16,
    /// Set once the suite takes orders.
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

    /// The run that uses this folder, if its process still lives.
    pub fn find(state: &Path) -> Option<Self> {
        let run: Self = serde_json::from_slice(&fs::read(file(state)).ok()?).ok()?;
        run.lives().then_some(run)
    }

    /// Notes the run, in one step: a reader sees the old note or the new one.
    pub fn note(&self, state: &Path) -> anyhow::Result<()> {
        let path = file(state);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path).with_context(|| format!("can't write {}", path.display()))
    }

    /// Takes the note away.
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

/// The start time of a process, from /proc.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain spaces and brackets; what follows its last bracket does not. Zombies are gone.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Stops a suite and waits until it is gone.
pub fn down(place: &Where) -> anyhow::Result<()> {
    let state = place.state();
    let Some(run) = Run::find(&state) else {
        bail!("no suite runs on {}; `--ports-from` and `--state` say which one is meant", state.display());
    };
    run.tell(Signal::TERM)?;
    let begun = Instant::now();
    while run.lives() {
        if begun.elapsed() > STOPPING {
            bail!(
                "process {} has not stopped within {STOPPING:?}; see {}",
                run.pid,
                state.join("up.log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say!("stopped in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Says what runs. The exit code is 0 if everything is ready, 1 if something is not, 3 if nothing runs.
pub fn status(place: &Where) -> ExitCode {
    let state = place.state();
    let Some(run) = Run::find(&state) else {
        complain!("no suite runs on {}; start one with `amends up`", state.display());
        return ExitCode::from(3);
    };
    say!("amends up, process {}, state {}", run.pid, state.display());
    let suite = Suite { ports_from: run.ports_from };
    let all_ready = crate::block_on(async { Ok(services(&suite, &run).await) }).unwrap_or(false);
    ExitCode::from(u8::from(!all_ready))
}

async fn services(suite: &Suite, run: &Run) -> bool {
    let api = Api::new(suite);
    let mut all_ready = true;
    for service in SERVICES {
        let pid = run.services.iter().find(|known| known.name == service.name).map(|known| known.pid);
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = ready(&api, service.name).await;
        all_ready &= state.is_ok();
        let said = state.err().unwrap_or_else(|| "ready".to_owned());
        say!("  {:<13} {:<8} {}  {said}", service.name, pid, suite.url(service.name));
    }
    let ports = suite.server_ports();
    say!("  postgres      127.0.0.1:{}", ports.postgres);
    say!("  kafka         127.0.0.1:{}", ports.kafka);
    all_ready
}

/// Whether a service is ready, or why not.
pub async fn ready(api: &Api, service: &str) -> Result<(), String> {
    let url = api.url(service, "/readyz");
    let response = reqwest::get(url).await.map_err(|_| "does not answer".to_owned())?;
    let ready = response.status().is_success();
    if ready {
        return Ok(());
    }
    let body: Value = response.json().await.unwrap_or_default();
    let failing = body["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
    let failing = failing.map(|check| {
        let part = |name: &str| check[name].as_str().unwrap_or_default();
        format!("{}: {}", part("name"), part("detail"))
    });
    Err(format!("not ready ({})", failing.collect::<Vec<_>>().join("; ")))
}
