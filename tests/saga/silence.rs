//! Participants that don't answer within the deadline of their step: nobody knows what they did.
//!
//! An undo that overtakes its action can't come about here: a saga undoes nothing before its open steps have answered, and
//! both commands go through one partition. What a participant does with an action that comes after its undo all the same
//! is shown in `shared/tests/core/barrier.rs`, which sends the two by hand.

use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Order, Setup, Suite, order};

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

async fn with_short_deadlines() -> Suite {
    let settings = vec![("ORCHESTRATOR_STEP_DEADLINE", "300ms".to_owned())];
    Suite::with(Setup { settings, ..Setup::default() }).await
}

/// A participant is frozen for longer than its step may take, and then carries out what it was asked, once: it finds the
/// command as often as the saga has asked. The pivot is no exception; it is asked until it says, and never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_silent_is_unknown_and_asked_again_and_done_once() {
    let mut suite = with_short_deadlines().await;
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

/// How an order comes to the step that is silent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    /// Its card is declined.
    Declined,
    /// Its address is unknown.
    Undeliverable,
    /// It is cancelled while its shipment is booked.
    Cancelled,
    /// It is returned.
    Returned,
    /// It is returned, and its money can't be given back.
    Stays,
}

use Story::{Cancelled, Declined, Returned, Stays, Undeliverable};

impl Story {
    fn order(self) -> Value {
        let mut body = order();
        match self {
            Declined => body["paymentToken"] = json!("tok_chargeDeclined"),
            Undeliverable => body["shippingAddress"]["postalCode"] = json!("00000"),
            Stays => body["paymentToken"] = json!("tok_refundFail"),
            Cancelled | Returned => {}
        }
        body
    }

    /// Where the saga is held up until it is to turn round, and what is done by then.
    fn held_up(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Declined => ("payment", &["reserve_stock"]),
            Undeliverable | Cancelled => ("shipping", &["reserve_stock", "authorize_payment"]),
            Returned | Stays => ("payment", &["stop_shipment"]),
        }
    }

    /// The order's status in the end, and its return's.
    fn end(self) -> (&'static str, Option<&'static str>) {
        match self {
            Declined | Undeliverable => ("rejected", None),
            Cancelled => ("cancelled", None),
            Returned => ("returned", Some("done")),
            Stays => ("confirmed", Some("refused")),
        }
    }
}

/// Every other step: what is undone, what closes a saga that was undone, and the steps of a return. An undo has the name
/// of its step.
const OTHERS: [(Story, &str, &str, &str); 12] = [
    (Declined, "reserve_stock", "undoing", "inventory"),
    (Undeliverable, "authorize_payment", "undoing", "payment"),
    (Declined, "reject_order", "unknown", "order"),
    (Cancelled, "book_shipment", "undoing", "shipping"),
    (Cancelled, "cancel_order", "unknown", "order"),
    (Returned, "stop_shipment", "unknown", "shipping"),
    (Returned, "refund_payment", "unknown", "payment"),
    (Returned, "restock_order", "unknown", "inventory"),
    (Returned, "return_order", "unknown", "order"),
    (Returned, "notify_customer", "unknown", "notification"),
    (Stays, "stop_shipment", "undoing", "shipping"),
    (Stays, "refuse_return", "unknown", "order"),
];

