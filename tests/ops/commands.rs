//! The commands that show a suite and break it: products, logs, kill, pause and resume, and what `up` says meanwhile.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::up::Up;

impl Up {
    /// Waits until the output of the suite in the background has this text.
    fn until_said(&self, text: &str) {
        let log = self.state.join("up.log");
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let said = std::fs::read_to_string(&log).expect("a log");
            if said.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no `{text}` in {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn parts(&self) -> Vec<Value> {
        let output = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["parts"].as_array().expect("parts").clone()
    }

    fn state_of(&self, name: &str) -> String {
        let part = self.parts().into_iter().find(|part| part["name"] == name).expect("the part");
        part["state"].as_str().expect("a state").to_owned()
    }
}

#[test]
fn parts_of_a_suite_are_shown_killed_frozen_and_come_back() {
    let up = Up::new("commands");
    let first = up.run(&["up", "--detach", "--fresh"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));

    let products = up.succeeds(&["products"]);
    let line =
        |sku: &str| products.lines().find(|line| line.starts_with(sku)).expect("the product").to_owned();
    assert!(line("unicorn").contains(" 0 ") && line("lamp").contains("1000000"), "{products}");

    // Text for people, JSON for programs, the id for scripts.
    let id = up.succeeds(&["order", "place", "--quiet", "--idempotency-key", "k"]);
    let again: Value =
        serde_json::from_str(&up.succeeds(&["order", "place", "--idempotency-key", "k"])).expect("JSON");
    assert_eq!(again["id"], id.trim());
    let text = up.succeeds(&["order", "get", "--text", id.trim()]);
    assert!(
        text.starts_with(&format!("order {}: confirmed", id.trim())) && text.contains("1 x lamp"),
        "{text}"
    );
    assert!(up.succeeds(&["order", "get", "--json", id.trim()]).contains("\"timeline\""));

    for (command, member) in [("order", "orders"), ("saga", "sagas")] {
        let page: Value = serde_json::from_str(&up.succeeds(&[command, "list", "--json"])).expect("JSON");
        assert_eq!(page[member][0]["id"], id.trim(), "{page}");
    }

    assert!(up.fails(&["return", "watch", id.trim()]).contains("amends order return"));
    up.succeeds(&["order", "return", id.trim()]);
    assert!(up.succeeds(&["return", "watch", id.trim()]).trim_end().ends_with("completed"));
    assert!(up.succeeds(&["completions", "bash"]).contains("complete -F _amends"));

    let logs = up.succeeds(&["logs", "order", "--lines", "1000"]);
    assert!(logs.contains("serving"), "{logs}");
    assert!(up.succeeds(&["logs", "postgres"]).contains("ready to accept connections"));
    assert!(up.succeeds(&["logs"]).lines().any(|line| line.starts_with("payment ")));

    for part in ["payment", "postgres", "kafka"] {
        let killed = up.succeeds(&["kill", part]);
        assert!(killed.contains(part) && killed.contains("-9"), "{killed}");
        up.until_said(&format!("{part} has died"));
        up.until_said(&format!("{part} is back after"));
    }

    for part in ["inventory", "postgres"] {
        assert!(up.succeeds(&["pause", part]).contains(&format!("amends resume {part}")));
        assert_eq!(up.state_of(part), "frozen");
        up.succeeds(&["resume", part]);
        assert_ne!(up.state_of(part), "frozen");
    }
    let placed = up.succeeds(&["order", "place", "--wait", "60s", "--text"]);
    assert!(placed.contains(": confirmed"), "{placed}");
    assert!(up.fails(&["kill", "nothing"]).contains("possible values"));

    up.succeeds(&["down"]);
    assert!(up.fails(&["kill", "payment"]).contains("no suite runs"));
    let second = up.run(&["up", "--detach"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success() && said.contains("is used again"), "{said}");
    up.succeeds(&["down"]);
    let third = up.run(&["up", "--detach", "--fresh"]);
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(third.status.success() && said.contains("--fresh deletes the databases and topics"), "{said}");
}
