use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(milliseconds: u64) -> Instant {
    *START + Duration::from_millis(milliseconds)
}

fn open(until: u64) -> State {
    State::Open { until: at(until) }
}

/// Makes one call, which ends at once.
fn call(breaker: &mut Breaker, milliseconds: u64, answered: bool) -> State {
    let now = at(milliseconds);
    let ticket = breaker.begin(now).expect("the call may be made");
    breaker.end(ticket, answered, now);
    breaker.state(now)
}

fn opened() -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..IN_A_ROW {
        call(&mut breaker, 0, false);
    }
    breaker
}

#[test]
fn unanswered_calls_in_a_row_open_the_circuit_and_an_answer_between_them_does_not_let_them() {
    let mut breaker = Breaker::default();
    for answered in [false, false, false, false, true, false, false, false, false] {
        assert_eq!(call(&mut breaker, 0, answered), State::Closed);
    }
    assert_eq!(call(&mut breaker, 0, false), open(1000));
    assert_eq!(breaker.begin(at(999)), Err(at(1000)));
    assert_eq!(breaker.room(at(999)), 0);
}

#[test]
fn more_than_half_of_the_last_calls_open_the_circuit_once_there_are_enough_of_them() {
    let mut breaker = Breaker::default();
    // Two thirds are unanswered, but there are too few calls for the rule.
    for number in 0..WINDOW - 1 {
        assert_eq!(call(&mut breaker, 0, number % 3 == 0), State::Closed, "call {number}");
    }
    assert_eq!(call(&mut breaker, 0, false), open(1000));
}

#[test]
fn an_answer_never_opens_the_circuit() {
    let mut breaker = Breaker::default();
    for number in 1..WINDOW {
        assert_eq!(call(&mut breaker, 0, number % 3 == 0), State::Closed, "call {number}");
    }
    assert_eq!(call(&mut breaker, 0, true), State::Closed, "although most calls before it had none");
    assert_eq!(call(&mut breaker, 0, false), open(1000));
}

#[test]
fn half_of_the_last_calls_do_not_open_the_circuit_and_old_calls_are_forgotten() {
    let mut breaker = Breaker::default();
    for number in 0..5 * WINDOW {
        assert_eq!(call(&mut breaker, 0, number % 2 == 0), State::Closed, "call {number}");
    }
}

#[test]
fn a_trial_that_is_answered_closes_the_circuit_and_forgets_the_outage() {
    let mut breaker = opened();
    assert_eq!(breaker.state(at(1000)), State::HalfOpen);
    assert_eq!(call(&mut breaker, 1000, true), State::Closed);
    assert_eq!(breaker.room(at(1000)), usize::MAX);
    for _ in 1..IN_A_ROW {
        assert_eq!(call(&mut breaker, 2000, false), State::Closed);
    }
    assert_eq!(call(&mut breaker, 2000, false), open(3000), "the rest is the first one again");
}

#[test]
fn trials_that_fail_make_the_rest_longer_up_to_a_limit() {
    let mut breaker = opened();
    let mut now = 1000;
    for period in [2, 4, 8, 16, 30, 30, 30] {
        assert_eq!(call(&mut breaker, now, false), open(now + period * 1000));
        now += period * 1000;
    }
}

#[test]
fn there_is_one_trial_at_a_time() {
    let mut breaker = opened();
    assert_eq!(breaker.room(at(1500)), 1);
    let trial = breaker.begin(at(1500)).expect("a trial");
    assert_eq!(breaker.room(at(1500)), 0);
    assert_eq!(breaker.begin(at(1600)), Err(at(2600)), "while it is under way nothing is known");
    assert_eq!(breaker.end(trial, false, at(4000)), Some(open(6000)));
    assert!(breaker.begin(at(6000)).is_ok());
}

#[test]
fn calls_that_were_under_way_when_the_circuit_opened_say_nothing_afterwards() {
    let mut breaker = Breaker::default();
    let mut early: Vec<Ticket> = (0..8).map(|_| breaker.begin(at(0)).expect("a call")).collect();
    for _ in 0..IN_A_ROW {
        breaker.end(early.remove(0), false, at(0));
    }
    assert_eq!(breaker.state(at(0)), open(1000));
    assert_eq!(breaker.end(early.remove(0), true, at(10)), None, "nor does an answer close it");
    let trial = breaker.begin(at(1000)).expect("a trial");
    assert_eq!(breaker.end(early.remove(0), false, at(1001)), None, "this one is not the trial");
    assert_eq!(breaker.end(trial, true, at(1002)), Some(State::Closed));
    assert_eq!(breaker.end(early.remove(0), false, at(1003)), None);
}

#[test]
fn after_a_trial_that_nobody_knows_the_end_of_the_next_call_is_one() {
    let mut breaker = opened();
    let trial = breaker.begin(at(1000)).expect("a trial");
    breaker.give_up(trial, at(1100));
    assert_eq!(call(&mut breaker, 1100, false), open(3100), "no longer than if there had been one trial");
}

#[test]
fn a_call_that_is_dropped_counts_for_nothing() {
    let dependency = Arc::new(Dependency::new("printer"));
    for _ in 0..3 * IN_A_ROW {
        drop(dependency.begin().expect("a call"));
    }
    for _ in 0..IN_A_ROW {
        dependency.begin().expect("a call").end(false);
    }
    assert!(dependency.begin().is_err_and(|period| period <= FIRST_OPEN));
    assert!(dependency.describe().starts_with("printer does not answer: the circuit is open"));
}

proptest! {
    /// For any sequence of events: an open circuit lets no call through, and a half-open one lets one call through.
    /// No open period is longer than the longest one, and the circuit can be closed after it.
    #[test]
    fn a_circuit_keeps_its_rules(events in prop::collection::vec((0_u64..4000, 0_u8..4, any::<prop::sample::Index>()), 1..200)) {
        let mut breaker = Breaker::default();
        let (mut now, mut under_way) = (0, Vec::new());
        let mut trials = 0;
        for (wait, what, which) in events {
            now += wait;
            let (time, before) = (at(now), breaker.state(at(now)));
            if what >= 2 {
                match (breaker.begin(time), before) {
                    (Ok(ticket), State::Closed) => under_way.push((ticket, false)),
                    (Ok(ticket), State::HalfOpen) => {
                        prop_assert_eq!(trials, 0, "a second trial");
                        trials = 1;
                        under_way.push((ticket, true));
                    }
                    (Err(until), State::Open { until: said }) => prop_assert_eq!(until, said),
                    (Err(until), State::HalfOpen) => {
                        prop_assert_eq!(trials, 1);
                        prop_assert_eq!(until, time + FIRST_OPEN);
                    }
                    (begun, state) => prop_assert!(false, "{begun:?} while {state:?}"),
                }
            } else if !under_way.is_empty() {
                let (ticket, trial) = under_way.swap_remove(which.index(under_way.len()));
                let changed = breaker.end(ticket, what == 1, time);
                if trial {
                    trials = 0;
                    prop_assert!(changed.is_some(), "a trial decides");
                } else if before != State::Closed {
                    prop_assert_eq!(changed, None, "only a trial decides");
                }
                if let Some(State::Open { until }) = changed {
                    prop_assert!(what == 0, "an answer opens nothing");
                    prop_assert!(until > time && until <= time + LONGEST_OPEN);
                }
            }
            prop_assert_eq!(trials, under_way.iter().filter(|(_, trial)| *trial).count());
        }
        for (ticket, _) in under_way {
            breaker.give_up(ticket, at(now));
        }
        let later = now + 30_000;
        prop_assert_eq!(call(&mut breaker, later, true), State::Closed);
    }
}
