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
use crate::suite::{SERVICES, SUITE, Suite};

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

    /// The run that is meant: by its state folder, or by its ports where it was started with another one.
    pub fn find(&self) -> Option<Run> {
        Run::find(&self.state())
            .or_else(|| if self.state.is_none() { Run::by_ports(&self.suite) } else { None })
    }

    fn nothing_runs(&self) -> String {
        match &self.state {
            Some(state) => format!("no suite runs on {}", state.display()),
            None => format!("no suite runs on the ports from {}", self.suite.ports_from),
        }
    }

    /// These flags again, for a command that is printed. Nothing where they are the usual ones.
    pub fn flags(&self) -> String {
        let usual = Suite::default().ports_from == self.suite.ports_from;
        if usual { String::new() } else { format!(" --ports-from {}", self.suite.ports_from) }
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

    /// The run that listens on these ports, wherever its state folder is: the parent of its order service.
    pub fn by_ports(suite: &Suite) -> Option<Self> {
        let listener = |service: &str| {
            let pid = local::port_holder(suite.port(service))?.process?.pid;
            Some(RunningService { name: service.to_owned(), pid })
        };
        let services: Vec<RunningService> = SERVICES.into_iter().filter_map(listener).collect();
        let order = services.iter().find(|service| service.name == "order")?;
        let parent: u32 = stat(order.pid)?.get(1)?.parse().ok()?;
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
    let fields = stat(pid)?;
    // A zombie is gone.
    if fields.first()? == "Z" { None } else { fields.get(19)?.parse().ok() }
}

/// A process's state, parent and so on, from /proc. The name may contain spaces and brackets; what follows its last
/// bracket does not.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Stops a suite and waits until it is gone.
pub fn down(place: &Where) -> anyhow::Result<()> {
    let Some(run) = place.find() else {
        bail!("{}; `--ports-from` says which one is meant", place.nothing_runs());
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

/// Says what runs. The exit code is 0 if everything is ready, 1 if something is not, 3 if nothing runs.
pub fn status(place: &Where) -> ExitCode {
    let Some(run) = place.find() else {
        complain!("{}; `amends up --ports-from {}` starts one", place.nothing_runs(), place.suite.ports_from);
        return ExitCode::from(3);
    };
    say!("amends up, process {}, ports from {}", run.pid, run.ports_from);
    let suite = Suite { ports_from: run.ports_from, ..Default::default() };
    let all_ready = crate::runtime::block_on(async { Ok(services(&suite, &run).await) }).unwrap_or(false);
    ExitCode::from(u8::from(!all_ready))
}

async fn services(suite: &Suite, run: &Run) -> bool {
    let api = Api::new(suite);
    let mut all_ready = true;
    for service in SERVICES {
        let pid = run.services.iter().find(|known| known.name == service).map(|known| known.pid);
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = ready(&api, service).await;
        all_ready &= state.is_ok();
        let said = state.err().unwrap_or_else(|| "ready".to_owned());
        say!("  {service:<13} {pid:<8} {}  {said}", suite.url(service));
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
