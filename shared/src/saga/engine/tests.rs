//! The engine's rules one by one, above all the rules about time.

use std::time::Duration;

use crate::envelope::Direction;
use time::OffsetDateTime;

use super::{
    CANCELLED, Decision, Input, Kind, NoCancellation, Refusal, Shape, State, Status, StepShape, StepStatus,
    TOO_LATE,
};
use crate::saga::plan::STUCK_AFTER;
use crate::saga::testing::BEGINNING;

#[test]
fn a_silent_step_is_asked_less_and_less_often_but_once_a_minute_at_least() {
    assert_eq!(seconds_between_askings(10, 7), [10, 20, 40, 60, 60, 60, 60]);
}

#[test]
fn a_slow_step_is_given_its_deadline_each_time() {
    assert_eq!(seconds_between_askings(90, 4), [90, 90, 90, 90]);
}

#[test]
fn a_step_may_be_silent_for_a_year() {
    assert!(seconds_between_askings(10, 500_000).ends_with(&[60; 1_000]));
}

#[test]
fn a_due_before_its_time_decides_nothing() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10)]);
    let before = state.clone();
    assert_eq!(state.apply(&shape, &Input::Due, at(10) - Duration::from_nanos(1)), []);
    assert_eq!(state, before);
    assert_eq!(state.apply(&shape, &Input::Due, at(10)), [ask("pivot", Direction::Do)]);
}

#[test]
fn a_due_that_comes_twice_asks_once() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10)]);
    assert_eq!(state.apply(&shape, &Input::Due, at(11)).len(), 1);
    assert_eq!(state.apply(&shape, &Input::Due, at(11)), []);
}

#[test]
fn a_saga_is_woken_for_the_first_deadline_of_its_open_steps() {
    let (shape, mut state) =
        begun(&[(Kind::Compensatable, 0, 30), (Kind::Compensatable, 0, 5), (Kind::Pivot, 1, 10)]);
    assert_eq!(state.due_at(), Some(at(5)));
    assert_eq!(state.apply(&shape, &Input::Due, at(5)), [ask("second", Direction::Do)]);
    assert_eq!(state.due_at(), Some(at(15)), "asked again at 5, its next deadline is twice as long");
    state.apply(&shape, &done("second"), at(6));
    assert_eq!(state.due_at(), Some(at(30)));
}

#[test]
fn an_undo_has_the_deadline_anew() {
    let (shape, mut state) = begun(&[(Kind::Compensatable, 0, 10), (Kind::Pivot, 1, 10)]);
    for _ in 0..5 {
        let due = state.due_at().expect("it is open");
        state.apply(&shape, &Input::Due, due);
    }
    let (done_at, refused_at) = (at(1_000), at(1_001));
    state.apply(&shape, &done("first"), done_at);
    let decisions = state.apply(&shape, &refused("pivot"), refused_at);
    assert!(decisions.contains(&ask("first", Direction::Undo)));
    assert_eq!((state.steps[0].attempts, state.steps[0].asked_at), (1, Some(refused_at)));
    assert_eq!(state.steps[0].ended_at, None, "it is open again");
    assert_eq!(state.due_at(), Some(refused_at + Duration::from_secs(10)));
    assert_eq!(state.apply(&shape, &Input::Due, at(1_011)), [ask("first", Direction::Undo)]);
}

#[test]
fn a_saga_that_has_ended_sleeps() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10)]);
    assert_eq!(state.apply(&shape, &done("pivot"), at(1)).last(), Some(&Decision::Complete));
    let ended = state.clone();
    assert_eq!(state.due_at(), None);
    for input in [Input::Due, Input::Started, done("pivot"), refused("pivot"), done("closing")] {
        assert_eq!(state.apply(&shape, &input, at(100_000)), []);
    }
    assert_eq!(state, ended);
}

/// The types make this impossible, but a participant of another release may still do it.
#[test]
fn a_refusal_behind_the_pivot_is_not_heard() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10), (Kind::Forward, 1, 10)]);
    state.apply(&shape, &done("pivot"), at(1));
    let before = state.clone();
    assert_eq!(state.apply(&shape, &refused("second"), at(2)), []);
    assert_eq!(state, before);
    assert_eq!(state.apply(&shape, &Input::Due, at(11)), [ask("second", Direction::Do)]);
}

#[test]
fn a_refusal_of_the_closing_step_is_not_heard() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10)]);
    state.apply(&shape, &refused("pivot"), at(1));
    assert_eq!(state.apply(&shape, &refused("closing"), at(2)), []);
    let end = state.apply(&shape, &done("closing"), at(3));
    assert_eq!(end.last(), Some(&Decision::Compensated { reason: "no".to_owned() }));
    assert_eq!(state.status, Status::Compensated);
}

