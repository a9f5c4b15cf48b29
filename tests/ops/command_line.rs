//! The command line, from `up` to `down`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::up::Up;

impl Up {
    fn pid_of_up(&self) -> i32 {
        let said = self.succeeds(&["status"]);
        let pid = said.split("process ").nth(1).and_then(|rest| rest.split(',').next());
        pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no process in {said}"))
    }

    #[expect(clippy::disallowed_methods, reason = "the test plays a producer that writes nonsense")]
    fn produce(&self, topic: &str, key: &str, value: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.ports_from + 11));
        let producer: BaseProducer = config.create().expect("a producer");
        producer.send(BaseRecord::to(topic).key(key).payload(value)).expect("queued");
        producer.flush(Duration::from_secs(30)).expect("sent");
    }

    /// Waits until a key is parked.
    fn until_listed(&self, key: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.succeeds(&["parked", "list"]).contains(key) {
            assert!(Instant::now() < deadline, "{key} is not parked");
        }
    }
}

#[test]
fn a_suite_goes_up_takes_the_printed_order_and_goes_down() {
    let up = Up::new("command-line");
    let said = up.succeeds(&["up", "--detach", "--fresh"]);
    let curl = said.lines().find(|line| line.trim_start().starts_with("curl ")).expect("a curl line");
    let answer = Command::new("sh").args(["-c", curl]).output().expect("it runs");
    let order: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!(order["status"], "confirmed", "{order}");

    let placed = up.succeeds(&["order", "place", "--item", "mug=3", "--token", "tok_chargeDeclined"]);
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    assert_eq!(placed["reason"], "card_declined");
    let id = placed["id"].as_str().expect("an id");
    assert!(up.succeeds(&["order", "list"]).contains(id));
    assert!(up.succeeds(&["order", "watch", id]).contains("order.rejected.v1"));
    assert!(up.succeeds(&["order", "watch", id]).trim_end().ends_with("rejected  (card_declined)"));
    assert_eq!(up.succeeds(&["status"]).matches(" ready").count(), 6);
    assert!(up.fails(&["order", "place", "--item", "ghost"]).contains("/items/0/sku"));

    parked_messages(&up, id);
    a_key_of_a_stranger(&up);
    resolved_step(&up);

    assert!(up.fails(&["up"]).contains("runs already"), "a second start is refused");
    let elsewhere = Up { ports_from: up.ports_from, state: up.state.with_extension("other") };
    let refused = elsewhere.fails(&["up"]);
    assert!(refused.contains(&(up.ports_from + 1).to_string()) && refused.contains("amends"), "{refused}");

    let orders = up.succeeds(&["order", "list"]);
    up.succeeds(&["down"]);
    assert!(up.fails(&["status"]).contains("no suite runs"));
    assert!(up.fails(&["order", "list"]).contains("amends up"));

    up.succeeds(&["up", "--detach"]);
    assert_eq!(up.succeeds(&["order", "list"]), orders, "the second start has what the first one had");
    up.succeeds(&["down"]);
}

/// Ends an order whose card provider never answers.
fn resolved_step(up: &Up) {
    let placed =
        up.succeeds(&["order", "place", "--item", "mug=1", "--token", "tok_unavailable", "--wait", "0s"]);
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    let id = placed["id"].as_str().expect("an id");
    let deadline = Instant::now() + Duration::from_secs(60);
    let resolve =
        ["saga", "resolve", id, "--step", "authorize_payment", "--by", "ada", "--reason", "no such call"];
    let refused = [&resolve[..], &["--outcome", "refused", "--code", "timed_out"]].concat();
    while !up.run(&refused).status.success() {
        assert!(Instant::now() < deadline, "the call is not open");
    }
    assert!(up.succeeds(&["order", "watch", id]).trim_end().ends_with("rejected  (timed_out)"));
    let again = up.fails(&[&resolve[..], &["--outcome", "done", "--reply", "{}"]].concat());
    assert!(again.contains("The step is not open"), "{again}");
    assert!(up.fails(&[&resolve[..], &["--outcome", "refused"]].concat()).contains("--code"));
    let unknown =
        ["saga", "resolve", id, "--step", "polish", "--outcome", "done", "--reason", "none", "--by", "ada"];
    assert!(up.fails(&unknown).contains("no service has the step polish"));
}

