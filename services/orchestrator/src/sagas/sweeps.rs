//! Rules that hold in every history of every saga. The histories have the answers in every order, and every refusal that a
//! participant may give.

use std::collections::{BTreeMap, BTreeSet};

use schemas::common::Money;
use schemas::order::ReturnRequested;
use serde_json::{Value, json};
use shared::envelope::Direction;
use uuid::Uuid;

use super::{PlaceOrder, PlaceOrder1, ReturnOrder};
use shared::saga::engine::{CANCELLED, Decision, Input, NoCancellation, Status, StepShape, StepStatus};
use shared::saga::plan::Saga;
use shared::saga::testing::{Answer, Run, Sweep, sweep};

use super::test_orders::{ORDER, answers, two_lamps};

/// Checks a rule against all sagas.
macro_rules! every_saga {
    ($rule:expr) => {{
        $rule(&orders());
        $rule(&orders_of_the_first_plan());
        $rule(&returns());
    }};
}

mod silence;

#[test]
fn any_step_may_refuse() {
    let before_or_at_the_pivot = ["authorize_payment", "book_shipment", "capture_payment", "reserve_stock"];
    assert_eq!(any_may_refuse(&orders()), before_or_at_the_pivot.map(str::to_owned).into());
    assert_eq!(any_may_refuse(&orders_of_the_first_plan()), before_or_at_the_pivot.map(str::to_owned).into());
    assert_eq!(any_may_refuse(&returns()), ["refund_payment", "stop_shipment"].map(str::to_owned).into());
}

/// After a refusal, exactly the steps that were done are undone. Returns the steps that refused in some history.
fn any_may_refuse<S: Saga + Clone>(sweep: &Sweep<S>) -> BTreeSet<String> {
    let mut refusing = BTreeSet::new();
    for history in &sweep.histories {
        let run = sweep.play(history);
        refusing.extend(history.iter().filter(|answer| answer.refused).map(|answer| answer.step.clone()));
        let refused = history.iter().any(|answer| answer.refused);
        let end = if refused { Status::Compensated } else { Status::Completed };
        if run.state.status != end {
            run.fail(&format!("it was to be {end:?}"));
        }
        let mut done = groups_in_order(&run, history, false);
        // Every step before the pivot has an undo, so all steps that were done are undone.
        done.retain(|_| refused);
        done.reverse();
        if groups_in_order(&run, history, true) != done {
            run.fail(&format!("{done:?} was to be undone, in this order"));
        }
        if run.state.steps.iter().any(|step| refused && step.status == StepStatus::Asked) {
            run.fail("a step was left open");
        }
    }
    refusing
}

#[test]
fn steps_of_a_group_are_undone_side_by_side() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            let mut run = sweep.begin();
            for answer in history {
                let decisions = sweep.answer(&mut run, answer);
                let undone = undo_asked(&decisions);
                let groups: BTreeSet<usize> = undone.iter().map(|step| group(&run, step)).collect();
                let (open, asked) = (run.open().len(), undone.len());
                if groups.len() > 1 || (asked > 0 && open != asked) {
                    run.fail("a group was not undone as one");
                }
            }
        }
    }
    every_saga!(rule);
}

#[test]
fn any_message_may_come_twice() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            let mut run = sweep.begin();
            for (count, answer) in history.iter().enumerate() {
                sweep.answer(&mut run, answer);
                let before = (run.state.clone(), run.sent.clone());
                let mut decisions = run.take(&Input::Started, None);
                // The last answer and all before it come again: a topic may be read from its beginning.
                for again in &history[..=count] {
                    decisions.extend(sweep.answer(&mut run, again));
                }
                if !decisions.is_empty() || before != (run.state.clone(), run.sent.clone()) {
                    run.fail("a message that came twice changed something");
                }
            }
            let once = sweep.play(history);
            assert_eq!((run.state, run.sent), (once.state, once.sent));
        }
    }
    every_saga!(rule);
}

#[test]
fn it_survives_a_restart_anywhere() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            let (mut steady, mut restarted) = (sweep.begin(), sweep.begin());
            for answer in history {
                restarted.restart();
                if sweep.answer(&mut steady, answer) != sweep.answer(&mut restarted, answer) {
                    restarted.fail("a restart changed what was decided");
                }
            }
            assert_eq!((steady.state, steady.sent), (restarted.state, restarted.sent));
        }
    }
    every_saga!(rule);
}

#[test]
fn the_order_of_answers_within_a_group_does_not_matter() {
    // The first group has 3 ends with a refusal. The shipment's refusal, the pivot's, and the success follow.
    assert_eq!(ends(&orders()), 6);
    assert_eq!(ends(&orders_of_the_first_plan()), 6);
    // The stop's refusal, the pivot's, and the success.
    assert_eq!(ends(&returns()), 3);
}

