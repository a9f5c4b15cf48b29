//! Sagas in flight, and orchestrators with other versions of their plans.

use std::fs;

use local::Signal;
use orchestrator::sagas::PlaceOrder;
use serde_json::json;
use shared::saga::plan::Saga;

use crate::harness::{Order, Suite, order};

/// Orders that began with the previous plan continue with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_in_flight_ends_by_the_plan_that_it_began_with() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let (old, new) = (suite.place(&order()).await, suite.place(&order()).await);
    for order in [old, new] {
        suite.step_is(order, "book_shipment", "asked").await;
    }
    suite.kill9("orchestrator");
    // This is the state that the previous release leaves: its plan had no step for a cancellation.
    let log = format!(
        "update saga set version = 1, plan_hash = 'f18b1e6b49781121', state = (state::jsonb #- '{{steps,-1}}')::json
         where saga_id = '{}'",
        old.id
    );
    suite.execute("orchestrator", &log).await;
    suite.launch("orchestrator");
    suite.ready("orchestrator").await;
    suite.process("shipping").signal(Signal::CONT);
    for (order, definition, steps) in [(old, "place_order@1", 8), (new, "place_order@2", 9)] {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
        let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
        assert_eq!((&saga["definition"], &saga["status"]), (&json!(definition), &json!("completed")));
        assert_eq!(saga["steps"].as_array().map(Vec::len), Some(steps), "{saga}");
    }
    suite.comes_to_rest().await;
}

/// A saga that continued with another plan of the same name could wait for ever, or take wrong steps. It waits for a release
/// that has its plan, and holds up nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_whose_plan_an_orchestrator_lacks_waits_alone_and_is_named() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let placed = suite.place(&order()).await;
        suite.step_is(placed, "book_shipment", "asked").await;
        waiting.push(placed);
    }
    let known = suite.texts("orchestrator", "select plan_hash from saga limit 1").await;
    suite.kill9("orchestrator");
    let others = [
        (waiting[0], 99, known[0].as_str(), "place_order@99"),
        (waiting[1], PlaceOrder::VERSION, "0123456789abcdef", "with the plan 0123456789abcdef"),
    ];
    let change = async |suite: &Suite, order: Order, version: i32, hash: &str| {
        let update = format!(
            "update saga set version = {version}, plan_hash = '{hash}' where saga_id = '{}'",
            order.id
        );
        suite.execute("orchestrator", &update).await;
    };
    for (order, version, hash, _) in others {
        change(&suite, order, version, hash).await;
    }
    suite.launch("orchestrator");
    suite.ready("orchestrator").await;
    suite.process("shipping").signal(Signal::CONT);
    for (order, ..) in others {
        suite.first_parked("orchestrator", &order.id.to_string()).await;
    }
    let other = suite.place(&order()).await;
    assert_eq!(suite.settled(other).await["status"], "confirmed", "the others go on");
    suite
        .until("the log to name both", async |suite| {
            let log = fs::read_to_string(suite.log("orchestrator", 0)).expect("a log");
            others.iter().all(|(order, _, _, says)| log.contains(says) && log.contains(&order.id.to_string()))
        })
        .await;

    // The release that has them.
    for (order, ..) in others {
        change(&suite, order, PlaceOrder::VERSION, &known[0]).await;
        let (status, answer) = suite.retry("orchestrator", &order.id.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}
