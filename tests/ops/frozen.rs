//! A service that is frozen, and a proxy in the environment: what the command line says then.

use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::up::Up;

/// A proxy that is not there, in all the ways in which programs are told of one.
const PROXY: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Runs a command that must end, so that one that waits for ever fails the test.
fn ends(up: &Up, arguments: &[&str]) -> (bool, String, String) {
    let amends = up.command(arguments);
    let mut command = Command::new("timeout");
    command.arg("60").arg(amends.get_program()).args(amends.get_args());
    for (name, value) in amends.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    assert_ne!(status.code(), Some(124), "{arguments:?} waits for ever");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.success(), text(stdout), text(stderr))
}

fn signal(pid: &Value, signal: Signal) {
    let pid = pid.as_i64().and_then(|pid| Pid::from_raw(pid as i32)).expect("a process id");
    kill_process(pid, signal).expect("a signal");
}

#[test]
fn a_frozen_service_is_named_by_every_command_and_no_proxy_is_asked() {
    let up = Up::new("frozen");
    // The start asks the services too.
    let started = up
        .command(&["up", "--detach", "--fresh"])
        .envs(PROXY.map(|name| (name, "http://127.0.0.1:9")))
        .output();
    let started = started.expect("it runs");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let placed =
        up.command(&["order", "place"]).envs(PROXY.map(|name| (name, "http://127.0.0.1:9"))).output();
    let placed = placed.expect("it runs");
    assert!(placed.status.success(), "{}", String::from_utf8_lossy(&placed.stderr));
    let orders = up.succeeds(&["order", "list"]);
    let id = orders.split_whitespace().next().expect("an order");

    let status: Value = serde_json::from_str(&up.succeeds(&["status", "--json"])).expect("JSON");
    let pid = |name: &str| {
        let parts = status["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).expect("the part")["pid"].clone()
    };
    for name in ["payment", "postgres", "kafka", "orchestrator"] {
        assert!(pid(name).is_u64(), "{status}");
    }
    let payment = pid("payment");
    signal(&payment, Signal::STOP);
    let (ready, said, _) = ends(&up, &["status"]);
    let line = said.lines().find(|line| line.contains("payment")).expect("a line");
    assert!(!ready && line.contains("frozen") && line.contains(&payment.to_string()), "{said}");
    assert_eq!(said.matches(" ready").count(), 5, "{said}");
    for (arguments, service) in [
        (&["audit"][..], "payment"),
        (&["audit", "--order", id], "payment"),
        (&["parked", "list"], "payment"),
        (&["parked", "show", id], "payment"),
        (&["parked", "retry", "--all"], "payment"),
    ] {
        let (succeeded, _, said) = ends(&up, arguments);
        assert!(!succeeded && said.contains(&format!("{service} does not answer")), "{arguments:?}: {said}");
    }
    // Others need only the services that they ask.
    for arguments in [&["order", "list"][..], &["saga", "list"], &["saga", "show", id]] {
        assert!(ends(&up, arguments).0, "{arguments:?}");
    }
    let orchestrator = pid("orchestrator");
    signal(&orchestrator, Signal::STOP);
    for arguments in [&["saga", "list"][..], &["saga", "show", id], &["saga", "watch", id]] {
        let (succeeded, _, said) = ends(&up, arguments);
        assert!(!succeeded && said.contains("orchestrator does not answer"), "{arguments:?}: {said}");
    }
    for pid in [payment, orchestrator] {
        signal(&pid, Signal::CONT);
    }
    let (holds, said, complained) = ends(&up, &["audit", "--wait", "30s"]);
    assert!(holds && said.contains("all nine hold"), "{said}{complained}");
}
