//! Drives a saga by hand in a test: the test expects its commands and answers them. Commands and replies take the
//! same path through the registry as in production. The test needs no Kafka, no PostgreSQL and no clock.

mod sweep;

use std::time::Duration;

use crate::envelope::{Command, Direction};
use serde_json::Value;
use serde_json::value::to_raw_value;
use time::OffsetDateTime;
use time::macros::datetime;

pub use self::sweep::{Answer, Sweep, sweep};
use crate::saga::engine::{Decision, Input, Refusal, Shape, State, Status, StepStatus};
use crate::saga::plan::Saga;
use crate::saga::registry::{OpenSaga, Registry};

/// The time at which every test begins.
pub const BEGINNING: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

/// A command that a saga sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The name of the step.
    pub step: String,
    /// Whether the step is to be carried out or undone.
    pub direction: Direction,
    kind: &'static str,
    topic: &'static str,
    data: Value,
}

/// A saga that a test drives.
pub struct Run {
    registry: Registry,
    definition: (&'static str, i32),
    /// The part of the plan that the engine needs.
    pub shape: Shape,
    /// The state of the saga.
    pub state: State,
    memory: Box<dyn OpenSaga>,
    now: OffsetDateTime,
    /// All sent commands, in their order.
    pub sent: Vec<Sent>,
    /// The number of sent commands that the test has already expected.
    expected: usize,
    turned_round: Option<(String, String)>,
    history: Vec<String>,
}

/// Begins a saga with this memory.
///
/// # Panics
/// Panics if two steps of the plan have the same name.
pub fn given<S: Saga>(saga: S) -> Run {
    begun_by(saga, &Input::Started)
}

/// Begins a saga with this memory that was cancelled before it began, because its first message is lost or late.
///
/// # Panics
/// Panics if two steps of the plan have the same name.
pub fn given_cancelled<S: Saga>(saga: S) -> Run {
    begun_by(saga, &Input::Cancel)
}

fn begun_by<S: Saga>(saga: S, input: &Input) -> Run {
    let registry = Registry::default().with::<S>();
    let definition = registry.find(S::NAME, S::VERSION).expect("it was just added");
    let data = serde_json::to_string(&saga).expect("a saga's memory is JSON");
    let memory = definition.open(&data).expect("a saga's memory is read back");
    let shape = definition.shape().clone();
    let mut run = Run {
        definition: (S::NAME, S::VERSION),
        state: State::new(&shape),
        shape,
        memory,
        registry,
        now: BEGINNING,
        sent: Vec::new(),
        expected: 0,
        turned_round: None,
        history: Vec::new(),
    };
    run.take(input, None);
    run
}

impl Run {
    /// Expects the next command: its type, its topic and its content.
    ///
    /// # Panics
    /// Panics with the history if another command or none was sent.
    #[track_caller]
    pub fn expects<C: Command>(mut self, command: C) -> Self {
        let wanted = serde_json::to_value(&command).expect("a command is JSON");
        match self.sent.get(self.expected) {
            None => self.fail(&format!("{} {wanted} was expected, but nothing was sent", C::TYPE)),
            Some(sent) if (sent.kind, sent.topic, &sent.data) != (C::TYPE, C::TOPIC, &wanted) => {
                self.fail(&format!("{} {wanted} was expected, but this was sent: {sent}", C::TYPE))
            }
            Some(_) => self.expected += 1,
        }
        self
    }

    /// Expects that no further command was sent.
    ///
    /// # Panics
    /// Panics with the history if one was sent.
    #[track_caller]
    pub fn expects_nothing(self) -> Self {
        if let Some(sent) = self.sent.get(self.expected) {
            self.fail(&format!("nothing was expected, but this was sent: {sent}"));
        }
        self
    }

    /// Expects that the saga turned round at this step, for this reason.
    ///
    /// # Panics
    /// Panics with the history if it did not.
    #[track_caller]
    pub fn turns_round_at(self, step: &str, reason: &str) -> Self {
        let wanted = Some((step.to_owned(), reason.to_owned()));
        if self.turned_round != wanted {
            self.fail(&format!("{wanted:?} was to turn it round, but {:?} did", self.turned_round));
        }
        self
    }

    /// Answers that the participant carried the command out. The type of the command identifies the step and the
    /// direction.
    ///
    /// # Panics
    /// Panics with the history if a sent command was not expected, or if this command was not sent.
    #[track_caller]
    pub fn done<C: Command>(self, reply: C::Reply) -> Self {
        let (step, direction) = self.step_of::<C>();
        let reply = serde_json::to_value(reply).expect("a reply is JSON");
        self.then(&Input::Done { step, direction }, Some(&reply))
    }

    /// Answers that the participant refused the command.
    ///
    /// # Panics
    /// Panics with the history if a sent command was not expected, or if this command was not sent.
    #[track_caller]
    pub fn refused<C: Command>(self, refusal: C::Refusal) -> Self {
        let (step, _) = self.step_of::<C>();
        let json = serde_json::to_string(&refusal).expect("a refusal is JSON");
        let refusal = Refusal::from_json(&json).unwrap_or_else(|error| self.fail(&error.to_string()));
        self.then(&Input::Refused { step, refusal }, None)
    }