/// Parks a message that can't be handled, edits, retries and skips it until the list is empty.
fn parked_messages(up: &Up, id: &str) {
    assert_eq!(up.succeeds(&["parked", "list"]).trim_end(), "nothing is parked");
    assert!(up.fails(&["parked", "show", id]).contains("is parked nowhere"));
    up.produce("shipping.commands", id, "not a message");
    up.until_listed(id);
    let listed = up.succeeds(&["parked", "list"]);
    let line = listed.lines().find(|line| line.contains(id)).expect("a line");
    assert!(line.starts_with("shipping ") && line.contains("the value is not an envelope"), "{line}");
    assert_eq!(up.succeeds(&["parked", "list", "--service", "payment"]).trim_end(), "nothing is parked");
    assert!(up.succeeds(&["parked", "show", id]).contains("not a message"));
    assert!(up.fails(&["parked", "retry", id]).contains("A message failed again"));
    let shown: Value = serde_json::from_str(&up.succeeds(&["parked", "show", id, "--json"])).expect("JSON");
    assert_eq!((&shown[0]["service"], &shown[0]["attempts"]), (&json!("shipping"), &json!(1)));
    let number = shown[0]["id"].to_string();

    // An undo whose action never came. It is answered, and the saga ignores the answer because it has ended.
    let mended = json!({
        "id": shared::envelope::new_id(), "type": "shipping.cancel_shipment.v1", "source": "operator",
        "subject": id, "dataVersion": "1.0.0", "timestamp": "2026-11-21T10:00:00Z", "correlationId": id,
        "data": {"orderId": id, "trackingNumber": "none"},
        "metadata": {"step": "book_shipment", "direction": "undo"},
    });
    let file = up.state.join("mended.json");
    std::fs::write(&file, "{").expect("a file");
    let file = file.to_str().expect("a path");
    assert!(up.fails(&["parked", "edit", id, &number, "--file", file]).contains("the file is not JSON"));
    assert!(up.fails(&["parked", "edit", id, &number, "--editor", "true"]).contains("nothing was changed"));
    assert!(up.fails(&["parked", "edit", id, "4711", "--file", file]).contains("has no message 4711"));
    std::fs::write(file, mended.to_string()).expect("a file");
    let said = up.succeeds(&["parked", "edit", id, &number, "--editor", &format!("cp {file}")]);
    assert!(said.contains("amends parked retry"), "{said}");
    assert!(up.succeeds(&["parked", "retry", id]).contains("1 replayed"));
    assert!(up.fails(&["parked", "retry", id]).contains("is parked any more"));

    up.produce("shipping.commands", id, "nor is this");
    up.until_listed(id);
    let shown: Value = serde_json::from_str(&up.succeeds(&["parked", "show", id, "--json"])).expect("JSON");
    let number = shown[1]["id"].to_string();
    assert!(up.fails(&["parked", "retry", "--all"]).contains("1 of 1 keys are still parked"));
    let said = up.succeeds(&["parked", "skip", id, &number, "--reason", "a test", "--by", "ada"]);
    assert!(said.contains("nothing of the key is parked any more"), "{said}");
    assert!(up.succeeds(&["parked", "show", id]).contains("skipped by ada: a test"));
    assert_eq!(up.succeeds(&["parked", "retry", "--all"]).trim_end(), "nothing is parked");

    // Many at once.
    up.produce("shipping.commands", id, "rubbish");
    up.until_listed(id);
    let rubbish = ["--cause", "not an envelope", "--topic", "shipping.commands"];
    let said = up.succeeds(&[&["parked", "skip", "--dry-run"], &rubbish[..]].concat());
    assert!(said.contains("1 messages of 1 keys  unreadable  shipping.commands: the value is not"), "{said}");
    assert!(up.fails(&[&["parked", "retry"], &rubbish[..]].concat()).contains("1 keys failed again"));
    let skip = [&["parked", "skip", "--reason", "a test", "--by", "ada"], &rubbish[..]].concat();
    assert!(up.succeeds(&skip).contains("1 messages skipped"));
    assert!(up.succeeds(&skip).contains("nothing is parked that fits"));
}

