//! Handlers of one message type, for messages outside of sagas.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{BatchHandler, MessageRouter};
use crate::envelope::{Cause, Event, Message};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::unit_of_work::UnitOfWork;

/// A message as its handler receives it.
#[derive(Debug)]
pub struct Delivery<M> {
    /// The data of the message.
    pub message: M,
    /// The aggregate that the message is about. Its lock is held.
    pub subject: String,
    /// The values that messages caused by this one inherit.
    pub cause: Cause,
    /// The version of the aggregate after the change, if the message has it.
    pub sequence: Option<i64>,
}

/// Handles messages of type `M` in the transaction that claimed them.
pub trait MessageHandler<M: Message>: Send + Sync + 'static {
    /// Handles the messages in their order. If the transaction is rolled back, they are handled again, together or
    /// one by one.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the whole batch back. It is repeated, or the message is parked; see
    /// [`crate::fault`].
    fn handle(
        &self,
        uow: &mut UnitOfWork,
        messages: &[Delivery<M>],
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

struct Plain<M, H> {
    handler: Arc<H>,
    message: PhantomData<fn(M)>,
}

impl<M: Message, H: MessageHandler<M>> BatchHandler for Plain<M, H> {
    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let mut deliveries = Vec::with_capacity(messages.len());
            for message in messages {
                let envelope = message.envelope()?;
                deliveries.push(Delivery {
                    message: message.data::<M>()?,
                    subject: envelope.subject.clone(),
                    cause: message.cause()?,
                    sequence: envelope.sequence,
                });
            }
            self.handler.handle(uow, &deliveries).await
        })
    }
}

impl MessageRouter {
    /// Registers the handler of the events of type `E`. Events of other types on their topic are skipped,
    /// unless a command or message is consumed there too.
    ///
    /// # Panics
    /// Panics if the type already has a handler.
    #[must_use]
    pub fn event<E: Event>(self, handler: &Arc<impl MessageHandler<E>>) -> Self {
        self.events(&[(E::TYPE, E::TOPIC)], plain(handler))
    }

    /// Registers the handler of the messages of type `M`, for example commands without an answer. Messages of other
    /// types on their topic are parked.
    ///
    /// # Panics
    /// Panics if the type already has a handler.
    #[must_use]
    pub fn message<M: Message>(self, handler: &Arc<impl MessageHandler<M>>) -> Self {
        self.on(&[(M::TYPE, M::TOPIC)], plain(handler))
    }
}

fn plain<M: Message>(handler: &Arc<impl MessageHandler<M>>) -> Arc<dyn BatchHandler> {
    Arc::new(Plain { handler: Arc::clone(handler), message: PhantomData })
}
