//! The rules that let a command come twice, late, or after its undo, at one participant: inventory carries its commands
//! out in the database, payment with the help of the outside.

use schemas::common::{Line, Money};
use schemas::inventory::{ReleaseStock, ReserveStock};
use schemas::payment::{AuthorizePayment, VoidPayment};
use serde_json::{Value, json};
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::steps::{Asked, ask};
use crate::harness::{Setup, Suite};

async fn inventory() -> Suite {
    Suite::with(Setup { only: Some("inventory"), ..Setup::default() }).await
}

/// A payment service whose provider takes its time, so that what comes meanwhile finds the call open.
async fn slow_payment() -> Suite {
    let settings = vec![("PAYMENT_PROVIDER_LATENCY", "2s".to_owned())];
    Suite::with(Setup { only: Some("payment"), settings, ..Setup::default() }).await
}

fn reserve(order: Uuid, sku: &str, quantity: i64) -> Asked {
    let items = vec![Line { sku: sku.to_owned(), quantity }];
    ask(order, "reserve_stock", Direction::Do, &ReserveStock { order_id: order, items })
}

fn release(order: Uuid) -> Asked {
    ask(order, "reserve_stock", Direction::Undo, &ReleaseStock { order_id: order })
}

fn authorize(order: Uuid) -> Asked {
    let amount = Money { amount: 4900, currency: "EUR".to_owned() };
    let command = AuthorizePayment { order_id: order, amount, token: "tok_visa".to_owned() };
    ask(order, "authorize_payment", Direction::Do, &command)
}

fn void(order: Uuid, authorization_id: &str) -> Asked {
    let command = VoidPayment { order_id: order, authorization_id: authorization_id.to_owned() };
    ask(order, "authorize_payment", Direction::Undo, &command)
}

fn outcomes(answers: &[Value]) -> Vec<(&str, &str)> {
    answers
        .iter()
        .map(|answer| {
            (
                answer["direction"].as_str().expect("a direction"),
                answer["outcome"].as_str().expect("an outcome"),
            )
        })
        .collect()
}

/// Pieces of a product: on hand and reserved.
async fn pieces(suite: &Suite, sku: &str) -> (i64, i64) {
    let of = async |column: &str| {
        suite.number("inventory", &format!("select {column} from product where sku = '{sku}'")).await
    };
    (of("on_hand").await, of("reserved").await)
}

async fn nothing_is_parked(suite: &Suite, service: &str) {
    assert_eq!(suite.texts(service, "select reason from parked").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_again_gets_its_recorded_answer() {
    let suite = inventory().await;
    let (held, refused) = (new_id(), new_id());
    for _ in 0..2 {
        suite.told("inventory", &[reserve(held, "lamp", 2), reserve(refused, "poster", 4)]).await;
    }
    let answers = suite.answers("inventory", held).await;
    assert_eq!(outcomes(&answers), [("do", "done"), ("do", "done")]);
    let answers = suite.answers("inventory", refused).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("do", "refused")]);
    assert_eq!(answers[0], answers[1], "the same refusal, word for word");
    assert_eq!(pieces(&suite, "lamp").await, (998, 2));
    nothing_is_parked(&suite, "inventory").await;
}