/// Parks a message whose key would write to the terminal and forge lines of the log. Such a key can be skipped all the same.
fn a_key_of_a_stranger(up: &Up) {
    const KEY: &str = "odd'\nforged\u{1b}]0;pwned\u{7}";
    up.produce("shipping.commands", KEY, "not a message either");
    let shown = "odd'\\nforged\\u001b]0;pwned\\u0007";
    up.until_listed(shown);
    let all = up.succeeds(&["parked", "show", KEY, "--json"]);
    let messages: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(messages[0]["key"].as_str().unwrap_or(KEY), KEY);
    let number = messages[0]["id"].to_string();
    let failed = up.fails(&["parked", "retry", "--all"]);
    let skipped = up.succeeds(&["parked", "skip", KEY, &number, "--reason", "a test", "--by", "ada"]);
    for said in [all, up.succeeds(&["parked", "show", KEY]), failed, skipped] {
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
        assert!(!said.lines().any(|line| line.trim_start().starts_with("forged")), "{said}");
    }
    let logs = std::fs::read_dir(up.state.join("logs")).expect("logs");
    let log: String =
        logs.map(|log| std::fs::read_to_string(log.expect("a log").path()).expect("text")).collect();
    assert!(log.contains("odd'\\nforged"), "the key is in the log");
    assert!(!log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("forged")));
}

