//! The builder of plans.

use std::marker::PhantomData;
use std::time::Duration;

use crate::envelope::{Command, Never};
use serde::de::DeserializeOwned;

use super::{
    DEADLINE, Definition, Kind, Refusal, STUCK_AFTER, StepPlan, Undo, answers_of, closing, make, name_of,
};

/// The phase of a plan before its pivot.
#[derive(Debug)]
pub struct Undoable;
/// The phase of a plan from its pivot on. `Last` is the command of the last added step, or [`Several`].
#[derive(Debug)]
pub struct Forward<Last = Several>(PhantomData<fn(Last)>);
/// The last addition was not a single step: it was a group, or there was none.
#[derive(Debug)]
pub struct Several;

/// A phase in which steps can be undone.
#[diagnostic::on_unimplemented(
    message = "this plan has its pivot already",
    label = "not behind the pivot",
    note = "a plan has one pivot, and what can be undone stands before it; behind it there are only `.then(..)`, and \
            `.together(..)` of such"
)]
pub trait BeforePivot {}
impl BeforePivot for Undoable {}

/// A phase in which nothing can be undone or refused.
#[diagnostic::on_unimplemented(
    message = "this plan has no pivot yet",
    label = "not before the pivot",
    note = "say with `.pivot(..)` which step is the point of no return; a step before it is written `.step(..)`, with its \
            `.undo(..)`"
)]
pub trait BehindPivot {}
impl<Last> BehindPivot for Forward<Last> {}

/// A phase whose last addition is a single step, which settings such as its deadline can refer to.
#[diagnostic::on_unimplemented(
    message = "this word is about one step, and no single step stands before it",
    label = "about which step?",
    note = "in `.together(..)` it stands behind the step that it is about: `.together(|group| group.then(..).deadline(..))`"
)]
pub trait OneStep {
    /// The reply of the step.
    type Reply: DeserializeOwned + 'static;
}
impl<C: Command> OneStep for C {
    type Reply = C::Reply;
}

/// The refusal type of a command that cannot be refused.
#[diagnostic::on_unimplemented(
    message = "a command that may be refused, with `{Self}`, stands where nothing can be refused",
    label = "may be refused",
    note = "an undo, a step behind the pivot and what closes a saga are asked until they are done, so their commands have \
            the refusal `Never`",
    note = "a step that may be refused stands before the pivot, with its undo, or is the pivot"
)]
pub trait Impossible {}
impl Impossible for Never {}

/// A plan that is being built.
pub struct Plan<S, Phase> {
    pub(super) steps: Vec<StepPlan<S>>,
    groups: usize,
    phase: PhantomData<Phase>,
}

/// Steps before the pivot that run side by side.
pub struct Group<S> {
    steps: Vec<StepPlan<S>>,
    group: usize,
}

/// Steps behind the pivot that run side by side. `Last` is the command of the last added step.
pub struct ForwardGroup<S, Last = Several> {
    group: Group<S>,
    last: PhantomData<fn(Last)>,
}

/// A step whose undo is not set yet. Only [`StepWithoutUndo::undo`] and [`StepWithoutUndo::nothing_to_undo`] complete
/// it.
#[must_use = "say how the step is undone"]
pub struct StepWithoutUndo<S, C, Onto> {
    onto: Onto,
    /// The field must not have the name of a method, because the compiler would suggest the field.
    begun: StepPlan<S>,
    command: PhantomData<fn(C)>,
}

/// A plan or group that accepts a finished step.
pub trait Accepts<S>: Sized {
    #[doc(hidden)]
    fn accept(self, step: Finished<S>) -> Self;
}

/// A step with its undo.
pub struct Finished<S>(StepPlan<S>);

impl<S, Phase> Accepts<S> for Plan<S, Phase> {
    fn accept(mut self, step: Finished<S>) -> Self {
        self.steps.push(step.0);
        self.groups += 1;
        self
    }
}

impl<S> Accepts<S> for Group<S> {
    fn accept(mut self, step: Finished<S>) -> Self {
        self.steps.push(step.0);
        self
    }
}

fn begin<S: 'static, C: Command>(command: fn(&S) -> C, group: usize, kind: Kind) -> StepPlan<S> {
    StepPlan {
        name: name_of::<C>(),
        command: C::TYPE,
        group,
        kind,
        action: make(command),
        answers: answers_of::<C>(),
        undo: Undo::Nothing("it is not undone"),
        on_reply: None,
        deadline: DEADLINE,
        stuck_after: STUCK_AFTER,
    }
}

impl<S: 'static> StepPlan<S> {
    fn on_reply<R: DeserializeOwned + 'static>(&mut self, on_reply: fn(&mut S, R)) {
        self.on_reply = Some(Box::new(move |saga, reply| {
            on_reply(saga, serde_json::from_str(reply.get())?);
            Ok(())
        }));
    }
}

impl<S: 'static> Plan<S, Undoable> {
    /// Begins an empty plan.
    pub fn begin() -> Self {
        Self { steps: Vec::new(), groups: 0, phase: PhantomData }
    }

    /// Adds steps that run side by side. The plan continues when all are done. If one is refused, the saga waits for
    /// the others and then undoes them.
    #[must_use]
    pub fn together(mut self, steps: impl FnOnce(Group<S>) -> Group<S>) -> Self {
        let group = steps(Group { steps: Vec::new(), group: self.groups });
        self.steps.extend(group.steps);
        self.groups += 1;
        self
    }
}

