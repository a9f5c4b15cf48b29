//! Sagas in flight, and orchestrators with other versions of their plans.

use std::fs;

use local::Signal;
use orchestrator::sagas::PlaceOrder;
use serde_json::json;
use shared::saga::plan::Saga;

use crate::harness::{Suite, order};

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

/// A saga that continued with another plan of the same name could wait for ever, or take wrong steps.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_without_the_plan_of_a_saga_in_flight_does_not_start_and_says_which() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "book_shipment", "asked").await;
    let known = suite.texts("orchestrator", "select plan_hash from saga").await;
    for (version, hash, says) in [
        (99, known[0].as_str(), "place_order@99"),
        (PlaceOrder::VERSION, "0123456789abcdef", "with the plan 0123456789abcdef"),
    ] {
        suite.kill9("orchestrator");
        let other = format!("update saga set version = {version}, plan_hash = '{hash}'");
        suite.execute("orchestrator", &other).await;
        let before = fs::read_to_string(suite.log("orchestrator", 0)).expect("a log").len();
        suite.launch("orchestrator");
        let ended = suite.process("orchestrator").end().await;
        assert_eq!(ended.code(), Some(1));
        let log = fs::read_to_string(suite.log("orchestrator", 0)).expect("a log");
        let said = &log[before..];
        assert!(said.contains(says) && said.contains(&placed.id.to_string()), "{said}");
    }
    let back = format!("update saga set version = {}, plan_hash = '{}'", PlaceOrder::VERSION, known[0]);
    suite.execute("orchestrator", &back).await;
    suite.launch("orchestrator");
    suite.process("shipping").signal(Signal::CONT);
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
