//! What holds in every history of an order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::envelope::Direction;

use super::PlaceOrder;
use crate::engine::{Decision, Input, Status, StepStatus};
use crate::testing::{Answer, Run, Sweep, sweep, two_lamps};

#[test]
fn any_step_may_refuse() {
    let sweep = orders();
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
        // The plan has no step before the pivot that need not be undone, so all that was done is undone.
        done.retain(|_| refused);
        done.reverse();
        if groups_in_order(&run, history, true) != done {
            run.fail(&format!("{done:?} was to be undone, in this order"));
        }
        if run.state.steps.iter().any(|step| refused && step.status == StepStatus::Asked) {
            run.fail("a step was left open");
        }
    }
    let may = ["authorize_payment", "book_shipment", "capture_payment", "reserve_stock"];
    assert_eq!(refusing, may.map(str::to_owned).into(), "a step was never seen refusing");
}

#[test]
fn steps_of_a_group_are_undone_side_by_side() {
    let sweep = orders();
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

#[test]
fn any_message_may_come_twice() {
    let sweep = orders();
    for history in &sweep.histories {
        let mut run = sweep.begin();
        for (count, answer) in history.iter().enumerate() {
            sweep.answer(&mut run, answer);
            let before = (run.state.clone(), run.sent.clone());
            let mut decisions = run.take(&Input::Started, None);
            // What came just now, and everything that came before: a topic may be read from its beginning again.
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

#[test]
fn it_survives_a_restart_anywhere() {
    let sweep = orders();
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

#[test]
fn the_order_of_answers_within_a_group_does_not_matter() {
    let sweep = orders();
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
    // 3 ends of the first group with a refusal, then the shipment's, the pivot's, and the good one.
    assert_eq!(ends.len(), 6);
}

#[test]
fn anyone_may_be_silent_for_a_while() {
    let sweep = orders();
    for history in &sweep.histories {
        let mut run = sweep.begin();
        for answer in history {
            let open = run.open();
            let asked: Vec<_> = open.iter().map(|key| first_asking(&run, key)).collect();
            let before = run.sent.len();
            let decisions = run.wait();
            if decisions.iter().any(|decision| !matches!(decision, Decision::Ask { .. })) {
                run.fail("silence was taken for an answer");
            }
            let again = run.sent[before..].to_vec();
            let all = asked.iter().all(|sent| again.contains(sent));
            if !all || again.iter().any(|sent| !asked.contains(sent)) {
                run.fail("not exactly what is open was asked again, as it was asked before");
            }
            sweep.answer(&mut run, answer);
        }
        assert_eq!(run.state.status, sweep.play(history).state.status);
    }
}

fn orders() -> Sweep<PlaceOrder> {
    sweep(PlaceOrder::of(two_lamps()), reply)
}

fn reply(step: &str) -> Value {
    match step {
        "authorize_payment" => json!({"authorizationId": "auth-1"}),
        "book_shipment" => json!({"trackingNumber": "TN-1"}),
        _ => json!({}),
    }
}

fn group(run: &Run, step: &str) -> usize {
    let index = run.shape.index(step).unwrap_or_else(|| run.fail(&format!("there is no step {step}")));
    run.shape.steps[index].group
}

fn undo_asked(decisions: &[Decision]) -> Vec<String> {
    let undo = |decision: &Decision| match decision {
        Decision::Ask { step, direction: Direction::Undo } => Some(step.clone()),
        _ => None,
    };
    decisions.iter().filter_map(undo).collect()
}

/// What was done, or undone, group by group, by when the group began to answer.
fn groups_in_order(run: &Run, history: &[Answer], undo: bool) -> Vec<BTreeSet<String>> {
    let mut groups: Vec<(usize, BTreeSet<String>)> = Vec::new();
    for answer in history.iter().filter(|answer| !answer.refused && answer.undo == undo) {
        let closes = |step: &crate::engine::StepShape| step.name == answer.step && step.kind.closes();
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

fn first_asking(run: &Run, (step, direction): &(String, Direction)) -> crate::testing::Sent {
    let sent = run.sent.iter().find(|sent| sent.step == *step && sent.direction == *direction);
    sent.unwrap_or_else(|| run.fail(&format!("{step} is open, but was never asked"))).clone()
}
