//! Participants that don't answer within the deadline of their step: nobody knows what they did.

use local::Signal;

use crate::harness::{Setup, Suite, order};

/// Each step of an order, its participant, and whether the order is held up before it, so that the participant can be
/// frozen in time.
const STEPS: [(&str, &str, bool); 7] = [
    ("reserve_stock", "inventory", false),
    ("authorize_payment", "payment", false),
    ("book_shipment", "shipping", false),
    ("capture_payment", "payment", true),
    ("commit_stock", "inventory", true),
    ("confirm_order", "order", true),
    ("notify_customer", "notification", false),
];

/// A participant is frozen for longer than its step may take, and then carries out what it was asked, once: it finds the
/// command as often as the saga has asked. The pivot is no exception; it is asked until it says, and never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_silent_is_unknown_and_asked_again_and_done_once() {
    let settings = vec![("ORCHESTRATOR_STEP_DEADLINE", "300ms".to_owned())];
    let mut suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    for (step, service, held_up) in STEPS {
        suite.process(if held_up { "shipping" } else { service }).signal(Signal::STOP);
        let order = suite.place(&order()).await;
        if held_up {
            for before in ["reserve_stock", "authorize_payment"] {
                suite.step_is(order, before, "done").await;
            }
            suite.process(service).signal(Signal::STOP);
            suite.process("shipping").signal(Signal::CONT);
        }
        suite.step_is(order, step, "unknown").await;
        let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
        assert_eq!(saga["status"], "running", "silence of {step} is no refusal: {saga}");
        suite.process(service).signal(Signal::CONT);
        assert_eq!(suite.settled(order).await["status"], "confirmed", "{step} was silent");
    }
    suite.comes_to_rest().await;
    for (service, sql) in [
        ("inventory", "select count(*) from stock_entry where kind = 'reserved'"),
        ("inventory", "select count(*) from stock_entry where kind = 'committed'"),
        ("payment", "select count(*) from ledger_entry where kind = 'authorize'"),
        ("payment", "select count(*) from ledger_entry where kind = 'capture'"),
        ("shipping", "select count(*) from shipment"),
        ("order", "select count(*) from order_timeline where type = 'order.confirmed.v1'"),
        ("notification", "select count(*) from notification"),
    ] {
        assert_eq!(suite.number(service, sql).await, 7, "{service} did something twice: {sql}");
    }
    let undone = "select count(*) from saga where status = 'compensated'";
    assert_eq!(suite.number("orchestrator", undone).await, 0);
}
