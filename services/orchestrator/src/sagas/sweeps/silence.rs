//! Rules about late answers: a step is asked again, its saga is stuck, or the whole saga takes too long.

use shared::envelope::Direction;

use super::{orders, orders_of_the_first_plan, returns};
use shared::saga::engine::{Decision, Input, Kind, Status, StepStatus, TOO_LATE};
use shared::saga::plan::{STUCK_AFTER, Saga};
use shared::saga::testing::{Run, Sent, Sweep};

#[test]
fn anyone_may_be_silent_for_a_while() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            let mut run = sweep.begin();
            for answer in history {
                let asked = first_askings(&run);
                let before = run.sent.len();
                let decisions = run.wait();
                if decisions.iter().any(|decision| !matches!(decision, Decision::Ask { .. })) {
                    run.fail("silence was taken for an answer");
                }
                asked_again(&run, &asked, before);
                sweep.answer(&mut run, answer);
            }
            assert_eq!(run.state.status, sweep.play(history).state.status);
        }
    }
    every_saga!(rule);
}

/// This holds for steps and for their undos. A step with enough unanswered attempts raises an alert. An operator has it
/// asked at once, and its answer leads to the same end as an answer in time.
#[test]
fn anyone_may_fail_until_the_saga_is_stuck_and_an_operator_has_it_asked_again() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            for count in 0..history.len() {
                let mut run = sweep.play(&history[..count]);
                let asked = first_askings(&run);
                let mut told = 0;
                for _ in 0..STUCK_AFTER {
                    fail_all(&mut run);
                    let decisions = run.wait();
                    told += decisions.iter().filter(|one| matches!(one, Decision::Stuck { .. })).count();
                }
                if run.state.shown() != Status::Stuck || told != 1 {
                    run.fail(&format!(
                        "it is {:?}, and was told to be stuck {told} times",
                        run.state.shown()
                    ));
                }
                run.restart();
                let before = run.sent.len();
                run.take(&Input::Retry { by: "ada".to_owned(), reason: "it is mended".to_owned() }, None);
                asked_again(&run, &asked, before);
                if run.state.shown() == Status::Stuck {
                    run.fail("it is stuck still");
                }
                for answer in &history[count..] {
                    sweep.answer(&mut run, answer);
                }
                assert_eq!(run.state.shown(), sweep.play(history).state.status);
            }
        }
    }
    every_saga!(rule);
}

#[test]
fn any_saga_may_take_too_long_anywhere() {
    fn rule<S: Saga + Clone>(sweep: &Sweep<S>) {
        for history in &sweep.histories {
            for count in 0..history.len() {
                let mut run = sweep.play(&history[..count]);
                let Some(ends_by) = run.state.ends_by else { continue };
                let pivot = run.shape.steps.iter().position(|step| step.kind == Kind::Pivot);
                let before_pivot =
                    pivot.is_none_or(|pivot| run.state.steps[pivot].status == StepStatus::Waiting);
                run.wait_until(ends_by);
                if before_pivot == (run.state.shown() == Status::Stuck) {
                    run.fail("behind the pivot it is to be stuck, and not before");
                }
                sweep.answer_all(&mut run);
                let reason = run.state.refusal.as_ref().map(|refusal| refusal.code.as_str());
                let expected = if before_pivot {
                    (Status::Compensated, Some(TOO_LATE))
                } else {
                    (Status::Completed, None)
                };
                if (run.state.shown(), reason) != expected {
                    run.fail(&format!("it was to end as {expected:?}"));
                }
            }
        }
    }
    every_saga!(rule);
    assert!(orders().begin().state.ends_by.is_some() && returns().begin().state.ends_by.is_some());
}

/// Every open participant replies why it can't answer yet. Such a reply decides nothing, but the saga remembers it.
fn fail_all(run: &mut Run) {
    for (step, direction) in run.open() {
        let error = format!("{step} has no answer");
        let failing = Input::Failing { step: step.clone(), direction, error: error.clone() };
        if !run.take(&failing, None).is_empty() {
            run.fail("an excuse was taken for an answer");
        }
        assert_eq!(run.state.steps[super::index(run, &step)].last_error, Some(error));
    }
}

/// Returns the first message of every open step.
fn first_askings(run: &Run) -> Vec<Sent> {
    let first = |(step, direction): (String, Direction)| {
        let sent = run.sent.iter().find(|sent| sent.step == step && sent.direction == direction);
        sent.unwrap_or_else(|| run.fail(&format!("{step} is open, but was never asked"))).clone()
    };
    run.open().into_iter().map(first).collect()
}

/// Asserts that exactly these messages were sent again behind the first `before` messages.
fn asked_again(run: &Run, asked: &[Sent], before: usize) {
    let again = &run.sent[before..];
    if asked.iter().any(|sent| !again.contains(sent)) || again.iter().any(|sent| !asked.contains(sent)) {
        run.fail("not exactly what is open was asked again, as it was asked before");
    }
}
