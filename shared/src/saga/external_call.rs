//! Calls to external dependencies such as a card provider, a carrier or a mail server. A call is never made inside a
//! transaction.
//!
//! A first transaction claims the command and records the intent. Then the dependency is called with the step's
//! idempotency key. A second transaction records the outcome and publishes the answer. A slow dependency therefore
//! holds no transaction and no partition. After a crash in between, the open intents are resumed and the dependency
//! is called with the same key.
//!
//! A dependency that answers at once needs one transaction only: it is called first, and what it has answered within
//! [`ExternalCall::CALL_FIRST`] is recorded together with the intent.
//!
//! A step without an answer stays open. It is called again, at intervals that grow to 30 seconds. Its saga
//! gets the outcome [`crate::envelope::Outcome::Failing`] at the first, second, fourth, eighth ...
//! attempt, so that an outage costs few messages. The saga concludes nothing from it.
//!
//! An operator can resolve an open step with the outcome that the dependency has not told ([`ExternalCall::resolve`]). The
//! service records it as if the dependency had answered so, and a later answer has no effect. If the step counts as
//! refused, the dependency is told to withdraw what it may have done ([`ExternalCall::withdraw`]), until it answers.
//!
//! A command with [`ExternalCall::GIVES_UP`] is given up after a deadline, as if an operator had resolved it as refused.
//!
//! All calls with the same [`ExternalCall::TARGET`] share a circuit breaker ([`crate::circuit_breaker`]). While it is
//! open no call is made, and steps are deferred until a trial is possible. A deferral does not count as an attempt.

mod ahead;
mod caller;
mod intake;
pub mod resolution;
mod store;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

pub use self::ahead::AT_ONCE;
use self::ahead::Patience;
use self::caller::Caller;
use self::intake::Intake;
pub use self::resolution::{Nothing, Resolution, Resolved, TIMED_OUT, Unresolved};
use self::resolution::{ResolveCall, Resolver};
use crate::circuit_breaker::Dependency;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::router::MessageRouter;
use crate::saga::participant::{Answer, Task};
use crate::unit_of_work::UnitOfWork;

/// A call that failed for a local reason. It says nothing about the dependency.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LocalError(pub &'static str);

