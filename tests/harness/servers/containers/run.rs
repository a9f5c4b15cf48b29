//! The run of the tests that a container belongs to. However a run ends, a process that outlives it removes its containers.
//! If that process was killed too, the next run removes them. Containers of a run in progress are never removed.

use std::collections::HashMap;
use std::fmt;
use std::process::ChildStdin;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testcontainers_modules::testcontainers::bollard::Docker;
use testcontainers_modules::testcontainers::bollard::models::ContainerCreateBody;
use testcontainers_modules::testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptions, RemoveContainerOptionsBuilder,
};
use testcontainers_modules::testcontainers::core::client::docker_client_instance;

use crate::harness::cleanup::when_this_has_ended;

/// The label with the run.
pub const RUN: &str = "amends.test-run";

/// Longer than any run takes.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// A process, with what distinguishes it from another process with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    machine: String,
    boot: String,
    /// Its namespace. A process is visible only within it.
    namespace: String,
    pid: u32,
    /// When it began, in the kernel's ticks.
    began: u64,
}

/// Returns this process.
pub fn this() -> &'static Run {
    static THIS: OnceLock<Run> = OnceLock::new();
    THIS.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Run {
            machine: read("/etc/machine-id"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.to_string_lossy().into_owned(),
            pid,
            began: began(pid).unwrap_or_default(),
        }
    })
}

fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain spaces and brackets, so the fields begin behind the last bracket.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, boot, namespace, pid, began } = self;
        write!(f, "{machine}/{boot}/{namespace}/{pid}/{began}")
    }
}

impl Run {
    fn read(label: &str) -> Option<Self> {
        let parts: Vec<&str> = label.split('/').collect();
        let [machine, boot, namespace, pid, began] = parts[..] else { return None };
        let [machine, boot, namespace] = [machine, boot, namespace].map(str::to_owned);
        Some(Self { machine, boot, namespace, pid: pid.parse().ok()?, began: began.parse().ok()? })
    }

    /// Whether it has ended, given the age of its container. For a process of another machine or namespace that uses the same
    /// engine, only the age can tell.
    fn is_over(&self, age: Duration) -> bool {
        let here = this();
        let here_too = self.machine == here.machine && !here.machine.is_empty();
        if here_too && self.boot != here.boot {
            return true;
        }
        if here_too && self.namespace == here.namespace {
            return began(self.pid) != Some(self.began);
        }
        age > LONGEST
    }
}

/// Removes the containers of runs that have ended, and arranges the removal of this run's containers. It acts only once.
pub async fn begin(docker: &Docker) {
    static KEPT: Mutex<Option<ChildStdin>> = Mutex::new(None);
    {
        let mut kept = KEPT.lock().expect("no panic");
        if kept.is_some() {
            return;
        }
        let remove = format!("docker ps -aq --filter \"label={RUN}=$0\" | xargs -r docker rm -fv");
        *kept = when_this_has_ended(&remove, &this().to_string()).stdin.take();
    }
    sweep(docker).await;
}

async fn sweep(docker: &Docker) {
    let labels = vec!["org.testcontainers.managed-by=testcontainers", RUN];
    let filters = HashMap::from([("label", labels)]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for container in docker.list_containers(Some(all)).await.expect("containers") {
        let created = container.created.map_or(now, |created| Duration::from_secs(created.unsigned_abs()));
        let run = container.labels.as_ref().and_then(|labels| Run::read(labels.get(RUN)?));
        let over = run.is_some_and(|run| run.is_over(now.saturating_sub(created)));
        let Some(id) = container.id.filter(|_| over) else { continue };
        // Another run may be removing it now.
        let _ = docker.remove_container(&id, Some(with_volumes())).await;
    }
}

fn with_volumes() -> RemoveContainerOptions {
    RemoveContainerOptionsBuilder::default().force(true).v(true).build()
}

#[test]
fn only_a_run_that_is_over_is_swept() {
    let here = this();
    assert_eq!(Run::read(&here.to_string()).as_ref(), Some(here));
    let is_over = |run: &Run| run.is_over(Duration::ZERO);
    assert!(!is_over(here));
    let later = Run { began: here.began + 1, ..here.clone() };
    assert!(is_over(&later), "another process with the same number");
    let hidden = Run { namespace: "pid:[1]".to_owned(), ..later.clone() };
    assert!(!is_over(&hidden), "it can't be seen from here");
    assert!(hidden.is_over(LONGEST * 2), "wherever it was");
    assert!(!here.is_over(LONGEST * 2), "it can be seen");
    assert!(is_over(&Run { boot: String::new(), ..here.clone() }), "before the machine was started anew");
    assert!(!is_over(&Run { machine: "another".to_owned(), ..later }), "on another machine");
    assert_eq!(Run::read("nonsense"), None);
}

#[test]
#[ignore = "it needs containers, as AMENDS_SERVERS=docker has them"]
fn what_a_run_that_is_over_has_left_is_removed_and_nothing_else() {
    // It uses the same image as the containers of the tests.
    let _servers = super::super::shared();
    super::ENGINE.block_on(async {
        let docker = docker_client_instance().await.expect("an engine");
        let create = async |run: &Run| {
            let labels =
                [("org.testcontainers.managed-by", "testcontainers".to_owned()), (RUN, run.to_string())];
            let labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
            let image = Some("postgres:18".to_owned());
            let body = ContainerCreateBody { image, labels: Some(labels), ..ContainerCreateBody::default() };
            docker.create_container(None, body).await.expect("a container").id
        };
        let left = create(&Run { began: this().began + 1, ..this().clone() }).await;
        let ours = create(this()).await;
        sweep(&docker).await;
        let is_there = async |id: &str| docker.inspect_container(id, None).await.is_ok();
        assert!(!is_there(&left).await && is_there(&ours).await);
        docker.remove_container(&ours, Some(with_volumes())).await.expect("removed");
    });
}
