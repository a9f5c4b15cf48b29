//! `amends status`: what of a suite runs, with its processes, and what is wrong.

use std::process::ExitCode;

use clap::Args;
use futures::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::{complain, print_json, say};
use crate::parts::server_pid;
use crate::proc_stat;
use crate::run::{Run, Where};
use crate::suite::{SERVICES, Suite};

/// What to show.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 if all services are ready, 1 if one is not, and 3 if no suite runs.\n\n\
                  `frozen` means that the process is stopped (SIGSTOP): `amends resume PART` lets it go on."
)]
pub struct Status {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// A service or a server of a suite.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    pid: Option<u32>,
    /// ready, not ready, running, frozen, silent or absent.
    state: &'static str,
    address: String,
    /// What is wrong, one sentence each.
    problems: Vec<String>,
    /// The external providers that the service calls, and whether it calls them.
    providers: Vec<String>,
}

impl Status {
    pub fn run(self) -> ExitCode {
        let run = self.place.find();
        let ports_from = run.as_ref().map_or(self.place.suite.ports_from, |run| run.ports_from);
        let suite = Suite { ports_from, ..Default::default() };
        let services = crate::runtime::block_on(async { Ok(services(&suite, run.as_ref()).await) });
        let services = services.unwrap_or_default();
        if run.is_none() && services.iter().all(|part| part.state == "absent") {
            complain!(
                "{}; `amends up --ports-from {}` starts one",
                self.place.nothing_runs(),
                self.place.suite.ports_from
            );
            return ExitCode::from(3);
        }
        let all_ready = services.iter().all(|part| part.state == "ready");
        let parts: Vec<Part> = services.into_iter().chain(servers(&suite)).collect();
        if self.json {
            let pid = run.map(|run| run.pid);
            let said = json!({"pid": pid, "portsFrom": ports_from, "ready": all_ready, "parts": parts});
            if let Err(error) = print_json(&said) {
                complain!("amends: {error:#}");
                return ExitCode::FAILURE;
            }
        } else {
            match run {
                Some(run) => say!("amends up, process {}, ports from {ports_from}", run.pid),
                None => say!(
                    "a suite with another state folder (--state), of another user, or in containers; ports from \
                     {ports_from}"
                ),
            }
            print(&parts);
        }
        ExitCode::from(u8::from(!all_ready))
    }
}

fn print(parts: &[Part]) {
    say!("");
    say!("  {:<13} {:<8} {:<10} ADDRESS", "PART", "PID", "STATE");
    for part in parts {
        let pid = part.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        say!("  {:<13} {pid:<8} {:<10} {}", part.name, part.state, part.address);
        for problem in &part.problems {
            say!("  {:<13} {problem}", "");
        }
    }
    let providers: Vec<&String> = parts.iter().flat_map(|part| &part.providers).collect();
    if !providers.is_empty() {
        say!("");
        say!("  PROVIDERS");
        for provider in providers {
            say!("  {provider}");
        }
    }
}

/// Asks all services side by side.
async fn services(suite: &Suite, run: Option<&Run>) -> Vec<Part> {
    let api = Api::new(suite);
    let asked = SERVICES.into_iter().map(async |name| {
        let known = run.and_then(|run| run.services.iter().find(|known| known.name == name));
        let pid = known.map(|known| known.pid).or_else(|| listener(suite.port(name)));
        let (state, problems, providers) = match api.readiness(name).await {
            Ok(answer) => judge(&answer),
            Err(_) if is_frozen(pid) => ("frozen", Vec::new(), Vec::new()),
            Err("does not answer") => {
                ("silent", vec!["it accepts connections and does not answer".to_owned()], Vec::new())
            }
            Err(_) => ("absent", Vec::new(), Vec::new()),
        };
        Part { name, pid, state, address: suite.url(name), problems, providers }
    });
    join_all(asked).await
}

/// Returns the state that a service's `/readyz` stands for, what is wrong, and the providers that it calls.
fn judge(answer: &Value) -> (&'static str, Vec<String>, Vec<String>) {
    let (mut problems, mut providers) = (Vec::new(), Vec::new());
    for check in array(&answer["checks"]) {
        let (name, detail) = (text_of(check, "name"), text_of(check, "detail"));
        if name == "dependency" {
            providers.push(detail.to_owned());
        } else if !detail.is_empty() {
            problems.push(format!("{name}: {detail}"));
        } else if check["ok"] == false {
            problems.push(name.to_owned());
        }
    }
    (if answer["ready"] == true { "ready" } else { "not ready" }, problems, providers)
}

fn servers(suite: &Suite) -> [Part; 2] {
    let ports = suite.server_ports();
    [("postgres", ports.postgres), ("kafka", ports.kafka)].map(|(name, port)| {
        let holder = local::port_holder(port).filter(|holder| holder.listening);
        let pid = holder.as_ref().and_then(|_| server_pid(suite, name));
        let state = match holder {
            None => "absent",
            Some(_) if is_frozen(pid) => "frozen",
            Some(_) => "running",
        };
        let (problems, providers) = (Vec::new(), Vec::new());
        Part { name, pid, state, address: format!("127.0.0.1:{port}"), problems, providers }
    })
}

/// Returns the process that listens on a port, if this user may see it.
fn listener(port: u16) -> Option<u32> {
    Some(local::port_holder(port).filter(|holder| holder.listening)?.process?.pid)
}

fn is_frozen(pid: Option<u32>) -> bool {
    pid.and_then(proc_stat::read).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readyz_says_becomes_a_state_with_problems_and_providers() {
        let answer = json!({"ready": false, "checks": [
            {"name": "database", "ok": true},
            {"name": "broker", "ok": false, "detail": "no answer"},
            {"name": "relay", "ok": true, "detail": "shard 0 is stopped"},
            {"name": "dependency", "ok": true, "detail": "the carrier is called"},
        ]});
        let (state, problems, providers) = judge(&answer);
        assert_eq!(state, "not ready");
        assert_eq!(problems, ["broker: no answer", "relay: shard 0 is stopped"]);
        assert_eq!(providers, ["the carrier is called"]);
        assert_eq!(judge(&json!({"ready": true})), ("ready", vec![], vec![]));
    }
}
