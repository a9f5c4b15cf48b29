//! `amends demo`: five guided minutes. It runs commands of this program, prints each of them, and breaks the suite on the
//! way.

use std::io::{IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::output::say;
use crate::run::Where;

/// How long orders are placed while parts of the suite are killed.
const LOAD: &str = "40s";
const RATE: &str = "15";
/// When the parts are killed, after the begin of the load.
const KILLS: [(&str, Duration); 2] =
    [("payment", Duration::from_secs(10)), ("postgres", Duration::from_secs(20))];

/// Shows what the suite does, and that it goes on doing it while parts of it are killed.
#[derive(Debug, Args)]
#[command(
    after_help = "It uses the suite that runs, or starts one and stops it at the end. In a terminal it waits for Enter \
                  before each act. The exit code is 0 if no order was lost and all nine invariants of the audit hold."
)]
pub struct Demo {
    /// Do not wait for Enter.
    #[arg(long)]
    no_pause: bool,
    #[command(flatten)]
    place: Where,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<()> {
        if self.place.suite.urls.is_some() {
            bail!(
                "--urls (AMENDS_URLS) names a suite elsewhere, and the demo kills parts of one on this machine"
            );
        }
        let own = self.place.find().is_none();
        if own {
            act(
                "A suite",
                "A real PostgreSQL, a real Kafka and six services, each with a database of its own.",
            );
            self.amends(&["up", "--detach"])?;
        }
        let shown = self.acts();
        if own {
            say!("");
            self.amends(&["down"])?;
        }
        shown
    }

    fn acts(&self) -> anyhow::Result<()> {
        act(
            "1. An order",
            "Stock is reserved and the card authorized; then the parcel is booked, the money captured and the order \
             confirmed. Each step is a message to another service.",
        );
        self.pause();
        let id = self.place(&["--item", "lamp=2"])?;
        self.amends(&["order", "watch", &id])?;
        say!("");
        say!("The receipt: what every service did for it, with sums.");
        self.pause();
        self.amends(&["audit", "--order", &id])?;

        act("2. A card that is declined", "The stock that was reserved meanwhile must be released again.");
        self.pause();
        let id = self.place(&["--token", "tok_chargeDeclined"])?;
        self.amends(&["order", "watch", &id])?;
        self.amends(&["saga", "show", &id])?;

        act(
            "3. Killed under load",
            "Orders are placed for 40 seconds. Meanwhile payment is killed with -9, and then PostgreSQL with all six \
             databases. While PostgreSQL is away, new orders are refused (503). Every order that was accepted must come to \
             its end.",
        );
        self.pause();
        let mut load = self.spawn(&["load", "--rate", RATE, "--duration", LOAD, "--warmup", "0s"])?;
        let broken = self.break_it(&mut load);
        let ended = load.wait().context("the load did not end")?;
        broken?;

        act("4. The audit", "Nine invariants over all orders, all databases and all topics.");
        self.pause();
        self.amends(&["audit", "--wait", "60s"])?;
        if !ended.success() {
            bail!("the load has found a fault; see its last lines above");
        }
        let flags = self.place.flags();
        say!("");
        say!(
            "See also: `amends status{flags}`, `amends logs{flags}`, `amends pause kafka{flags}`, and docs/tour.md."
        );
        Ok(())
    }

    /// Kills one part after the other while the load runs.
    fn break_it(&self, load: &mut Child) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        for (part, at) in KILLS {
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            if load.try_wait()?.is_some() {
                bail!("the load has ended before {part} was killed");
            }
            self.amends(&["kill", part])?;
        }
        Ok(())
    }

    /// Places an order and returns its id.
    fn place(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments = [&["order", "place", "--wait", "0s", "--quiet"], arguments].concat();
        self.tell(&arguments);
        let output = self.command(&arguments)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("the order was not placed");
        }
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        say!("{id}");
        Ok(id)
    }

    /// Runs a command of this program, and fails if it fails.
    fn amends(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let ended = self.spawn(arguments)?.wait()?;
        if !ended.success() {
            bail!("`amends {}` failed", arguments.join(" "));
        }
        Ok(())
    }

    fn spawn(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        self.tell(arguments);
        self.command(arguments)?.spawn().context("this program can't be run again")
    }

    fn tell(&self, arguments: &[&str]) {
        say!("");
        say!("$ amends {}{}", arguments.join(" "), self.place.flags());
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command =
            Command::new(std::env::current_exe().context("the path of this program is not known")?);
        command.args(arguments).stdin(Stdio::null());
        // As variables, because not every command has a flag for the folder.
        command.env("AMENDS_PORTS_FROM", self.place.suite.ports_from.to_string());
        command.env("AMENDS_STATE", self.place.state());
        Ok(command)
    }

    /// Waits for Enter, in a terminal.
    fn pause(&self) {
        if self.no_pause || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return;
        }
        let mut out = std::io::stdout();
        let _ = write!(out, "[Enter] ");
        let _ = out.flush();
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

/// Prints a heading, and what is to be seen.
fn act(title: &str, about: &str) {
    say!("");
    say!("== {title} ==");
    for line in about.lines() {
        say!("{line}");
    }
}