/// Returns the number of ways in which a saga ends, apart from the order of the answers.
fn ends<S: Saga + Clone>(sweep: &Sweep<S>) -> usize {
    let mut ends = BTreeMap::new();
    for history in &sweep.histories {
        let run = sweep.play(history);
        let mut answers = history.clone();
        answers.sort();
        let mut sent: Vec<_> =
            run.sent.iter().map(|sent| (sent.step.clone(), sent.direction.as_str())).collect();
        sent.sort();
        let end =
            (run.state.status, run.state.steps.iter().map(|step| step.status).collect::<Vec<_>>(), sent);
        let first = ends.entry(answers).or_insert_with(|| end.clone());
        if *first != end {
            run.fail(&format!("the same answers in another order came to {first:?}"));
        }
    }
    ends.len()
}

#[test]
fn an_order_may_be_cancelled_at_any_moment_until_its_money_is_asked_for() {
    let orders = orders();
    let mut seen = BTreeSet::new();
    for history in &orders.histories {
        for count in 0..=history.len() {
            let mut run = orders.play(&history[..count]);
            let pivot = status(&run, "capture_payment");
            let refused = history[..count].iter().any(|answer| answer.refused);
            let decisions = run.take(&Input::Cancel, None);
            let refusal = decisions.iter().find_map(|decision| match decision {
                Decision::RefuseCancellation { reason } => Some(*reason),
                _ => None,
            });
            let in_time = pivot == StepStatus::Waiting && !refused;
            match refusal {
                None if in_time => {}
                Some(NoCancellation::AlreadyUndone) if refused => {}
                Some(NoCancellation::PastPivot) if !in_time && !refused => {}
                other => run.fail(&format!("the cancellation was answered with {other:?}")),
            }
            seen.insert(refusal.map(NoCancellation::as_str));
            if in_time {
                orders.answer_all(&mut run);
                let reason = run.state.refusal.as_ref().map(|refusal| refusal.code.as_str());
                let closed = (status(&run, "cancel_order"), status(&run, "reject_order"));
                if (run.state.status, reason) != (Status::Compensated, Some(CANCELLED))
                    || closed != (StepStatus::Done, StepStatus::Waiting)
                {
                    run.fail("it was to be undone and closed as cancelled");
                }
            } else {
                history[count..].iter().for_each(|answer| drop(orders.answer(&mut run, answer)));
                assert_eq!(run.state, orders.play(history).state, "too late, it changes nothing");
            }
        }
    }
    assert_eq!(seen, [None, Some("already_undone"), Some("past_pivot")].into());
}

#[test]
fn a_saga_without_a_word_about_cancellation_is_never_cancelled() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            let mut run = sweep.begin();
            for answer in history {
                let decisions = run.take(&Input::Cancel, None);
                if !matches!(decisions[..], [Decision::RefuseCancellation { .. }]) {
                    run.fail("a cancellation was heard");
                }
                sweep.answer(&mut run, answer);
            }
            assert_eq!(run.state, sweep.play(history).state);
        }
    }
    rule(&orders_of_the_first_plan());
    rule(&returns());
}

fn orders() -> Sweep<PlaceOrder> {
    sweep(PlaceOrder::of(two_lamps()), reply)
}

fn orders_of_the_first_plan() -> Sweep<PlaceOrder1> {
    sweep(PlaceOrder1::of(two_lamps()), reply)
}

fn returns() -> Sweep<ReturnOrder> {
    let requested = ReturnRequested {
        order_id: ORDER,
        return_id: Uuid::from_u128(2),
        customer_id: "customer-7".to_owned(),
        total: Money { amount: 4_990, currency: "EUR".to_owned() },
        email: None,
    };
    sweep(ReturnOrder::of(requested), reply)
}

fn reply(step: &str) -> Value {
    match step {
        "authorize_payment" => json!(answers::authorized()),
        "book_shipment" => json!(answers::booked("TN-1")),
        _ => json!({}),
    }
}

fn index(run: &Run, step: &str) -> usize {
    run.shape.index(step).unwrap_or_else(|| run.fail(&format!("there is no step {step}")))
}

fn group(run: &Run, step: &str) -> usize {
    run.shape.steps[index(run, step)].group
}

fn status(run: &Run, step: &str) -> StepStatus {
    run.state.steps[index(run, step)].status
}

fn undo_asked(decisions: &[Decision]) -> Vec<String> {
    let undo = |decision: &Decision| match decision {
        Decision::Ask { step, direction: Direction::Undo } => Some(step.clone()),
        _ => None,
    };
    decisions.iter().filter_map(undo).collect()
}

/// Returns the steps that were done, or undone, by group. The groups are in the order of their first answers.
fn groups_in_order(run: &Run, history: &[Answer], undo: bool) -> Vec<BTreeSet<String>> {
    let mut groups: Vec<(usize, BTreeSet<String>)> = Vec::new();
    for answer in history.iter().filter(|answer| !answer.refused && answer.undo == undo) {
        let closes = |step: &StepShape| step.name == answer.step && step.kind.closes();
        if run.shape.steps.iter().any(closes) {
            continue;
        }
        let number = group(run, &answer.step);
        match groups.last_mut() {
            Some((last, steps)) if *last == number => {
                steps.insert(answer.step.clone());
            }
            _ => groups.push((number, [answer.step.clone()].into())),
        }
    }
    groups.into_iter().map(|(_, steps)| steps).collect()
}
