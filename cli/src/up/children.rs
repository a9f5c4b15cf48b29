//! The services as child processes, so that `kill -9` of a service is a real crash.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local::{Servers, Signal, spawn_bound};
use rustix::process::{Pid, kill_process};

use super::back::Returning;
use crate::output::complain;
use crate::run::RunningService;
use crate::serve::share_machine;
use crate::suite::{SERVICES, Suite};

/// How long the services may take to stop.
const STOPPING: Duration = Duration::from_millis(2500);
/// A service that dies sooner than this after its start is restarted after a pause, which grows each time.
const SETTLED: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub struct Children {
    services: Vec<Running>,
    program: PathBuf,
    suite: Suite,
    brokers: String,
    database_urls: String,
    logs: PathBuf,
    returning: Returning,
}

struct Running {
    name: &'static str,
    child: Option<Child>,
    began: Instant,
    wait: Duration,
}

impl Children {
    pub fn start(suite: &Suite, servers: &Servers, state: &Path) -> anyhow::Result<Self> {
        let logs = state.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("can't create {}", logs.display()))?;
        let mut children = Self {
            services: Vec::new(),
            program: std::env::current_exe().context("the path of this program is not known")?,
            suite: suite.clone(),
            brokers: servers.kafka_brokers(),
            database_urls: servers.postgres_url("{service}", "{service}", None),
            logs,
            returning: Returning::default(),
        };
        for name in SERVICES {
            let child = Some(children.spawn(name)?);
            children.services.push(Running { name, child, began: Instant::now(), wait: Duration::ZERO });
        }
        Ok(children)
    }

    fn spawn(&self, name: &str) -> anyhow::Result<Child> {
        let path = self.log(name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("can't write {}", path.display()))?;
        let url = self.database_urls.replace("%7Bservice%7D", name);
        // A build may have removed the program's file. The process still has it open.
        let file_is_gone = !self.program.exists();
        let program = if file_is_gone { Path::new("/proc/self/exe") } else { &self.program };
        let mut command = Command::new(program);
        share_machine(&mut command);
        command
            .args(["serve", name])
            .env("DATABASE_URL", url)
            .env("KAFKA_BROKERS", &self.brokers)
            .env("HTTP_ADDR", format!("127.0.0.1:{}", self.suite.port(name)))
            // What the environment says of other servers does not hold for these.
            .env_remove("DATABASE_URL_FILE")
            .env_remove("KAFKA_SETTINGS")
            .env_remove("KAFKA_SETTINGS_FILE")
            // With the same name after a restart, the broker assigns the same partitions at once.
            .env("INSTANCE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        spawn_bound(command, Signal::TERM).with_context(|| format!("{} could not be started", name))
    }

    pub fn log(&self, service: &str) -> PathBuf {
        self.logs.join(format!("{service}.log"))
    }

    pub fn running(&self) -> Vec<RunningService> {
        let running = |service: &Running| {
            let pid = service.child.as_ref()?.id();
            Some(RunningService { name: service.name.to_owned(), pid })
        };
        self.services.iter().filter_map(running).collect()
    }

    /// Fails if a service has ended. During the start that is an error, and the service is not restarted.
    pub fn fail_early(&mut self) -> anyhow::Result<()> {
        for service in &mut self.services {
            if let Some(ended) = service.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                let log = self.logs.join(format!("{}.log", service.name));
                let tail = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = tail.lines().rev().take(5).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                bail!(
                    "{} ended while starting ({ended}); {} ends with\n  {tail}",
                    service.name,
                    log.display()
                );
            }
        }
        Ok(())
    }

    /// Restarts services that have died. Returns whether one was restarted.
    pub fn revive(&mut self) -> anyhow::Result<bool> {
        let mut revived = false;
        for index in 0..self.services.len() {
            let service = &mut self.services[index];
            if let Some(ended) = service.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                service.child = None;
                let lasted = service.began.elapsed();
                let longer = (service.wait * 2).clamp(Duration::from_millis(250), LONGEST_WAIT);
                service.wait = if lasted > SETTLED { Duration::ZERO } else { longer };
                service.began = Instant::now();
                complain!("{} has died ({ended}); it is started again", service.name);
            }
            if service.child.is_none() && service.began.elapsed() >= service.wait {
                let name = service.name;
                let child = self.spawn(name)?;
                let service = &mut self.services[index];
                service.child = Some(child);
                service.began = Instant::now();
                self.returning.expect(&self.suite, name);
                revived = true;
            }
        }
        Ok(revived)
    }

    /// Stops all services at the same time, and kills those that take too long. The next start continues their work.
    pub fn stop(&mut self) {
        for service in &self.services {
            if let Some(pid) =
                service.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()))
            {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOPPING;
        for service in &mut self.services {
            let Some(child) = &mut service.child else { continue };
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            if matches!(child.try_wait(), Ok(None)) {
                complain!("{} takes too long to stop and is killed", service.name);
                let _ = child.kill();
                let _ = child.wait();
            }
            service.child = None;
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}