/// Carries out commands of type `C` by calling an external dependency.
pub trait ExternalCall<C: Command>: Send + Sync + 'static {
    /// The name of the dependency. All calls with this name share its circuit breaker.
    const TARGET: &'static str;
    /// The dependency's answer, positive or negative.
    type Outcome: Send + Sync + 'static;

    /// The timeout of one call. The claim of a process on a task lasts twice as long, so that no two processes call
    /// at once. If they did, the idempotency key would still make it one effect.
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// The largest number of concurrent calls of one process; further tasks wait in the database. It must not exceed
    /// the concurrency of the dependency, because waiting there would count as silence.
    const MAX_CONCURRENCY: usize = 512;

    /// Whether the dependency carries out repeated calls with one key only once. If it does not, a stopping service
    /// waits for the running calls. Otherwise it would repeat them after its next start.
    const IDEMPOTENT: bool = true;

    /// How long a batch waits for answers before its transaction; `None` if the intent is recorded before the call. With
    /// a value, for example [`AT_ONCE`], a command may be called several times under its key, and before its intent is
    /// recorded. So the dependency must be idempotent, and [`ExternalCall::call`] must not depend on what
    /// [`ExternalCall::record_intent`] writes or refuses. Only the first command of a key in a batch is called so.
    const CALL_FIRST: Option<Duration> = None;

    /// Whether a call without an answer is given up after [`crate::db::DbOptions::call_deadline`]. The step then counts as
    /// refused with the code [`TIMED_OUT`], which [`ExternalCall::resolve`] must accept, and the call is withdrawn. A step
    /// whose end decides about money must not be given up: nobody may guess how a pivot ended. Nor can an undo be, or a step
    /// behind the pivot, because they cannot be refused.
    const GIVES_UP: bool = false;

    /// Records the intent in the transaction that claims the commands.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the batch back.
    fn record_intent(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Calls the dependency, outside any transaction.
    ///
    /// # Errors
    /// Fails if no answer comes. Nothing is concluded from that: the call is repeated later with the same key.
    ///
    /// The text of the error goes to the log and to the saga, so it must not contain personal data. A database error
    /// or [`LocalError`] says nothing about the dependency. Any other error counts against it; see
    /// [`crate::circuit_breaker`].
    fn call(
        &self,
        idempotency_key: &str,
        task: &Task<C>,
    ) -> impl Future<Output = Result<Self::Outcome, Box<dyn Error + Send + Sync>>> + Send;

    /// Records the dependency's answers, and returns the answers to the commands in the order of `answered`.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the transaction back. It is repeated.
    fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;

    /// Records intent and outcome together, for commands that were called first. `tasks` and `answered` are the same
    /// commands, in the same order. Implement it to write with fewer statements.
    ///
    /// # Errors
    /// Fails as the two others do.
    fn record_at_once(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
        answered: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send {
        async move {
            self.record_intent(uow, tasks).await?;
            uow.flush().await?;
            self.record_outcome(uow, answered).await
        }
    }

    /// Translates the outcome that an operator states for an open call into the dependency's answer, which is then recorded
    /// by [`ExternalCall::record_outcome`] in the same transaction. Use [`Resolution::read`].
    ///
    /// # Errors
    /// Fails with [`Unresolved::Unfit`] if the command cannot have this outcome, or if the operator must say more. So it does
    /// by default.
    fn resolve(
        &self,
        uow: &mut UnitOfWork,
        task: &Task<C>,
        resolution: &Resolution,
    ) -> impl Future<Output = Result<Self::Outcome, Unresolved>> + Send {
        let _ = (uow, task, resolution);
        async { Err(Unresolved::Unfit(format!("{} cannot be resolved by an operator", C::TYPE))) }
    }

    /// Has the dependency take back whatever it did under this key, and refuse it from now on. It is called for steps that
    /// were resolved as refused, outside any transaction, until it answers. No call under the key is under way meanwhile.
    ///
    /// By default it does nothing, which is right only if the effect cannot be taken back, or if no such step can be resolved
    /// as refused.
    ///
    /// # Errors
    /// Fails as [`ExternalCall::call`] does.
    fn withdraw(
        &self,
        key: &str,
        task: &Task<C>,
    ) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send {
        let _ = (key, task);
        async { Ok(()) }
    }
}

impl MessageRouter {
    /// Registers `handler` for the commands of type `C`, which it carries out by external calls. The calls run beside
    /// the consumer.
    ///
    /// # Panics
    /// Panics if the type already has a handler.
    #[must_use]
    pub fn external<C: Command>(mut self, handler: &Arc<impl ExternalCall<C>>) -> Self {
        let intake = self.add_caller(handler);
        self.on(&[(C::TYPE, C::TOPIC)], Arc::new(intake))
    }

    /// Finishes external calls that began under another configuration. It accepts no new commands.
    #[must_use]
    pub fn finish_external<C: Command>(mut self, handler: &Arc<impl ExternalCall<C>>) -> Self {
        drop(self.add_caller(handler));
        self
    }

    fn add_caller<C: Command, E: ExternalCall<C>>(&mut self, handler: &Arc<E>) -> Intake<C, E> {
        let dependency = self.dependency(E::TARGET);
        const {
            assert!(
                E::IDEMPOTENT || E::CALL_FIRST.is_none(),
                "a dependency that is not idempotent cannot be called first"
            );
            // The wait is a part of the time that a batch may take.
            let patience = match E::CALL_FIRST {
                Some(patience) => patience.as_secs(),
                None => 0,
            };
            assert!(patience <= 10, "a batch must not wait for answers for more than ten seconds");
        }
        let (hand_over, tasks) = mpsc::channel(E::MAX_CONCURRENCY);
        let slots = Arc::new(Semaphore::new(E::MAX_CONCURRENCY));
        let intake = Intake {
            handler: Arc::clone(handler),
            dependency: Arc::clone(&dependency),
            hand_over,
            slots: Arc::clone(&slots),
            patience: Patience::default(),
        };
        let resolver: Box<dyn ResolveCall> = Box::new(Resolver::new(Arc::clone(handler)));
        self.extensions.insert(C::TYPE, Box::new(resolver));
        let handler = Arc::clone(handler);
        let worker = move |db, stop| -> BoxFuture<'static, ()> {
            Box::pin(Caller { db, handler, dependency, tasks, slots }.run(stop))
        };
        self.add_worker(C::TYPE, Box::new(worker));
        intake
    }

    /// Returns the dependency with this name, whose circuit breaker all its callers share.
    fn dependency(&mut self, name: &'static str) -> Arc<Dependency> {
        Arc::clone(self.dependencies.entry(name).or_insert_with(|| Arc::new(Dependency::new(name))))
    }
}

/// Returns for how many seconds a process claims a task.
fn claim<C: Command, E: ExternalCall<C>>() -> f64 {
    (E::TIMEOUT * 2).as_secs_f64()
}
