//! The other way to run the servers: containers, through the `docker` command.
//!
//! `docker run` stays attached, as a child of ours, and hands on the signals it gets. So a container ends
//! with this process as a server of our own would, and its output goes to the same log file. It is for `amends up`, which
//! needs no client of the engine's for this; the integration tests have testcontainers, for faults that this can't make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::cache::{run_tool, short_hash};
use crate::error::{Doing, Error};
use crate::files;
use crate::progress::{Progress, Step};

const LABEL: &str = "amends.local";

/// Whether an engine answers.
pub(crate) fn answers() -> bool {
    quiet(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_some()
}

/// Pulls `image` unless the engine has it: a long wait that must be seen, and mustn't count as the server's.
pub(crate) fn need(image: &str, state: &Path, progress: &dyn Progress) -> Result<(), Error> {
    if quiet(Command::new("docker").args(["image", "inspect", "-f", "{{.Id}}", image])).is_some() {
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

/// One server's container and volume. Their names follow from the state folder.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub name: String,
    state: PathBuf,
    /// A file in the state folder that says the volume belongs to it; without it the volume is left over
    /// from a state folder that was deleted.
    pub marker: PathBuf,
}

impl Container {
    pub fn of(state: &Path, folder: &str) -> Container {
        let name = format!("amends-{}-{folder}", short_hash(&[&state.to_string_lossy()]));
        Container { name, state: state.to_owned(), marker: state.join(format!("{folder}.volume")) }
    }

    /// `docker run` for `image`, with the volume at `mount` and `ports` published on loopback.
    pub fn run(
        &self,
        mount: &str,
        ports: &[(u16, u16)],
        env: &[(String, String)],
        image: &[&str],
    ) -> Command {
        let mut command = Command::new("docker");
        command.args(["run", "--name", &self.name, "-v", &format!("{}:{mount}", self.name)]);
        command.args(["--label", &self.label()]);
        for (outside, inside) in ports {
            command.args(["-p", &format!("127.0.0.1:{outside}:{inside}")]);
        }
        for (name, value) in env {
            command.args(["-e", &format!("{name}={value}")]);
        }
        command.args(image);
        command
    }

    /// Makes sure that the volume, if there is one, is this state folder's.
    ///
    /// Volumes of deleted state folders stay until `docker volume prune --all --filter label=amends.local`: an
    /// engine may be shared with machines whose folders can't be seen from here.
    pub fn own_volume(&self) -> Result<(), Error> {
        if !self.marker.exists() {
            self.forget()?;
            let label = self.label();
            quiet(Command::new("docker").args(["volume", "create", "--label", &label, &self.name]));
            fs::write(&self.marker, &self.name).doing("write", &self.marker)?;
        }
        Ok(())
    }

    fn label(&self) -> String {
        format!("{LABEL}={}", self.state.display())
    }

    /// Removes the container, running or not.
    pub fn remove(&self) {
        quiet(Command::new("docker").args(["rm", "-f", &self.name]));
    }

    /// Removes the data. Without Docker's traces in the state folder there is none, or none of ours.
    pub fn forget(&self) -> Result<(), Error> {
        if self.marker.exists() || answers() {
            self.remove();
            quiet(Command::new("docker").args(["volume", "rm", "-f", &self.name]));
        }
        match fs::remove_file(&self.marker) {
            Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
                Err(fault).doing("remove", &self.marker)
            }
            _ => Ok(()),
        }
    }

    /// The process id of the container's first process, as this machine counts.
    pub fn pid(&self) -> Option<u32> {
        let text = quiet(Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", &self.name]))?;
        text.trim().parse().ok().filter(|pid| *pid != 0)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let mut command = Command::new("docker");
        match signal {
            Signal::STOP => command.args(["pause", &self.name]),
            Signal::CONT => command.args(["unpause", &self.name]),
            other => command.args(["kill", "--signal", &other.as_raw().to_string(), &self.name]),
        };
        // Continuing a container that isn't paused fails, and that is all right.
        quiet(&mut command);
        Ok(())
    }
}

/// Runs a docker command and gives its output if it succeeded.
fn quiet(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The folder a container's clutter goes to, so that a run never mistakes one backend's data for the other's.
pub(crate) fn working_dir(state: &Path, folder: &str) -> Result<PathBuf, Error> {
    let dir = state.join(format!("{folder}-container"));
    files::make_dir(&dir)?;
    Ok(dir)
}