#[test]
fn a_step_that_is_asked_in_vain_five_times_makes_the_saga_stuck_and_is_asked_on() {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, 10)]);
    for asked in 1..=6 {
        let due = state.due_at().expect("it is open");
        let decisions = state.apply(&shape, &Input::Due, due);
        assert_eq!(decisions.last(), Some(&ask("pivot", Direction::Do)));
        assert_eq!(state.shown() == Status::Stuck, asked >= 5, "asked again {asked} times");
        let told = decisions.iter().filter(|decision| matches!(decision, Decision::Stuck { .. })).count();
        assert_eq!(told, usize::from(asked == 5), "it is told once");
    }
    let end = state.apply(&shape, &done("pivot"), at(10_000));
    assert_eq!(end, [Decision::Complete]);
    assert_eq!(state.shown(), Status::Completed, "an answer that comes after all is an answer");
}

#[test]
fn an_operator_has_the_open_steps_asked_at_once_and_the_alarm_begins_anew() {
    let (shape, mut state) = begun(&[(Kind::Compensatable, 0, 10), (Kind::Pivot, 1, 10)]);
    state.apply(&shape, &done("first"), at(1));
    state.apply(&shape, &refused("pivot"), at(2));
    for _ in 0..5 {
        let due = state.due_at().expect("it is open");
        state.apply(&shape, &Input::Due, due);
    }
    assert_eq!(state.shown(), Status::Stuck);
    let failing = Input::Failing {
        step: "first".to_owned(),
        direction: Direction::Undo,
        error: "no answer".to_owned(),
    };
    assert_eq!(state.apply(&shape, &failing, at(500)), []);
    assert_eq!(state.steps[0].last_error.as_deref(), Some("no answer"));
    let retry = Input::Retry { by: "ada".to_owned(), reason: "it is mended".to_owned() };
    assert_eq!(state.apply(&shape, &retry, at(600)), [ask("first", Direction::Undo)]);
    assert_eq!(state.shown(), Status::Compensating);
    assert_eq!((state.steps[0].attempts, state.due_at()), (1, Some(at(610))));
}

#[test]
fn a_cancellation_waits_for_what_is_open_and_closes_the_saga_its_own_way() {
    let (shape, mut state) = begun(&[(Kind::Compensatable, 0, 10), (Kind::Pivot, 1, 10)]);
    assert_eq!(state.apply(&shape, &Input::Cancel, at(1)), [], "the first step may still be done");
    let reason = CANCELLED.to_owned();
    assert_eq!(
        state.apply(&shape, &done("first"), at(2)),
        [Decision::Compensate { step: None, reason: reason.clone() }, ask("first", Direction::Undo)]
    );
    let undone = Input::Done { step: "first".to_owned(), direction: Direction::Undo };
    assert_eq!(state.apply(&shape, &undone, at(3)), [ask("cancelling", Direction::Do)]);
    assert_eq!(state.apply(&shape, &done("cancelling"), at(4)), [Decision::Compensated { reason }]);
    assert_eq!(state.apply(&shape, &Input::Cancel, at(5)), [], "it is cancelled already");
    assert_eq!(state.steps[2].status, StepStatus::Waiting, "it is not rejected too");
}

/// The message that begins the saga was lost, or comes later.
#[test]
fn a_saga_that_is_cancelled_before_it_begins_asks_for_nothing_but_its_end() {
    let (shape, _) = begun(&[(Kind::Compensatable, 0, 10), (Kind::Pivot, 1, 10)]);
    let mut state = State::new(&shape);
    let reason = CANCELLED.to_owned();
    assert_eq!(
        state.apply(&shape, &Input::Cancel, at(1)),
        [Decision::Compensate { step: None, reason: reason.clone() }, ask("cancelling", Direction::Do)]
    );
    assert_eq!(state.apply(&shape, &Input::Started, at(2)), [], "the first message comes after all");
    assert_eq!(state.due_at(), Some(at(11)), "the end is asked again");
    assert_eq!(state.apply(&shape, &done("cancelling"), at(3)), [Decision::Compensated { reason }]);
    assert_eq!(state.apply(&shape, &Input::Started, at(4)), []);
    assert_eq!((state.due_at(), state.status), (None, Status::Compensated));
}

#[test]
fn a_cancellation_that_comes_behind_the_pivot_or_while_it_is_undone_is_refused() {
    let refuse = |reason| [Decision::RefuseCancellation { reason }];
    let (shape, mut state) = begun(&[(Kind::Compensatable, 0, 10), (Kind::Pivot, 1, 10)]);
    state.apply(&shape, &done("first"), at(1));
    assert_eq!(state.apply(&shape, &Input::Cancel, at(2)), refuse(NoCancellation::PastPivot));
    let before = state.clone();
    state.apply(&shape, &refused("pivot"), at(3));
    assert_eq!(state.apply(&shape, &Input::Cancel, at(4)), refuse(NoCancellation::AlreadyUndone));
    state = before;
    state.apply(&shape, &done("pivot"), at(3));
    assert_eq!(state.status, Status::Completed);
    assert_eq!(state.apply(&shape, &Input::Cancel, at(4)), refuse(NoCancellation::PastPivot));
}