#[test]
fn two_suites_run_side_by_side_and_one_that_is_killed_leaves_nothing() {
    let one = Up::new("side-by-side-1");
    one.succeeds(&["up", "--detach", "--fresh"]);
    let other = Up::new("side-by-side-2");
    other.succeeds(&["up", "--detach", "--fresh"]);
    one.succeeds(&["order", "place"]);
    assert_eq!(one.succeeds(&["order", "list"]).lines().count(), 1);
    assert_eq!(
        other.succeeds(&["order", "list"]).lines().count(),
        0,
        "they have nothing to do with each other"
    );

    let pid = Pid::from_raw(one.pid_of_up()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("killed");
    let deadline = Instant::now() + Duration::from_secs(30);
    while (one.ports_from..one.ports_from + 13).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        assert!(Instant::now() < deadline, "something of the killed suite still listens");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(other.succeeds(&["order", "place"]).contains("confirmed"));
    let audit = other.succeeds(&["audit", "--wait", "60s"]);
    assert!(audit.contains("all nine hold") && !audit.contains("BROKEN"), "{audit}");
    let id = other.succeeds(&["order", "list"]).split_whitespace().next().expect("an order").to_owned();
    let receipt = other.succeeds(&["audit", "--order", &id]);
    for said in
        ["order.created.v1", "payment.captured.v1", "reserved", "committed", "tracking number", "notice "]
    {
        assert!(receipt.contains(said), "{said}: {receipt}");
    }
    let place = |said: &str| receipt.find(said).unwrap_or_else(|| panic!("no {said} in {receipt}"));
    let chain = ["order.created.v1", "authorize ", "shipment asked for", "capture ", "order.confirmed.v1"];
    assert!(chain.map(place).is_sorted(), "{receipt}");
    assert!(receipt.contains("0 restocked; 1 taken, 1 to be"), "{receipt}");
    assert!(other.succeeds(&["saga", "list"]).contains("place_order@2"));
    assert!(
        other.succeeds(&["saga", "show", &id]).contains("capture payment"),
        "its log says what was asked"
    );
    let rehearsed = other.succeeds(&["saga", "rehearse", "--definition", "place_order@1"]);
    assert!(rehearsed.contains("1 sagas would go the same way"), "{rehearsed}");
    let unknown = other.fails(&["saga", "rehearse", "--definition", "place_order@9"]);
    assert!(unknown.contains("has no definition place_order@9"), "{unknown}");
    one.succeeds(&["up", "--detach"]);
    assert!(one.succeeds(&["order", "list"]).contains("confirmed"), "the data of the killed suite is there");
    one.succeeds(&["down"]);

    one.succeeds(&["up", "--detach", "--fresh"]);
    assert_eq!(one.succeeds(&["order", "list"]).lines().count(), 0, "--fresh begins with nothing");
}

#[test]
fn the_generated_documents_are_those_of_the_code() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    let output = command.args(["generate", "--check", "--root"]).arg(root).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn load_measures_a_suite_and_finds_that_money_and_stock_add_up() {
    let up = Up::new("load");
    assert!(up.fails(&["load", "--clients", "4"]).contains("amends up"), "there is no suite yet");
    up.succeeds(&["up", "--detach", "--fresh"]);
    let file = up.state.join("load.json");
    let report = |arguments: &[&str]| {
        let json = ["--json", file.to_str().expect("UTF-8")];
        let said = up.succeeds(&[&["load"], arguments, &json].concat());
        assert!(said.contains("money adds up, stock adds up"), "{said}");
        let text = std::fs::read(&file).expect("a report");
        serde_json::from_slice::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {said}"))
    };
    let number = |report: &Value, pointer: &str| {
        let value = report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {report}"));
        value.as_f64().unwrap_or_else(|| panic!("{pointer} is {value} in {report}"))
    };

    // Without a warm-up every client has an order that counts, however slow the machine is.
    let mix = ["--warmup", "0s", "--declined", "20%", "--out-of-stock", "10%"];
    let closed = report(&[&["--clients", "4", "--duration", "3s"], &mix[..]].concat());
    let [placed, confirmed, rejected] =
        ["/placed", "/confirmed", "/rejected"].map(|pointer| number(&closed, pointer));
    assert!(placed > 0.0 && confirmed > 0.0 && rejected > 0.0, "{closed}");
    assert_eq!(confirmed + rejected, placed, "{closed}");
    for none in ["/unsettled", "/lost", "/errors", "/warmup/unsettled", "/warmup/errors"] {
        assert_eq!(number(&closed, none), 0.0, "{none} in {closed}");
    }
    let latencies = ["/settle_p50_ms", "/settle_p95_ms", "/settle_p99_ms", "/settle_max_ms"];
    assert!(latencies.map(|pointer| number(&closed, pointer)).is_sorted(), "{closed}");
    assert!(number(&closed, "/accept_p50_ms") <= number(&closed, "/settle_p50_ms"), "{closed}");
    for some in [
        "/settled_per_s",
        "/accept_p50_ms",
        "/accept_p99_ms",
        "/commits_per_order",
        "/writing_commits_per_order",
        "/messages_per_order",
        "/cpu_ms_per_order/total",
        "/cpu_ms_per_order/kafka",
        "/cpu_ms_per_order/postgres",
        "/cpu_ms_per_order/services",
        "/cpu_ms_per_order/generator",
        "/rss_mb/services",
        "/rss_mb/kafka",
        "/rss_mb/postgres",
    ] {
        assert!(number(&closed, some) > 0.0, "{some} in {closed}");
    }
    assert_eq!(
        (&closed["audit"]["money"], &closed["audit"]["stock"]),
        (&Value::Bool(true), &Value::Bool(true))
    );

    let open = report(&["--rate", "10:1s,20:2s", "--warmup", "1s", "--declined", "0%"]);
    let phases = open["phases"].as_array().expect("phases");
    let counts: Vec<f64> = phases.iter().map(|phase| number(phase, "/confirmed")).collect();
    assert_eq!((counts, number(&open, "/placed")), (vec![10.0, 40.0], 50.0), "{open}");
    assert_eq!(number(&open, "/warmup/placed"), 10.0, "{open}");
    assert!(
        open["drained_s"].is_number() && phases.iter().all(|phase| phase["drained_s"].is_number()),
        "{open}"
    );

    // The generator and the order service have counted the same.
    let order: Value = serde_json::from_slice(&audit(&up).stdout).expect("JSON");
    let counted = |status: &str| {
        [&closed, &closed["warmup"], &open, &open["warmup"]]
            .iter()
            .map(|counts| number(counts, &format!("/{status}")))
            .sum::<f64>()
    };
    for status in ["confirmed", "rejected"] {
        assert_eq!(number(&order, &format!("/orders/{status}")), counted(status), "{status}: {order}");
    }
}

/// Returns the answer of order's `/audit`.
fn audit(up: &Up) -> Output {
    let url = format!("http://127.0.0.1:{}/audit", up.ports_from + 1);
    Command::new("curl").args(["-sS", "--fail", &url]).output().expect("it runs")
}