/// The same on the way back, and in the saga of a return: what is silent there is asked until it is done, too, and is done
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_an_end_and_a_return_that_are_silent_are_asked_again_and_done_once() {
    let mut suite = with_short_deadlines().await;
    for (story, step, shown, service) in OTHERS {
        let order = suite.silenced(story, step, shown, service).await;
        suite.is_asked_again(order, step, shown).await;
        let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
        let running = if story == Returned { "running" } else { "compensating" };
        assert_eq!(saga["status"], running, "silence of {step} decides nothing: {saga}");
        suite.process(service).signal(Signal::CONT);
        let ended = suite.settled(order).await;
        let (status, returned) = story.end();
        assert_eq!(ended["status"], status, "{step} was silent: {ended}");
        assert_eq!(ended["return"]["status"].as_str(), returned, "{step} was silent: {ended}");
    }
    suite.comes_to_rest().await;
    let of = |story: Story| OTHERS.iter().filter(|one| one.0 == story).count() as i64;
    let booked = of(Cancelled) + of(Returned) + of(Stays);
    let told = |kind: &str| format!("select count(*) from order_timeline where type = 'order.{kind}.v1'");
    let stock = |kind: &str| format!("select count(*) from stock_entry where kind = '{kind}'");
    let ledger = |kind: &str| format!("select count(*) from ledger_entry where kind = '{kind}'");
    for (service, sql, times) in [
        ("inventory", stock("reserved"), OTHERS.len() as i64),
        ("inventory", stock("released"), of(Declined) + of(Undeliverable) + of(Cancelled)),
        ("inventory", stock("restocked"), of(Returned)),
        ("payment", ledger("authorize"), of(Undeliverable) + booked),
        ("payment", ledger("void"), of(Undeliverable) + of(Cancelled)),
        ("payment", ledger("refund"), of(Returned)),
        ("order", told("rejected"), of(Declined) + of(Undeliverable)),
        ("order", told("cancelled"), of(Cancelled)),
        ("order", told("returned"), of(Returned)),
        ("order", told("return_refused"), of(Stays)),
    ] {
        assert_eq!(suite.number(service, &sql).await, times, "{service}: {sql}");
    }
}

impl Suite {
    /// Brings an order to a step whose participant is frozen.
    async fn silenced(&mut self, story: Story, step: &str, shown: &str, service: &'static str) -> Order {
        let first = (step, shown) == ("stop_shipment", "unknown");
        let (held_up, done) = if first { (service, &[][..]) } else { story.held_up() };
        let returns = matches!(story, Returned | Stays);
        let confirmed = if returns { Some(self.confirmed(&story.order()).await) } else { None };
        self.process(held_up).signal(Signal::STOP);
        let order = match confirmed {
            Some(order) => {
                assert_eq!(self.post(order, "returns").await.0, StatusCode::ACCEPTED);
                order
            }
            None => self.place(&story.order()).await,
        };
        for before in done {
            self.step_is(order, before, "done").await;
        }
        if story == Cancelled {
            assert_eq!(self.post(order, "cancellation").await.0, StatusCode::ACCEPTED);
            self.until("the saga to hear of the cancellation", async |suite| {
                let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
                let mut log = saga["log"].as_array().into_iter().flatten();
                log.any(|entry| entry["input"]["input"] == "cancel")
            })
            .await;
        }
        if held_up != service {
            self.process(service).signal(Signal::STOP);
            self.process(held_up).signal(Signal::CONT);
        } else if shown == "undoing" {
            // It has to answer before it is silent, and is not to be asked for more meanwhile.
            self.process("orchestrator").signal(Signal::STOP);
            self.process(service).signal(Signal::CONT);
            let booked = "select count(*) from shipment where status = 'booked' and order_id =";
            let booked = format!("{booked} '{}'", order.id);
            self.until("the booking", async |suite| suite.number(service, &booked).await == 1).await;
            self.has_sent_everything(service).await;
            self.process(service).signal(Signal::STOP);
            self.process("orchestrator").signal(Signal::CONT);
        }
        order
    }

    /// Waits until a step is asked again, in this direction.
    async fn is_asked_again(&self, order: Order, step: &str, shown: &str) {
        self.until(&format!("{step} to be {shown}, and asked again"), async |suite| {
            let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
            let mut steps = saga["steps"].as_array().into_iter().flatten();
            steps.any(|one| {
                one["name"] == step
                    && one["status"] == shown
                    && one["attempts"].as_u64().is_some_and(|n| n > 1)
            })
        })
        .await;
    }
}
