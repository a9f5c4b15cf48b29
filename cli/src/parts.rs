//! `amends kill`, `pause` and `resume`: what may happen to a service or a server of a suite on this machine, on purpose.

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use rustix::process::{Pid, Signal, kill_process};

use crate::output::say;
use crate::proc_stat;
use crate::run::Where;
use crate::suite::{SERVICES, Suite};

/// The servers that a suite needs, by the names of their programs.
const SERVERS: [(&str, &str); 2] = [("postgres", "postgres"), ("kafka", "java")];

/// A service or a server of a suite on this machine.
#[derive(Debug, Args)]
pub struct Part {
    /// A service, or postgres or kafka.
    #[arg(value_parser = PossibleValuesParser::new(SERVICES.into_iter().chain(["postgres", "kafka"])))]
    part: String,
    #[command(flatten)]
    place: Where,
}

/// What to do to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Kill,
    Pause,
    Resume,
}

impl Part {
    pub fn suffer(&self, deed: Deed) -> anyhow::Result<()> {
        let Some(run) = self.place.find() else {
            bail!("{}; `amends up` starts one", self.place.nothing_runs());
        };
        let suite = Suite { ports_from: run.ports_from, ..Default::default() };
        let service =
            run.services.iter().find(|service| service.name == self.part).map(|service| service.pid);
        let pid = service.or_else(|| server_pid(&suite, &self.part)).with_context(|| {
            format!(
                "{} does not run, or in a container (see `docker ps`); `amends status` shows more",
                self.part
            )
        })?;
        let (name, flags) = (&self.part, self.place.flags());
        match deed {
            Deed::Kill => {
                signal(pid, Signal::KILL)?;
                say!("{name} (process {pid}) is killed with -9; the suite starts it again");
            }
            Deed::Pause => {
                // The root first, so that it starts no further child.
                for pid in family(pid) {
                    signal(pid, Signal::STOP)?;
                }
                say!("{name} (process {pid}) is frozen; `amends resume {name}{flags}` lets it go on");
            }
            Deed::Resume => {
                for pid in family(pid).into_iter().rev() {
                    signal(pid, Signal::CONT)?;
                }
                say!("{name} (process {pid}) goes on");
            }
        }
        Ok(())
    }
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let id = Pid::from_raw(pid.cast_signed()).context("there is no process 0")?;
    match kill_process(id, signal) {
        // It has ended meanwhile.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        done => done.with_context(|| format!("process {pid} can't be sent a signal")),
    }
}

/// Returns the root process of a server, if this user may see it. The port of a container is held by another program.
pub fn server_pid(suite: &Suite, name: &str) -> Option<u32> {
    let ports = suite.server_ports();
    let port = if name == "postgres" { ports.postgres } else { ports.kafka };
    let (_, program) = SERVERS.into_iter().find(|(server, _)| *server == name)?;
    let named = |pid: u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == program)
    };
    let mut pid = local::port_holder(port).filter(|holder| holder.listening)?.process?.pid;
    if !named(pid) {
        return None;
    }
    while let Some(parent) = parent(pid).filter(|parent| named(*parent)) {
        pid = parent;
    }
    Some(pid)
}

fn parent(pid: u32) -> Option<u32> {
    proc_stat::read(pid)?.get(1)?.parse().ok()
}

/// Returns a process and all processes below it, parents before their children.
fn family(root: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![root];
    let mut seen = 0;
    while let Some(&elder) = family.get(seen) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == elder).map(|(pid, _)| *pid));
        seen += 1;
    }
    family
}
