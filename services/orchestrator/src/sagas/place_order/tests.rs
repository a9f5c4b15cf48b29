//! What happens to an order, in the words of a customer or a shopkeeper.

use std::time::Duration;

use schemas::common::{Line, Money};
use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use schemas::notification::{Notice, NotifyCustomer};
use schemas::order::{CancelOrder, CancellationRequested, ConfirmOrder, RejectOrder};
use schemas::payment::{AuthorizePayment, AuthorizeRefused, CapturePayment, CaptureRefused, VoidPayment};
use schemas::shipping::{BookShipment, CancelShipment};
use serde_json::json;
use shared::envelope::Direction;

use super::PlaceOrder;
use shared::saga::engine::{Input, Refusal, Status};
use shared::saga::plan::DEADLINE;
use shared::saga::testing::{Run, given, given_cancelled};

use crate::sagas::test_orders::{ORDER, answers, two_lamps};

#[test]
fn an_order_is_paid_shipped_and_confirmed() {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .done::<AuthorizePayment>(answers::authorized())
        .expects(book_shipment())
        .done::<BookShipment>(answers::booked("TN-1"))
        .expects(capture_payment())
        .done::<CapturePayment>(answers::captured())
        .expects(CommitStock { order_id: ORDER })
        .expects(ConfirmOrder { order_id: ORDER })
        .expects(notify_customer())
        .done::<CommitStock>(answers::committed())
        .done::<ConfirmOrder>(answers::confirmed())
        .done::<NotifyCustomer>(answers::sent())
        .ends(Status::Completed);
}

#[test]
fn a_declined_card_gives_the_stock_back() {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .refused::<AuthorizePayment>(answers::declined(AuthorizeRefused::CardDeclined))
        .turns_round_at("authorize_payment", "card_declined")
        .expects(ReleaseStock { order_id: ORDER })
        .done::<ReleaseStock>(answers::released())
        .expects(rejected("card_declined"))
        .done::<RejectOrder>(answers::rejected())
        .ends(Status::Compensated);
}

#[test]
fn a_sold_out_lamp_sets_the_money_free_and_the_customer_learns_which() {
    begun()
        .done::<AuthorizePayment>(answers::authorized())
        .refused::<ReserveStock>(answers::out_of_stock())
        .turns_round_at("reserve_stock", "out_of_stock")
        .expects(void_payment())
        .done::<VoidPayment>(answers::voided())
        .expects(RejectOrder {
            order_id: ORDER,
            reason: "out_of_stock".to_owned(),
            detail: Some(json!({"items": [{"sku": "lamp", "requested": 2, "available": 1}]})),
        })
        .done::<RejectOrder>(answers::rejected())
        .ends(Status::Compensated);
}

#[test]
fn when_both_refuse_the_first_is_the_reason_and_nothing_is_undone() {
    begun()
        .refused::<AuthorizePayment>(answers::declined(AuthorizeRefused::InsufficientFunds))
        .expects_nothing()
        .refused::<ReserveStock>(answers::unknown_product())
        .expects(rejected("insufficient_funds"))
        .done::<RejectOrder>(answers::rejected())
        .ends(Status::Compensated);
}

/// The other step may still be done. An undo that is sent now could overtake it.
#[test]
fn nothing_is_undone_while_a_step_beside_the_refused_one_is_open() {
    begun()
        .refused::<ReserveStock>(answers::unknown_product())
        .expects_nothing()
        .after(DEADLINE)
        .expects(authorize_payment())
        .done::<AuthorizePayment>(answers::authorized())
        .turns_round_at("reserve_stock", "unknown_product")
        .expects(void_payment());
}

#[test]
fn an_undeliverable_address_undoes_stock_and_card_side_by_side() {
    ready_to_ship()
        .refused::<BookShipment>(answers::undeliverable())
        .turns_round_at("book_shipment", "undeliverable_address")
        .expects(ReleaseStock { order_id: ORDER })
        .expects(void_payment())
        .done::<VoidPayment>(answers::voided())
        .expects_nothing()
        .done::<ReleaseStock>(answers::released())
        .expects(rejected("undeliverable_address"))
        .done::<RejectOrder>(answers::rejected())
        .ends(Status::Compensated);
}

/// A refused pivot is not done: no money was taken, so the saga can still turn back.
#[test]
fn a_refused_capture_undoes_the_shipment_before_stock_and_card() {
    booked()
        .refused::<CapturePayment>(answers::capture_declined(CaptureRefused::AuthorizationExpired))
        .turns_round_at("capture_payment", "authorization_expired")
        .expects(CancelShipment { order_id: ORDER, tracking_number: "TN-1".to_owned() })
        .done::<CancelShipment>(answers::booking_cancelled())
        .expects(ReleaseStock { order_id: ORDER })
        .expects(void_payment())
        .done::<ReleaseStock>(answers::released())
        .done::<VoidPayment>(answers::voided())
        .expects(rejected("authorization_expired"))
        .done::<RejectOrder>(answers::rejected())
        .ends(Status::Compensated);
}

#[test]
fn money_that_was_taken_is_not_given_back_by_the_saga() {
    paid()
        .gets(&refusal_of("capture_payment"))
        .gets(&refusal_of("commit_stock"))
        .gets(&refusal_of("notify_customer"))
        .gets(&Input::Done { step: "capture_payment".to_owned(), direction: Direction::Undo })
        .expects_nothing()
        .done::<ConfirmOrder>(answers::confirmed())
        .done::<CommitStock>(answers::committed())
        .done::<NotifyCustomer>(answers::sent())
        .ends(Status::Completed);
}

