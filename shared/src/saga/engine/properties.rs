//! Random plans with random histories. The rules must hold for any sequence of events.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::envelope::Direction;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRunner};
use time::OffsetDateTime;

use super::model::Model;
use super::{Decision, Input, Kind, Refusal, Shape, State, Status, StepShape};
use crate::saga::plan::STUCK_AFTER;
use crate::saga::testing::BEGINNING;

/// Step names are `'static`, so random plans take their names from here.
const NAMES: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u",
    "v", "w", "x", "y", "z",
];

/// An event in the life of a saga.
#[derive(Debug, Clone)]
enum Event {
    /// A participant answers.
    Answer { which: Index, refused: bool },
    /// A message arrives again.
    Again { which: Index },
    /// A reply arrives for any step, asked or not.
    Stray { step: Index, direction: Direction, refused: bool },
    /// Time passes, and the saga is woken.
    Wait { seconds: u64 },
    /// The customer cancels.
    Cancel,
    /// An operator has the open steps asked at once.
    Retry,
    /// A participant reports why it cannot answer yet.
    Failing { which: Index },
    /// The orchestrator stops, and another one continues.
    Restart,
}

/// A saga, the model of it, and its log.
struct Play<'s> {
    shape: &'s Shape,
    model: Model<'s>,
    state: State,
    now: OffsetDateTime,
    inputs: Vec<Input>,
    /// The log as the database has it. It has no entries for inputs without an effect.
    log: Vec<(OffsetDateTime, String, String)>,
}

/// The number of histories. `PROPTEST_CASES` overrides it.
const HISTORIES: u32 = 100_000;

#[test]
fn the_rules_hold_whatever_comes() {
    let threads =
        thread::available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(1));
    let config = config(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let tried = TestRunner::new(config.clone()).run(&history(), |(shape, events, rest)| {
                    play(&shape, &events, &rest);
                    Ok(())
                });
                // The error has the smallest history that breaks a rule.
                tried.unwrap_or_else(|error| panic!("{error}"));
            });
        }
    });
}

/// Returns the configuration of one thread, with its share of the histories.
fn config(threads: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let said = std::env::var_os("PROPTEST_CASES").is_some();
    let histories = if said { config.cases } else { HISTORIES };
    ProptestConfig {
        cases: histories.div_ceil(threads),
        // Each choice has its own generator. Without optimization, seeding ChaCha for it took most of the time.
        rng_algorithm: RngAlgorithm::XorShift,
        source_file: Some(file!()),
        ..config
    }
}

/// Guards the property against histories that never make progress.
#[test]
fn random_histories_end_in_every_way() {
    let mut runner = TestRunner::deterministic();
    let strategy = history();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..300 {
        let (shape, events, rest) = strategy.new_tree(&mut runner).expect("a history").current();
        let end = play(&shape, &events, &rest);
        *ends.entry(end.as_str()).or_default() += 1;
    }
    let often = |end: Status| ends.get(end.as_str()).is_some_and(|count| *count >= 60);
    assert!(often(Status::Completed) && often(Status::Compensated), "{ends:?}");
}

fn play(shape: &Shape, events: &[Event], rest: &[Index]) -> Status {
    let mut play = Play {
        shape,
        model: Model::new(shape),
        state: State::new(shape),
        now: BEGINNING,
        inputs: Vec::new(),
        log: Vec::new(),
    };
    play.take(Input::Started);
    for event in events {
        play.happens(event);
    }
    // Each step is done and undone at most once, so this is enough for all missing answers.
    for which in rest {
        play.happens(&Event::Answer { which: *which, refused: false });
    }
    play.model.finish();
    play.replay();
    play.state.status
}