/// What is refused once stays refused, whatever has come in meanwhile: the saga may have acted on the first answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_stands_when_it_is_asked_again_under_better_conditions() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[reserve(order, "poster", 4)]).await;
    suite.stock("poster", 6000, 10).await;
    suite.told("inventory", &[reserve(order, "poster", 4)]).await;
    let answers = suite.answers("inventory", order).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("do", "refused")]);
    assert_eq!(pieces(&suite, "poster").await, (13, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_a_command_in_one_batch_are_carried_out_and_answered_once() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[reserve(order, "lamp", 2), reserve(order, "lamp", 2)]).await;
    assert_eq!(outcomes(&suite.answers("inventory", order).await), [("do", "done")]);
    assert_eq!(pieces(&suite, "lamp").await, (998, 2));
    nothing_is_parked(&suite, "inventory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_without_its_action_is_answered_as_done_and_bars_it() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[release(order)]).await;
    assert_eq!(outcomes(&suite.answers("inventory", order).await), [("undo", "done")]);
    // The action, which had been on its way all the time, and once more.
    suite.told("inventory", &[reserve(order, "lamp", 2)]).await;
    suite.told("inventory", &[reserve(order, "lamp", 2)]).await;
    assert_eq!(
        outcomes(&suite.answers("inventory", order).await),
        [("undo", "done")],
        "a zombie is not answered"
    );
    assert_eq!(pieces(&suite, "lamp").await, (1000, 0));
    nothing_is_parked(&suite, "inventory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_and_its_late_action_in_one_batch_change_nothing() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[release(order), reserve(order, "lamp", 2)]).await;
    assert_eq!(outcomes(&suite.answers("inventory", order).await), [("undo", "done")]);
    assert_eq!(pieces(&suite, "lamp").await, (1000, 0));
    nothing_is_parked(&suite, "inventory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_and_its_undo_in_one_batch_are_both_answered() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[reserve(order, "lamp", 2), release(order)]).await;
    assert_eq!(outcomes(&suite.answers("inventory", order).await), [("do", "done"), ("undo", "done")]);
    assert_eq!(pieces(&suite, "lamp").await, (1000, 0));
    nothing_is_parked(&suite, "inventory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_of_a_refused_action_is_answered_as_done() {
    let suite = inventory().await;
    let order = new_id();
    suite.told("inventory", &[reserve(order, "poster", 4)]).await;
    suite.told("inventory", &[release(order)]).await;
    suite.told("inventory", &[release(order)]).await;
    let answers = suite.answers("inventory", order).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("undo", "done"), ("undo", "done")]);
    assert_eq!(pieces(&suite, "poster").await, (3, 0));
    nothing_is_parked(&suite, "inventory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_that_is_asked_for_again_is_answered_once() {
    let suite = slow_payment().await;
    let order = new_id();
    suite.told("payment", &[authorize(order), authorize(order)]).await;
    suite.told("payment", &[authorize(order)]).await;
    assert_eq!(
        suite.answers("payment", order).await,
        Vec::<Value>::new(),
        "the provider has not answered yet"
    );
    authorized(&suite, order).await;
    assert_eq!(outcomes(&suite.answers("payment", order).await), [("do", "done")]);
    assert_eq!(suite.number("payment", "select count(*) from ledger_entry").await, 1);
    nothing_is_parked(&suite, "payment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_comes_while_its_action_is_under_way_waits_for_the_next_asking() {
    let suite = slow_payment().await;
    let order = new_id();
    suite.told("payment", &[authorize(order)]).await;
    suite.told("payment", &[void(order, "unknown")]).await;
    assert_eq!(suite.answers("payment", order).await, Vec::<Value>::new(), "neither is answered yet");
    let authorization = authorized(&suite, order).await;
    suite.told("payment", &[void(order, &authorization)]).await;
    suite
        .until("the undo to be answered", async |suite| suite.answers("payment", order).await.len() == 2)
        .await;
    assert_eq!(outcomes(&suite.answers("payment", order).await), [("do", "done"), ("undo", "done")]);
    let status = suite.texts("payment", "select status from payment").await;
    assert_eq!(status, ["voided"]);
    nothing_is_parked(&suite, "payment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_after_its_undo_is_never_made() {
    let suite = slow_payment().await;
    let order = new_id();
    suite.told("payment", &[void(order, "unknown")]).await;
    suite.told("payment", &[authorize(order)]).await;
    assert_eq!(outcomes(&suite.answers("payment", order).await), [("undo", "done")]);
    let barred = "select count(*) from step_outcome where status = 'tombstoned'";
    assert_eq!(suite.number("payment", barred).await, 1);
    assert_eq!(suite.number("payment", "select count(*) from payment").await, 0, "no intent, so no call");
    nothing_is_parked(&suite, "payment").await;
}

/// Waits until the provider has answered, and returns its authorization.
async fn authorized(suite: &Suite, order: Uuid) -> String {
    suite
        .until("the provider to answer", async |suite| !suite.answers("payment", order).await.is_empty())
        .await;
    let answers = suite.answers("payment", order).await;
    let authorization = answers[0]["result"]["authorizationId"].as_str();
    authorization.unwrap_or_else(|| panic!("no authorization in {}", json!(answers))).to_owned()
}
