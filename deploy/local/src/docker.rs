//! Runs the servers in containers, through the `docker` command.
//!
//! `docker run` stays attached as a child of this process and hands on the signals it gets. So a container ends with
//! this process, as a server without a container would, and its output goes to the same log file. `amends up` needs no
//! client of the engine for that. The integration tests use testcontainers instead, which can also cut a network.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::error::{Doing, Error};
use crate::progress::{Progress, Step};
use crate::tool::{run_tool, short_hash};

const LABEL: &str = "amends.local";

/// Returns whether a Docker engine answers.
pub(crate) fn engine_answers() -> bool {
    output_of(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_some()
}

/// Pulls `image` unless the engine has it.
///
/// `docker run` would pull it, too. But a pull is long, so people must see it, and it must not count as the server's
/// own start.
pub(crate) fn pull_if_missing(image: &str, state: &Path, progress: &dyn Progress) -> Result<(), Error> {
    if output_of(Command::new("docker").args(["image", "inspect", "-f", "{{.Id}}", image])).is_some() {
        return Ok(());
    }
    let step = Step::begin(progress, format!("pulling the image {image} (once)"));
    let mut command = Command::new("docker");
    command.args(["pull", image]);
    let log = state.join(format!("pull-{}.log", short_hash(&[image])));
    run_tool("pulling a server's image", command, None, &log)?;
    step.done(&format!("{image} is here"));
    Ok(())
}

/// The container and the volume of one server. Both have the same name, which follows from the state folder.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    name: String,
    state: PathBuf,
    /// A file in the state folder that says that the volume belongs to it. Without the file, the volume is left over
    /// from a state folder that was deleted.
    marker: PathBuf,
}

impl Container {
    /// Names the container of the server whose files in `state` begin with `folder`. Starts nothing.
    pub fn of(state: &Path, folder: &str) -> Container {
        let name = format!("amends-{}-{folder}", short_hash(&[&state.to_string_lossy()]));
        Container { name, state: state.to_owned(), marker: state.join(format!("{folder}.volume")) }
    }

    /// Returns `docker run` for `image`, with the volume at `mount` and `ports` (outside, inside) published on
    /// loopback.
    pub fn run(&self, mount: &str, ports: &[(u16, u16)], env: &[(String, String)], image: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["run", "--name", &self.name, "-v", &format!("{}:{mount}", self.name)]);
        command.args(["--label", &self.label()]);
        for (outside, inside) in ports {
            command.args(["-p", &format!("127.0.0.1:{outside}:{inside}")]);
        }
        for (name, value) in env {
            command.args(["-e", &format!("{name}={value}")]);
        }
        command.arg(image);
        command
    }

    /// Makes sure that the volume holds data of this state folder, or none.
    ///
    /// The volume of a deleted state folder stays until a start on a folder of the same name, or until
    /// `docker volume prune --all --filter label=amends.local`. It is not swept: several machines may share an engine,
    /// and this one can't see whether another one's state folder still exists.
    pub fn claim_volume(&self) -> Result<(), Error> {
        if !self.marker.exists() {
            self.remove_volume()?;
            let label = self.label();
            output_of(Command::new("docker").args(["volume", "create", "--label", &label, &self.name]));
            fs::write(&self.marker, &self.name).doing("write", &self.marker)?;
        }
        Ok(())
    }

    fn label(&self) -> String {
        format!("{LABEL}={}", self.state.display())
    }

    /// Returns whether the volume holds data of this state folder.
    pub fn has_volume(&self) -> bool {
        self.marker.exists()
    }

    /// Removes the container, running or not.
    pub fn remove(&self) {
        output_of(Command::new("docker").args(["rm", "-f", &self.name]));
    }

    /// Removes the container, the volume and all data in it.
    pub fn remove_volume(&self) -> Result<(), Error> {
        // A machine without Docker, on a state folder that never used it, must not fail here.
        if self.has_volume() || engine_answers() {
            self.remove();
            output_of(Command::new("docker").args(["volume", "rm", "-f", &self.name]));
        }
        match fs::remove_file(&self.marker) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault).doing("remove", &self.marker),
            _ => Ok(()),
        }
    }

    /// Returns the id that the container's first process has on this machine, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let text = output_of(Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", &self.name]))?;
        text.trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// Sends `signal` to the container's first process. STOP and CONT pause and unpause the whole container.
    pub fn signal(&self, signal: Signal) {
        let mut command = Command::new("docker");
        match signal {
            Signal::STOP => command.args(["pause", &self.name]),
            Signal::CONT => command.args(["unpause", &self.name]),
            other => command.args(["kill", "--signal", &other.as_raw().to_string(), &self.name]),
        };
        // A failure is ignored: to unpause a container that isn't paused fails, and nothing is wrong then.
        output_of(&mut command);
    }
}

/// Runs a `docker` command and returns its output, or `None` if it failed.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