impl Play<'_> {
    fn happens(&mut self, event: &Event) {
        match event {
            Event::Answer { which, refused } => {
                let open = self.model.open();
                if !open.is_empty() {
                    let (index, direction) = *which.get(&open);
                    self.answer(index, direction, *refused && direction == Direction::Do);
                }
            }
            Event::Again { which } => self.take(which.get(&self.inputs).clone()),
            Event::Stray { step, direction, refused } => {
                self.answer(step.index(self.shape.steps.len()), *direction, *refused);
            }
            Event::Wait { seconds } => {
                self.now += Duration::from_secs(*seconds);
                self.take(Input::Due);
            }
            Event::Cancel => self.take(Input::Cancel),
            Event::Retry => self.take(Input::Retry { by: "ada".to_owned(), reason: "why not".to_owned() }),
            Event::Failing { which } => {
                let open = self.model.open();
                if !open.is_empty() {
                    let (index, direction) = *which.get(&open);
                    let step = self.shape.steps[index].name.to_owned();
                    self.take(Input::Failing { step, direction, error: "no answer".to_owned() });
                }
            }
            Event::Restart => {
                let state = serde_json::to_string(&self.state).expect("a state is JSON");
                let read: State = serde_json::from_str(&state).expect("a state is read back");
                self.model.must(read == self.state, "a state is read back as it was written");
                self.state = read;
            }
        }
    }

    fn answer(&mut self, index: usize, direction: Direction, refused: bool) {
        let step = self.shape.steps[index].name.to_owned();
        if refused {
            // Each refusal has its own reason, so that the first one can be recognised.
            let code = format!("{step} said no, number {}", self.inputs.len());
            self.take(Input::Refused { step, refusal: Refusal { code, detail: None } });
        } else {
            self.take(Input::Done { step, direction });
        }
    }

    fn take(&mut self, input: Input) {
        let before = self.state.clone();
        let decisions = self.state.apply(self.shape, &input, self.now);
        let changed = before != self.state;
        self.model.observe(self.now, &input, &decisions, changed);
        self.model.agrees_with(&self.state);
        if changed || !decisions.is_empty() {
            let json = serde_json::to_string(&input).expect("an input is JSON");
            self.log.push((self.now, json, serde_json::to_string(&decisions).expect("decisions are JSON")));
        }
        self.inputs.push(input);
    }

    /// The row is a projection of the log. Replaying the whole log must lead to the same state.
    fn replay(&self) {
        let mut state = State::new(self.shape);
        for (now, input, decisions) in &self.log {
            let input: Input = serde_json::from_str(input).expect("an input is read back");
            let decisions: Vec<Decision> = serde_json::from_str(decisions).expect("decisions are read back");
            self.model
                .must(state.apply(self.shape, &input, *now) == decisions, "the log decides the same again");
        }
        self.model.must(state == self.state, "the log leads to where the saga stands");
    }
}

/// Generates a plan, the events of its saga, and the order of the missing answers.
fn history() -> impl Strategy<Value = (Shape, Vec<Event>, Vec<Index>)> {
    (shape(), events(), vec(any::<Index>(), 64))
}

/// Generates a plan that the types allow: undoable groups, a pivot, forward groups, a closing step. The undo flag is
/// random everywhere, because the engine must not undo the pivot even if the flag is wrong.
fn shape() -> impl Strategy<Value = Shape> {
    let group = || vec((any::<bool>(), deadline()), 1..4);
    let single = || vec((any::<bool>(), deadline()), 1);
    let whole = proptest::option::of((1_u64..600).prop_map(Duration::from_secs));
    (vec(group(), 0..4), single(), vec(group(), 0..4), single(), vec(single(), 0..2), whole).prop_map(
        |(before, pivot, after, closing, cancelling, deadline)| {
            let groups = before.into_iter().map(|group| (Kind::Compensatable, group));
            let groups = groups.chain([(Kind::Pivot, pivot)]);
            let groups = groups.chain(after.into_iter().map(|group| (Kind::Forward, group)));
            let groups = groups.chain([(Kind::Closing, closing)]);
            let groups = groups.chain(cancelling.into_iter().map(|group| (Kind::Cancelling, group)));
            let mut steps = Vec::new();
            for (group, (kind, members)) in groups.enumerate() {
                for (undo, each) in members {
                    let name = NAMES[steps.len()];
                    steps.push(StepShape {
                        name,
                        group,
                        kind,
                        undo,
                        deadline: each,
                        stuck_after: STUCK_AFTER,
                    });
                }
            }
            Shape { steps, deadline }
        },
    )
}

fn deadline() -> impl Strategy<Value = Duration> {
    (1_u64..120).prop_map(Duration::from_secs)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let direction = prop_oneof![Just(Direction::Do), Just(Direction::Undo)];
    let event = prop_oneof![
        6 => (any::<Index>(), prop::bool::weighted(0.1))
            .prop_map(|(which, refused)| Event::Answer { which, refused }),
        2 => any::<Index>().prop_map(|which| Event::Again { which }),
        1 => (any::<Index>(), direction, prop::bool::weighted(0.2))
            .prop_map(|(step, direction, refused)| Event::Stray { step, direction, refused }),
        2 => (0_u64..200).prop_map(|seconds| Event::Wait { seconds }),
        1 => prop::bool::weighted(0.15).prop_map(|cancel| if cancel { Event::Cancel } else { Event::Retry }),
        1 => any::<Index>().prop_map(|which| Event::Failing { which }),
        1 => Just(Event::Restart),
    ];
    vec(event, 0..60)
}
