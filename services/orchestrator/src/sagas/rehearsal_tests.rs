//! Logs of one plan, rehearsed against another.

use shared::envelope::Direction;
use shared::saga::engine::{Input, State};
use shared::saga::plan::Saga;
use shared::saga::rehearsal::Recorded;
use shared::saga::testing::BEGINNING;

use super::{PlaceOrder, PlaceOrder1, ReturnOrder, all};

/// Returns the log that `place_order@1` writes for an order that gets this far.
fn log(inputs: &[Input]) -> Vec<Recorded> {
    let registry = all(None);
    let shape = registry.find(PlaceOrder1::NAME, PlaceOrder1::VERSION).expect("it is here").shape().clone();
    let mut state = State::new(&shape);
    let entry = |(sequence, input): (i64, &Input)| Recorded {
        sequence,
        at: BEGINNING,
        input: serde_json::to_string(input).expect("JSON"),
        decisions: serde_json::to_string(&state.apply(&shape, input, BEGINNING)).expect("JSON"),
    };
    (1..).zip(inputs).map(entry).collect()
}

fn done(step: &str) -> Input {
    Input::Done { step: step.to_owned(), direction: Direction::Do }
}

#[test]
fn the_plan_with_a_cancellation_goes_the_same_way_as_the_one_without() {
    let log = log(&[Input::Started, done("reserve_stock"), done("authorize_payment"), done("book_shipment")]);
    let rehearsed = all(None).rehearse(PlaceOrder::NAME, PlaceOrder::VERSION, &log).expect("rehearsed");
    assert_eq!(rehearsed, None);
}

#[test]
fn another_plan_diverges_where_it_would_ask_something_else() {
    let log = log(&[Input::Started, done("reserve_stock")]);
    let diverged = all(None).rehearse(ReturnOrder::NAME, ReturnOrder::VERSION, &log).expect("rehearsed");
    let diverged = diverged.expect("it begins otherwise");
    assert_eq!(diverged.sequence, 1);
    assert!(diverged.rehearsed.contains("stop_shipment") && diverged.recorded.contains("reserve_stock"));
}

#[test]
fn a_definition_that_is_not_here_is_named() {
    let error = all(None).rehearse("place_order", 9, &[]).expect_err("there is none");
    assert_eq!(error.to_string(), "this orchestrator has no definition place_order@9");
}
