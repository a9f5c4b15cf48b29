//! The yardstick: it measures plain SQL on the PostgreSQL of a running suite, and leaves nothing behind.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::up::Up;

impl Up {
    /// Returns how many databases of the yardstick there are.
    async fn databases(&self) -> i64 {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.ports_from + 10);
        let mut db = PgConnection::connect(&url).await.expect("PostgreSQL answers");
        let count = "select count(*) from pg_database where datname like 'baseline\\_%'";
        sqlx::query_scalar(count).fetch_one(&mut db).await.expect("a count")
    }

    async fn until_measuring(&self, run: &mut Child) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.databases().await < 5 {
            assert!(run.try_wait().expect("a child").is_none(), "it has ended");
            assert!(Instant::now() < deadline, "it has not begun");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("a report")).expect("JSON")
}

fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {report}"));
    value.as_f64().unwrap_or_else(|| panic!("{pointer} is {value} in {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_yardstick_measures_adds_up_and_leaves_nothing_behind() {
    let up = Up::new("baseline");
    assert!(up.fails(&["bench", "baseline", "--rate", "20"]).contains("amends up"), "there is no suite yet");
    up.succeeds(&["up", "--detach", "--fresh"]);
    let file = up.state.join("baseline.json");
    let into = ["--json", file.to_str().expect("UTF-8")];
    let brief = ["--rate", "20", "--duration", "2s", "--warmup", "1s"];

    let said = up.succeeds(&[&["bench", "baseline"], &brief[..], &into].concat());
    assert!(said.contains("money adds up, stock adds up"), "{said}");
    let report = json(&file);
    assert_eq!((number(&report, "/placed"), number(&report, "/errors")), (40.0, 0.0), "{report}");
    assert_eq!(number(&report, "/confirmed") + number(&report, "/rejected"), 40.0, "{report}");
    // The accounts 0, 20 and 40 have no credit.
    assert_eq!(
        (number(&report, "/sums/completed"), number(&report, "/sums/rejected")),
        (57.0, 3.0),
        "{report}"
    );
    for none in
        ["/unsettled", "/sums/unfinished", "/sums/skus_with_lost_stock", "/sums/accounts_wrongly_charged"]
    {
        assert_eq!(number(&report, none), 0.0, "{none} in {report}");
    }
    for some in [
        "/settled_per_s",
        "/cpu_ms_per_order/total",
        "/cpu_ms_per_order/program",
        "/writing_commits_per_order",
    ] {
        assert!(number(&report, some) > 0.0, "{some} in {report}");
    }
    assert!(number(&report, "/settle_p50_ms") <= number(&report, "/settle_p99_ms"), "{report}");
    assert_eq!(up.databases().await, 0, "they are dropped");

    // One that is told to stop, and one beside it.
    let mut long = up.command(&["bench", "baseline", "--clients", "4", "--duration", "10m"]);
    let mut long = long.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    up.until_measuring(&mut long).await;
    let refused = up.fails(&[&["bench", "baseline"], &brief[..]].concat());
    assert!(refused.contains("another yardstick"), "{refused}");
    let pid = Pid::from_raw(i32::try_from(long.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it lives");
    assert!(!long.wait().expect("it ends").success(), "it was not complete");
    assert_eq!(up.databases().await, 0, "they are dropped");

    let said = up.succeeds(&[&["load", "--against-baseline", "--rounds", "2"], &brief[..], &into].concat());
    assert!(said.contains("round 2") && said.contains("ratios"), "{said}");
    let report = json(&file);
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(2), "{report}");
    for some in [
        "/ratios/settled_per_s",
        "/ratios/settle_p50_ms",
        "/ratios/settle_p99_ms",
        "/ratios/cpu_ms_per_order",
    ] {
        assert!(number(&report, some) > 0.0, "{some} in {report}");
    }
    for side in ["yardstick", "suite"] {
        assert!(number(&report, &format!("/medians/{side}/settle_p50_ms")) > 0.0, "{report}");
        assert_eq!(number(&report, &format!("/rounds/1/{side}/placed")), 40.0, "{report}");
    }
    assert_eq!(up.databases().await, 0, "they are dropped");
}