/// Returns the seconds between the requests to a step that never answers, if the saga is woken on time.
fn seconds_between_askings(deadline: u64, count: usize) -> Vec<u64> {
    let (shape, mut state) = begun(&[(Kind::Pivot, 0, deadline)]);
    let mut last = BEGINNING;
    let mut waits = Vec::new();
    for _ in 0..count {
        let due = state.due_at().expect("it is open");
        assert_eq!(state.apply(&shape, &Input::Due, due).last(), Some(&ask("pivot", Direction::Do)));
        waits.push((due - last).unsigned_abs().as_secs());
        last = due;
    }
    waits
}

#[test]
fn a_saga_that_takes_too_long_is_undone_once_its_open_step_has_answered() {
    let (mut shape, _) = begun(&[(Kind::Compensatable, 0, 90), (Kind::Pivot, 1, 10)]);
    shape.deadline = Some(Duration::from_secs(30));
    let mut state = start(&shape);
    assert_eq!(state.due_at(), Some(at(30)), "before the step's own deadline");
    assert_eq!(state.apply(&shape, &Input::Due, at(30)), [], "the step may still be done");
    assert_eq!(state.due_at(), Some(at(90)));
    let reason = TOO_LATE.to_owned();
    assert_eq!(
        state.apply(&shape, &done("first"), at(31)),
        [Decision::Compensate { step: None, reason: reason.clone() }, ask("first", Direction::Undo)]
    );
    let undone = Input::Done { step: "first".to_owned(), direction: Direction::Undo };
    assert_eq!(state.apply(&shape, &undone, at(32)), [ask("closing", Direction::Do)]);
    assert_eq!(state.apply(&shape, &done("closing"), at(33)), [Decision::Compensated { reason }]);
    assert_eq!(state.due_at(), None);
}

#[test]
fn a_saga_that_takes_too_long_behind_its_pivot_is_stuck_until_it_goes_on() {
    let (mut shape, _) = begun(&[(Kind::Pivot, 0, 90), (Kind::Forward, 1, 90)]);
    shape.deadline = Some(Duration::from_secs(30));
    let mut state = start(&shape);
    let stuck = Decision::Stuck { step: "pivot".to_owned(), direction: Direction::Do };
    assert_eq!(state.apply(&shape, &Input::Due, at(30)), [stuck], "the pivot may be done");
    assert_eq!(state.apply(&shape, &Input::Due, at(31)), [], "it is told once");
    assert_eq!(state.shown(), Status::Stuck);
    assert_eq!(state.apply(&shape, &done("pivot"), at(40)), [ask("second", Direction::Do)]);
    assert_eq!(state.shown(), Status::Running);
    assert_eq!(state.apply(&shape, &done("second"), at(41)), [Decision::Complete]);
}

#[test]
fn a_saga_that_is_undone_anyway_is_not_woken_for_its_deadline() {
    let (mut shape, _) = begun(&[(Kind::Compensatable, 0, 90), (Kind::Pivot, 1, 10)]);
    shape.deadline = Some(Duration::from_secs(30));
    let mut state = start(&shape);
    state.apply(&shape, &Input::Cancel, at(5));
    assert_eq!(state.due_at(), Some(at(90)));
    assert_eq!(state.refusal.as_ref().map(|refusal| refusal.code.as_str()), Some(CANCELLED));
}

/// Returns a saga that has begun. Its steps (kind, group, deadline in seconds) come before a closing step.
fn begun(steps: &[(Kind, usize, u64)]) -> (Shape, State) {
    let mut shape = Shape { steps: Vec::new(), deadline: None };
    for (index, &(kind, group, seconds)) in steps.iter().enumerate() {
        let name = if kind == Kind::Pivot { "pivot" } else { ["first", "second", "third"][index] };
        let undo = kind == Kind::Compensatable;
        let deadline = Duration::from_secs(seconds);
        shape.steps.push(StepShape { name, group, kind, undo, deadline, stuck_after: STUCK_AFTER });
    }
    let (group, deadline) = (steps.len(), Duration::from_secs(10));
    let mut close = |name, group, kind| {
        shape.steps.push(StepShape { name, group, kind, undo: false, deadline, stuck_after: STUCK_AFTER });
    };
    close("closing", group, Kind::Closing);
    close("cancelling", group + 1, Kind::Cancelling);
    let state = start(&shape);
    (shape, state)
}

fn start(shape: &Shape) -> State {
    let mut state = State::new(shape);
    state.apply(shape, &Input::Started, BEGINNING);
    state
}

fn at(seconds: u64) -> OffsetDateTime {
    BEGINNING + Duration::from_secs(seconds)
}

fn ask(step: &str, direction: Direction) -> Decision {
    Decision::Ask { step: step.to_owned(), direction }
}

fn done(step: &str) -> Input {
    Input::Done { step: step.to_owned(), direction: Direction::Do }
}

fn refused(step: &str) -> Input {
    Input::Refused { step: step.to_owned(), refusal: Refusal { code: "no".to_owned(), detail: None } }
}
