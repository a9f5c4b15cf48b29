//! The orchestrator, killed after each of its commits.
//!
//! A trigger lets a process write one entry of a saga's log, and stops the next entry in the middle of its transaction. There
//! the process is killed, and its successor may write that entry. So every commit is the last one of a process, and every
//! transaction is interrupted once. The relay's checkpoint is not saved meanwhile. So each process dies between sending and
//! its checkpoint, and its successor sends everything again.

use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Order, Suite, order};

const GATE: &str = "
    create table gate (open_upto integer not null);
    insert into gate values (0);
    create function hold() returns trigger language plpgsql as $$
    begin
        if (select min(sequence) from written) > (select open_upto from gate) then
            perform pg_sleep(3600);
        end if;
        return null;
    end $$;
    create trigger hold after insert on saga_log referencing new table as written
        for each statement execute function hold();
    create function forget() returns trigger language plpgsql as $$
    begin
        new.acked_snapshot := old.acked_snapshot;
        new.window_snapshot := old.window_snapshot;
        new.position := old.position;
        return new;
    end $$;
    create trigger forget before update on relay_checkpoint for each row execute function forget();";

const NO_GATE: &str = "drop trigger hold on saga_log; drop trigger forget on relay_checkpoint";

const HELD: &str = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";

/// Kills the orchestrator and its open transactions, and lets its successor write up to this entry.
async fn killed(suite: &mut Suite, open_upto: &str) {
    suite.kill9("orchestrator");
    // Its sessions sleep in the database, so they do not notice that the client has gone.
    suite.texts("orchestrator", &format!("select pg_terminate_backend(pid)::text {HELD}")).await;
    let held = format!("select count(*) {HELD}");
    suite
        .until("its transactions to be rolled back", async |suite| {
            suite.number("orchestrator", &held).await == 0
        })
        .await;
    suite.execute("orchestrator", &format!("update gate set open_upto = ({open_upto})")).await;
    suite.launch("orchestrator");
}

/// Kills the orchestrator after each commit about a saga until the fact is true. Returns how often it was killed.
async fn killed_until(suite: &mut Suite, order: Order, fact: &str) -> usize {
    let fact = format!("select count(*) from saga where saga_id = '{}' and {fact}", order.id);
    let held = format!("select count(*) {HELD}");
    for kills in 0.. {
        suite
            .until("the orchestrator to be held up, or to have nothing more to do", async |suite| {
                suite.number("orchestrator", &held).await > 0
                    || suite.number("orchestrator", &fact).await == 1
            })
            .await;
        if suite.number("orchestrator", &fact).await == 1 {
            return kills;
        }
        let next =
            format!("select 1 + coalesce(max(sequence), 0) from saga_log where saga_id = '{}'", order.id);
        killed(suite, &next).await;
    }
    unreachable!("numbers don't end")
}

const ENDED: &str = "status in ('completed', 'compensated')";

/// Returns SQL for the fact that a saga's log has such an entry.
fn has(input: &str) -> String {
    format!(
        "exists (select from saga_log where saga_log.saga_id = saga.saga_id and input ->> 'input' = '{input}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_killed_after_every_commit() {
    let mut suite = Suite::start().await;
    suite.execute("orchestrator", GATE).await;
    let mut undeliverable = order();
    undeliverable["shippingAddress"]["postalCode"] = json!("00000");
    for (body, end) in [(order(), "confirmed"), (undeliverable, "rejected")] {
        let placed = suite.place(&body).await;
        let kills = killed_until(&mut suite, placed, ENDED).await;
        // Replies that arrive together are committed together.
        assert!(kills >= 5, "it was killed {kills} times");
        assert_eq!(suite.settled(placed).await["status"], end);
        suite.execute("orchestrator", "update gate set open_upto = 0").await;
    }

    // A deadline, a retry by an operator, and a cancellation.
    suite.set("ORCHESTRATOR_STEP_DEADLINE", Some("1s".to_owned()));
    killed(&mut suite, "0").await;
    suite.process("shipping").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    killed_until(&mut suite, placed, &has("due")).await;
    killed(&mut suite, "1000").await;
    suite.ready("orchestrator").await;
    let url = format!("{}/sagas/{}/retry", suite.url("orchestrator"), placed.id);
    let retry = json!({"by": "ada", "reason": "to see"});
    let answer = suite.client.post(url).json(&retry).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let committed = format!("select max(sequence) from saga_log where saga_id = '{}'", placed.id);
    killed(&mut suite, &committed).await;
    let url = format!("{}/orders/{}/cancellation", suite.url("order"), placed.id);
    let answer = suite.client.post(url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    killed_until(&mut suite, placed, &has("cancel")).await;
    killed(&mut suite, &committed).await;
    suite.process("shipping").signal(Signal::CONT);
    killed_until(&mut suite, placed, ENDED).await;
    let cancelled: Value = suite.settled(placed).await;
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let saga = suite.get("orchestrator", &format!("/sagas/{}", placed.id)).await;
    let inputs = saga["log"].as_array().expect("a log").iter().map(|entry| &entry["input"]["input"]);
    for kind in ["started", "done", "due", "retry", "cancel"] {
        assert!(inputs.clone().any(|input| input == kind), "{kind}: {saga}");
    }

    suite.execute("orchestrator", NO_GATE).await;
    suite.comes_to_rest().await;
}
