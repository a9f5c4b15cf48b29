//! The chain of words in which a plan is written.

use std::marker::PhantomData;
use std::time::Duration;

use crate::envelope::{Command, Never};
use serde::de::DeserializeOwned;

use super::{DEADLINE, Definition, Kind, Refusal, STUCK_AFTER, StepPlan, Undo, closing, make, name_of};

/// A plan before its pivot.
#[derive(Debug)]
pub struct Undoable;
/// A plan from its pivot on. `Last` is the command of the step that was just added, or [`Several`].
#[derive(Debug)]
pub struct Forward<Last = Several>(PhantomData<fn(Last)>);
/// Not one step: a group was just added, or nothing yet.
#[derive(Debug)]
pub struct Several;

/// Where a step may be undone.
#[diagnostic::on_unimplemented(
    message = "this plan has its pivot already",
    label = "not behind the pivot",
    note = "a plan has one pivot, and what can be undone stands before it; behind it there are only `.then(..)`, and \
            `.together(..)` of such"
)]
pub trait BeforePivot {}
impl BeforePivot for Undoable {}

/// Where nothing can be undone or refused any more.
#[diagnostic::on_unimplemented(
    message = "this plan has no pivot yet",
    label = "not before the pivot",
    note = "say with `.pivot(..)` which step is the point of no return; a step before it is written `.step(..)`, with its \
            `.undo(..)`"
)]
pub trait BehindPivot {}
impl<Last> BehindPivot for Forward<Last> {}

/// What one step may be told: how long it may take, and what is kept of its reply.
#[diagnostic::on_unimplemented(
    message = "this word is about one step, and no single step stands before it",
    label = "about which step?",
    note = "in `.together(..)` it stands behind the step that it is about: `.together(|group| group.then(..).deadline(..))`"
)]
pub trait OneStep {
    /// What the step replies when it is done.
    type Reply: DeserializeOwned + 'static;
}
impl<C: Command> OneStep for C {
    type Reply = C::Reply;
}

/// The refusal of a command that can't be refused.
#[diagnostic::on_unimplemented(
    message = "a command that may be refused, with `{Self}`, stands where nothing can be refused",
    label = "may be refused",
    note = "an undo, a step behind the pivot and what closes a saga are asked until they are done, so their commands have \
            the refusal `Never`",
    note = "a step that may be refused stands before the pivot, with its undo, or is the pivot"
)]
pub trait Impossible {}
impl Impossible for Never {}

/// A plan that is being written.
pub struct Plan<S, Phase> {
    pub(super) steps: Vec<StepPlan<S>>,
    groups: usize,
    phase: PhantomData<Phase>,
}

/// Steps that run side by side.
pub struct Group<S> {
    steps: Vec<StepPlan<S>>,
    group: usize,
}

/// Steps behind the pivot that run side by side. `Last` is the command of the step that was just added.
pub struct ForwardGroup<S, Last = Several> {
    group: Group<S>,
    last: PhantomData<fn(Last)>,
}

/// A step that does not say yet how it is undone. Only [`StepWithoutUndo::undo`] and
/// [`StepWithoutUndo::nothing_to_undo`] lead on from it.
#[must_use = "say how the step is undone"]
pub struct StepWithoutUndo<S, C, Onto> {
    onto: Onto,
    /// Not called like the word: the compiler would think that this was meant.
    begun: StepPlan<S>,
    command: PhantomData<fn(C)>,
}

/// What a finished step is added to.
pub trait Accepts<S>: Sized {
    #[doc(hidden)]
    fn accept(self, step: Finished<S>) -> Self;
}

/// A step that says how it is undone.
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
    pub fn begin() -> Self {
        Self { steps: Vec::new(), groups: 0, phase: PhantomData }
    }

    /// Steps that run side by side. The plan goes on when all are done; if one is refused, the others are waited for
    /// and then undone.
    #[must_use]
    pub fn together(mut self, steps: impl FnOnce(Group<S>) -> Group<S>) -> Self {
        let group = steps(Group { steps: Vec::new(), group: self.groups });
        self.steps.extend(group.steps);
        self.groups += 1;
        self
    }
}