/// The methods of both phases. A method in the wrong phase thus gives a helpful compiler error.
impl<S: 'static, Phase> Plan<S, Phase> {
    /// Adds a step that can be undone.
    pub fn step<C: Command>(self, command: fn(&S) -> C) -> StepWithoutUndo<S, C, Self>
    where
        Phase: BeforePivot,
    {
        let begun = begin(command, self.groups, Kind::Compensatable);
        StepWithoutUndo { onto: self, begun, command: PhantomData }
    }

    /// Adds the point of no return. Once it is done, the saga only goes forward.
    pub fn pivot<C: Command>(self, command: fn(&S) -> C) -> Plan<S, Forward<C>>
    where
        Phase: BeforePivot,
    {
        let pivot = begin(command, self.groups, Kind::Pivot);
        self.with_group(vec![pivot])
    }

    /// Adds a step that is repeated until it is done. Its command cannot be refused.
    #[must_use]
    pub fn then<C>(self, command: fn(&S) -> C) -> Plan<S, Forward<C>>
    where
        C: Command<Refusal: Impossible>,
        Phase: BehindPivot,
    {
        let step = begin(command, self.groups, Kind::Forward);
        self.with_group(vec![step])
    }

    fn with_group<Next>(mut self, group: Vec<StepPlan<S>>) -> Plan<S, Next> {
        self.steps.extend(group);
        Plan { steps: self.steps, groups: self.groups + 1, phase: PhantomData }
    }

    /// Completes the plan with the command that closes a saga after everything was undone.
    pub fn or_else<C>(self, close: fn(&S, &Refusal) -> C) -> Definition<S>
    where
        C: Command<Refusal: Impossible>,
        Phase: BehindPivot,
    {
        Definition { steps: self.steps, close: closing(close), cancel: None, deadline: None }
    }
}

impl<S: 'static, Last> Plan<S, Forward<Last>> {
    /// Adds steps behind the pivot that run side by side.
    #[must_use]
    pub fn together<L>(self, steps: impl FnOnce(ForwardGroup<S>) -> ForwardGroup<S, L>) -> Plan<S, Forward> {
        let empty = Group { steps: Vec::new(), group: self.groups };
        let added = steps(ForwardGroup { group: empty, last: PhantomData });
        self.with_group(added.group.steps)
    }

    /// Stores the reply of the last added step, or of the pivot, in the saga's memory.
    #[must_use]
    pub fn on_reply(mut self, on_reply: fn(&mut S, Last::Reply)) -> Self
    where
        Last: OneStep,
    {
        self.steps.last_mut().into_iter().for_each(|step| step.on_reply(on_reply));
        self
    }

    /// Sets how long the last added step, or the pivot, may take before it is asked again.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self
    where
        Last: OneStep,
    {
        self.steps.last_mut().into_iter().for_each(|step| step.deadline = deadline);
        self
    }

    /// Sets the number of unanswered requests to the last added step, or the pivot, after which the saga is stuck.
    #[must_use]
    pub fn stuck_after(mut self, attempts: u32) -> Self
    where
        Last: OneStep,
    {
        self.steps.last_mut().into_iter().for_each(|step| step.stuck_after = attempts);
        self
    }
}

impl<S: 'static> Group<S> {
    /// Adds a step that can be undone to the group.
    pub fn step<C: Command>(self, command: fn(&S) -> C) -> StepWithoutUndo<S, C, Self> {
        let begun = begin(command, self.group, Kind::Compensatable);
        StepWithoutUndo { onto: self, begun, command: PhantomData }
    }
}

impl<S: 'static, Last> ForwardGroup<S, Last> {
    /// Adds a step that is repeated until it is done to the group.
    #[must_use]
    pub fn then<C: Command<Refusal: Impossible>>(mut self, command: fn(&S) -> C) -> ForwardGroup<S, C> {
        self.group.steps.push(begin(command, self.group.group, Kind::Forward));
        ForwardGroup { group: self.group, last: PhantomData }
    }

    /// Stores the reply of the last added step in the saga's memory.
    #[must_use]
    pub fn on_reply(mut self, on_reply: fn(&mut S, Last::Reply)) -> Self
    where
        Last: OneStep,
    {
        self.group.steps.last_mut().into_iter().for_each(|step| step.on_reply(on_reply));
        self
    }

    /// Sets how long the last added step may take before it is asked again.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self
    where
        Last: OneStep,
    {
        self.group.steps.last_mut().into_iter().for_each(|step| step.deadline = deadline);
        self
    }

    /// Sets the number of unanswered requests to the last added step after which the saga is stuck.
    #[must_use]
    pub fn stuck_after(mut self, attempts: u32) -> Self
    where
        Last: OneStep,
    {
        self.group.steps.last_mut().into_iter().for_each(|step| step.stuck_after = attempts);
        self
    }
}

impl<S: 'static, C: Command, Onto: Accepts<S>> StepWithoutUndo<S, C, Onto> {
    /// Stores the reply in the saga's memory.
    pub fn on_reply(mut self, on_reply: fn(&mut S, C::Reply)) -> Self {
        self.begun.on_reply(on_reply);
        self
    }

    /// Sets how long the step, or its undo, may take before it is asked again.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.begun.deadline = deadline;
        self
    }

    /// Sets the number of unanswered requests to the step, or its undo, after which the saga is stuck.
    pub fn stuck_after(mut self, attempts: u32) -> Self {
        self.begun.stuck_after = attempts;
        self
    }

    /// Completes the step with its undo command. An undo cannot be refused: it is repeated until it is done.
    pub fn undo<U: Command<Refusal: Impossible>>(mut self, undo: fn(&S) -> U) -> Onto {
        self.begun.undo = Undo::By { name: name_of::<U>(), command: make(undo), answers: answers_of::<U>() };
        self.onto.accept(Finished(self.begun))
    }

    /// Completes the step with the reason why it need not be undone.
    pub fn nothing_to_undo(mut self, reason: &'static str) -> Onto {
        self.begun.undo = Undo::Nothing(reason);
        self.onto.accept(Finished(self.begun))
    }
}