/// Its first event is gone, so nothing but its id is known.
#[test]
fn an_order_whose_first_event_is_lost_can_be_cancelled() {
    let saga = PlaceOrder::unknown(CancellationRequested { order_id: ORDER });
    // Its first event may come after all.
    given_cancelled(saga)
        .expects(CancelOrder { order_id: ORDER })
        .gets(&Input::Started)
        .expects_nothing()
        .gets(&Input::Done { step: "cancel_order".to_owned(), direction: Direction::Do })
        .gets(&Input::Started)
        .expects_nothing()
        .ends(Status::Compensated);
}

/// If the card provider does not answer, the card may have been charged. The step is asked until it answers.
#[test]
fn a_silent_capture_is_asked_again_and_never_guessed() {
    let mut run = booked();
    for _ in 0..50 {
        run = run.after(Duration::from_secs(60)).expects(capture_payment());
    }
    assert_eq!(run.state.status, Status::Running);
}

#[test]
fn a_silent_undo_is_asked_again() {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .refused::<AuthorizePayment>(answers::declined(AuthorizeRefused::CardDeclined))
        .expects(ReleaseStock { order_id: ORDER })
        .after(DEADLINE)
        .expects(ReleaseStock { order_id: ORDER })
        .done::<ReleaseStock>(answers::released())
        .expects(rejected("card_declined"));
}

#[test]
fn only_who_is_silent_is_asked_again() {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .after(DEADLINE)
        .expects(authorize_payment())
        .expects_nothing();
}

/// The answer to the first attempt comes after the second attempt. It counts, and the second answer does not.
#[test]
fn a_late_answer_counts_once() {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .done::<AuthorizePayment>(answers::authorized())
        .expects(book_shipment())
        .after(DEADLINE)
        .expects(book_shipment())
        .done::<BookShipment>(answers::booked("TN-1"))
        .expects(capture_payment())
        .done::<BookShipment>(answers::booked("another"))
        .expects_nothing()
        .done::<CapturePayment>(answers::captured())
        .expects(CommitStock { order_id: ORDER })
        .expects(ConfirmOrder { order_id: ORDER })
        .expects(notify_customer());
}

#[test]
fn a_refusal_that_comes_after_the_answer_changes_nothing() {
    ready_to_ship()
        .refused::<AuthorizePayment>(answers::declined(AuthorizeRefused::CardDeclined))
        .expects_nothing();
}

#[test]
fn an_answer_for_a_step_that_the_plan_does_not_have_changes_nothing() {
    let unknown = "wrap_gift".to_owned();
    begun()
        .gets(&Input::Done { step: unknown.clone(), direction: Direction::Do })
        .gets(&Input::Done { step: unknown, direction: Direction::Undo })
        .gets(&refusal_of("wrap_gift"))
        .expects_nothing();
}

#[test]
fn an_order_that_is_told_twice_begins_once() {
    begun().gets(&Input::Started).expects_nothing();
}

#[test]
#[should_panic(expected = "The history so far:\n2026-01-01 0:00:00.0 +00:00:00 <- Started")]
fn a_failing_test_shows_the_history() {
    given(PlaceOrder::of(two_lamps())).expects(capture_payment());
}

fn begun() -> Run {
    given(PlaceOrder::of(two_lamps())).expects(reserve_stock()).expects(authorize_payment()).expects_nothing()
}

fn ready_to_ship() -> Run {
    begun()
        .done::<ReserveStock>(answers::reserved())
        .done::<AuthorizePayment>(answers::authorized())
        .expects(book_shipment())
}

fn booked() -> Run {
    ready_to_ship().done::<BookShipment>(answers::booked("TN-1")).expects(capture_payment())
}

fn paid() -> Run {
    booked()
        .done::<CapturePayment>(answers::captured())
        .expects(CommitStock { order_id: ORDER })
        .expects(ConfirmOrder { order_id: ORDER })
        .expects(notify_customer())
}

fn lamps() -> Vec<Line> {
    vec![Line { sku: "lamp".to_owned(), quantity: 2 }]
}

fn price() -> Money {
    Money { amount: 4_990, currency: "EUR".to_owned() }
}

fn reserve_stock() -> ReserveStock {
    ReserveStock { order_id: ORDER, items: lamps() }
}

fn authorize_payment() -> AuthorizePayment {
    AuthorizePayment { order_id: ORDER, amount: price(), token: "tok_visa".to_owned() }
}

fn void_payment() -> VoidPayment {
    VoidPayment { order_id: ORDER, authorization_id: "auth-1".to_owned() }
}

fn capture_payment() -> CapturePayment {
    CapturePayment { order_id: ORDER, authorization_id: "auth-1".to_owned() }
}

fn book_shipment() -> BookShipment {
    BookShipment { order_id: ORDER, address: two_lamps().shipping_address, items: lamps() }
}

fn notify_customer() -> NotifyCustomer {
    NotifyCustomer {
        order_id: ORDER,
        customer_id: "customer-7".to_owned(),
        email: Some("ada@example.com".to_owned()),
        notice: Notice::OrderConfirmed { total: price(), tracking_number: Some("TN-1".to_owned()) },
    }
}

fn rejected(reason: &str) -> RejectOrder {
    RejectOrder { order_id: ORDER, reason: reason.to_owned(), detail: None }
}

fn refusal_of(step: &str) -> Input {
    Input::Refused { step: step.to_owned(), refusal: Refusal { code: "no".to_owned(), detail: None } }
}