/// The words for both phases of a plan, so that one that stands in the wrong phase is told so.
impl<S: 'static, Phase> Plan<S, Phase> {
    /// A step that can be undone.
    pub fn step<C: Command>(self, command: fn(&S) -> C) -> StepWithoutUndo<S, C, Self>
    where
        Phase: BeforePivot,
    {
        let begun = begin(command, self.groups, Kind::Compensatable);
        StepWithoutUndo { onto: self, begun, command: PhantomData }
    }

    /// The point of no return: once it is done, the saga goes forward only.
    pub fn pivot<C: Command>(self, command: fn(&S) -> C) -> Plan<S, Forward<C>>
    where
        Phase: BeforePivot,
    {
        let pivot = begin(command, self.groups, Kind::Pivot);
        self.with_group(vec![pivot])
    }

    /// A step that is repeated until it is done. Its command can't be refused.
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

    /// Ends the plan with what closes a saga after everything was undone.
    pub fn or_else<C>(self, close: fn(&S, &Refusal) -> C) -> Definition<S>
    where
        C: Command<Refusal: Impossible>,
        Phase: BehindPivot,
    {
        Definition { steps: self.steps, close: closing(close), cancel: None, deadline: None }
    }
}

impl<S: 'static, Last> Plan<S, Forward<Last>> {
    /// Steps behind the pivot that run side by side.
    #[must_use]
    pub fn together<L>(self, steps: impl FnOnce(ForwardGroup<S>) -> ForwardGroup<S, L>) -> Plan<S, Forward> {
        let empty = Group { steps: Vec::new(), group: self.groups };
        let added = steps(ForwardGroup { group: empty, last: PhantomData });
        self.with_group(added.group.steps)
    }

    /// Takes the reply of the pivot, or of the step that was just added, into the saga's memory.
    #[must_use]
    pub fn on_reply(mut self, on_reply: fn(&mut S, Last::Reply)) -> Self
    where
        Last: OneStep,
    {
        self.steps.last_mut().into_iter().for_each(|step| step.on_reply(on_reply));
        self
    }

    /// How long the pivot, or the step that was just added, may take before it is asked again.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self
    where
        Last: OneStep,
    {
        self.steps.last_mut().into_iter().for_each(|step| step.deadline = deadline);
        self
    }

    /// How often the pivot, or the step that was just added, may be asked in vain before the saga is stuck.
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
    /// A step that can be undone, beside the others of the group.
    pub fn step<C: Command>(self, command: fn(&S) -> C) -> StepWithoutUndo<S, C, Self> {
        let begun = begin(command, self.group, Kind::Compensatable);
        StepWithoutUndo { onto: self, begun, command: PhantomData }
    }
}

impl<S: 'static, Last> ForwardGroup<S, Last> {
    /// A step that is repeated until it is done, beside the others of the group.
    #[must_use]
    pub fn then<C: Command<Refusal: Impossible>>(mut self, command: fn(&S) -> C) -> ForwardGroup<S, C> {
        self.group.steps.push(begin(command, self.group.group, Kind::Forward));
        ForwardGroup { group: self.group, last: PhantomData }
    }

    /// Takes the reply of the step that was just added into the saga's memory.
    #[must_use]
    pub fn on_reply(mut self, on_reply: fn(&mut S, Last::Reply)) -> Self
    where
        Last: OneStep,
    {
        self.group.steps.last_mut().into_iter().for_each(|step| step.on_reply(on_reply));
        self
    }

    /// How long the step that was just added may take before it is asked again.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self
    where
        Last: OneStep,
    {
        self.group.steps.last_mut().into_iter().for_each(|step| step.deadline = deadline);
        self
    }

    /// How often the step that was just added may be asked in vain before the saga is stuck.
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
    /// Takes the reply into the saga's memory.
    pub fn on_reply(mut self, on_reply: fn(&mut S, C::Reply)) -> Self {
        self.begun.on_reply(on_reply);
        self
    }

    /// How long the step, or its undo, may take before it is asked again.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.begun.deadline = deadline;
        self
    }

    /// How often the step, or its undo, may be asked in vain before the saga is stuck.
    pub fn stuck_after(mut self, attempts: u32) -> Self {
        self.begun.stuck_after = attempts;
        self
    }

    /// How the step is undone. An undo can't be refused: it is repeated until it is done.
    pub fn undo<U: Command<Refusal: Impossible>>(mut self, undo: fn(&S) -> U) -> Onto {
        self.begun.undo = Undo::By(name_of::<U>(), make(undo));
        self.onto.accept(Finished(self.begun))
    }

    /// Why the step need not be undone.
    pub fn nothing_to_undo(mut self, why: &'static str) -> Onto {
        self.begun.undo = Undo::Nothing(why);
        self.onto.accept(Finished(self.begun))
    }
}
