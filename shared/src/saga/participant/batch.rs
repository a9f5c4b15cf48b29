//! Handlers for several command types at once. A batch of them is one set of statements and takes its locks once, in
//! one order.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{AnyAnswer, Task, answered, unanswered};
use crate::envelope::{Command, Message};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::step_outcome::StepKey;
use crate::unit_of_work::UnitOfWork;

/// The commands of one handler: a single type, or an enum with a variant for each type.
pub trait CommandSet: Sized + Send + Sync + 'static {
    /// The command types, each with its topic.
    const TYPES: &'static [(&'static str, &'static str)];

    /// The topic of the events that answer these commands.
    const ANSWERS: &'static str;

    /// Reads the command in a message of one of these types.
    ///
    /// # Errors
    /// Fails permanently if the data does not match the type. The message is then parked.
    fn read(message: &Incoming) -> Result<Self, Fault>;

    /// Returns the type of this command, one of [`CommandSet::TYPES`].
    fn kind(&self) -> &'static str;
}

impl<C: Command> CommandSet for C {
    const TYPES: &'static [(&'static str, &'static str)] = &[(C::TYPE, C::TOPIC)];
    const ANSWERS: &'static str = <C::Reply as Message>::TOPIC;

    fn read(message: &Incoming) -> Result<Self, Fault> {
        message.data()
    }

    fn kind(&self) -> &'static str {
        C::TYPE
    }
}

/// Carries out commands of several types inside the transaction that claimed them.
pub trait CommandBatchHandler<S: CommandSet>: Send + Sync + 'static {
    /// Carries out the commands in their order, each about a different aggregate, and returns the answers in that
    /// order.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the batch back.
    fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<S>],
    ) -> impl Future<Output = Result<Vec<AnyAnswer>, Fault>> + Send;
}

impl MessageRouter {
    /// Registers the handler of all command types in `S`. It gets the commands of a batch together.
    ///
    /// # Panics
    /// Panics if one of the types already has a handler.
    #[must_use]
    pub fn commands<S: CommandSet>(self, handler: &Arc<impl CommandBatchHandler<S>>) -> Self {
        let route = BatchRoute { handler: Arc::clone(handler), _commands: std::marker::PhantomData };
        self.on(S::TYPES, Arc::new(route))
    }
}

struct BatchRoute<S, H> {
    handler: Arc<H>,
    _commands: std::marker::PhantomData<fn(S)>,
}

impl<S: CommandSet, H: CommandBatchHandler<S>> BatchHandler for BatchRoute<S, H> {
    /// The record of its step shows a repeated command.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn takes_steps(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            for run in runs(messages)? {
                uow.flush().await?;
                let tasks = unanswered::<S>(uow, run).await?;
                if tasks.is_empty() {
                    continue;
                }
                let answers = self.handler.handle(uow, &tasks).await?;
                for (task, answer) in tasks.iter().zip(answers) {
                    let record = answered(uow, task, answer)?;
                    uow.steps.add(record);
                }
            }
            Ok(())
        })
    }
}

/// Splits a batch before each second step of an aggregate, because that step needs the results of the first one.
fn runs<'s, 'm>(messages: &'s [&'m Incoming]) -> Result<Vec<&'s [&'m Incoming]>, Fault> {
    let mut runs = Vec::new();
    let mut begin = 0;
    let mut steps: HashMap<&str, StepKey> = HashMap::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let step = StepKey::of(message)?;
        if steps.get(message.key.as_str()).is_some_and(|earlier| *earlier != step) {
            runs.push(&messages[begin..index]);
            begin = index;
            steps.clear();
        }
        steps.insert(&message.key, step);
    }
    runs.push(&messages[begin..]);
    Ok(runs)
}