    /// Lets time pass without an answer, and wakes the saga.
    ///
    /// # Panics
    /// Panics with the history if a sent command was not expected.
    #[track_caller]
    pub fn after(mut self, time: Duration) -> Self {
        self.now += time;
        self.then(&Input::Due, None)
    }

    /// Applies any other input.
    ///
    /// # Panics
    /// Panics with the history if a sent command was not expected.
    #[track_caller]
    pub fn gets(self, input: &Input) -> Self {
        self.then(input, None)
    }

    /// Expects that nothing further was sent and that the saga ended with this status.
    ///
    /// # Panics
    /// Panics with the history if it did not.
    #[track_caller]
    pub fn ends(self, status: Status) {
        let run = self.expects_nothing();
        if run.state.status != status {
            run.fail(&format!("it was to be {status:?}, but it is {:?}", run.state.status));
        }
        if let Some(due) = run.state.due_at() {
            run.fail(&format!("it has ended, but would be woken at {due}"));
        }
    }

    /// Applies an input as the coordinator does, and returns the decisions.
    pub fn take(&mut self, input: &Input, reply: Option<&Value>) -> Vec<Decision> {
        self.history.push(format!("{} <- {input:?} {}", self.now, reply.unwrap_or(&Value::Null)));
        if let (Some(reply), Input::Done { step, direction: Direction::Do }) = (reply, input)
            && let Some(index) = self.shape.index(step)
            && self.state.awaits(index, Direction::Do)
        {
            let reply = to_raw_value(reply).expect("a reply is JSON");
            self.memory.on_reply(index, &reply).unwrap_or_else(|error| self.fail(&error.to_string()));
        }
        let decisions = self.state.apply(&self.shape, input, self.now);
        for decision in &decisions {
            self.history.push(format!("    -> {decision:?}"));
            match decision {
                Decision::Ask { step, direction } => self.send(step, *direction),
                Decision::Compensate { step, reason } => {
                    self.turned_round = Some((step.clone().unwrap_or_default(), reason.clone()));
                }
                Decision::Complete
                | Decision::Compensated { .. }
                | Decision::Stuck { .. }
                | Decision::RefuseCancellation { .. } => {}
            }
        }
        decisions
    }

    /// Stops the coordinator and continues from the persisted state.
    pub fn restart(&mut self) {
        self.history.push("    -- restart".to_owned());
        let state = serde_json::to_string(&self.state).expect("a state is JSON");
        self.state = serde_json::from_str(&state).expect("a state is read back");
        let definition = self.registry.find(self.definition.0, self.definition.1).expect("it is there");
        let data = self.memory.data().expect("a saga's memory is JSON");
        self.memory = definition.open(&data).expect("a saga's memory is read back");
    }

    /// Lets time pass until the saga must be woken, wakes it, and returns the decisions.
    pub fn wait(&mut self) -> Vec<Decision> {
        self.now = self.state.due_at().unwrap_or(self.now);
        self.take(&Input::Due, None)
    }

    /// Wakes the saga once at this time, as after an outage of the coordinator, and returns the decisions.
    pub fn wait_until(&mut self, now: OffsetDateTime) -> Vec<Decision> {
        self.now = now;
        self.take(&Input::Due, None)
    }

    /// Returns the steps without an answer.
    pub fn open(&self) -> Vec<(String, Direction)> {
        let open = |status| match status {
            StepStatus::Asked => Some(Direction::Do),
            StepStatus::Undoing => Some(Direction::Undo),
            StepStatus::Waiting | StepStatus::Done | StepStatus::Refused | StepStatus::Undone => None,
        };
        let steps = self.shape.steps.iter().zip(&self.state.steps);
        steps.filter_map(|(step, state)| Some((step.name.to_owned(), open(state.status)?))).collect()
    }

    /// Fails the test with the history of the saga.
    ///
    /// # Panics
    /// Always panics.
    #[track_caller]
    pub fn fail(&self, reason: &str) -> ! {
        panic!("{reason}\nThe history so far:\n{}", self.history.join("\n"))
    }

    #[track_caller]
    fn then(self, input: &Input, reply: Option<&Value>) -> Self {
        // Otherwise a test could miss a command that should never have been sent.
        let mut run = self.expects_nothing();
        run.take(input, reply);
        run
    }

    #[track_caller]
    fn step_of<C: Command>(&self) -> (String, Direction) {
        match self.sent.iter().rfind(|sent| sent.kind == C::TYPE) {
            Some(sent) => (sent.step.clone(), sent.direction),
            None => self.fail(&format!("{} can't be answered: it was not sent", C::TYPE)),
        }
    }

    fn send(&mut self, step: &str, direction: Direction) {
        let Some(index) = self.shape.index(step) else { self.fail(&format!("the plan has no step {step}")) };
        let none = Refusal::default();
        let refusal = self.state.refusal.as_ref().unwrap_or(&none);
        let command = self.memory.command(index, direction, refusal);
        let command = command.unwrap_or_else(|error| self.fail(&error.to_string()));
        let data = serde_json::from_str(command.data.get()).expect("a command is JSON");
        let (kind, topic) = (command.kind, command.topic);
        self.sent.push(Sent { step: step.to_owned(), direction, kind, topic, data });
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} to {}", self.kind, self.data, self.topic)
    }
}
