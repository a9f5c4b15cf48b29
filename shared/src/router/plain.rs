//! Handlers of one type of message, for services that take part in no saga.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{BatchHandler, MessageRouter};
use crate::envelope::{Cause, Event, Message};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::unit_of_work::UnitOfWork;

/// A message as its handler gets it.
#[derive(Debug)]
pub struct Delivery<M> {
    /// The message's data.
    pub message: M,
    /// The aggregate that the message is about; its lock is held.
    pub subject: String,
    /// What the messages inherit that this one causes.
    pub cause: Cause,
    /// The version of the aggregate after the change, where the message says it.
    pub sequence: Option<i64>,
}

/// Handles messages of type `M` in the transaction that claimed them.
pub trait MessageHandler<M: Message>: Send + Sync + 'static {
    /// Handles the messages in their order. They may be redone, together or one by one, if the transaction is rolled back.
    ///
    /// # Errors
    /// A technical failure, which rolls the whole batch back. It is repeated, or the message is parked: see
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
    /// Gives the events of type `E` to `handler`. Events of other types on their topic are passed over.
    ///
    /// # Panics
    /// If the type has a handler already.
    #[must_use]
    pub fn event<E: Event>(self, handler: &Arc<impl MessageHandler<E>>) -> Self {
        self.events(&[(E::TYPE, E::TOPIC)], plain(handler))
    }

    /// Gives the messages of type `M` to `handler`: commands that nobody waits for an answer to. Messages of other types on
    /// their topic are parked.
    ///
    /// # Panics
    /// If the type has a handler already.
    #[must_use]
    pub fn message<M: Message>(self, handler: &Arc<impl MessageHandler<M>>) -> Self {
        self.on(&[(M::TYPE, M::TOPIC)], plain(handler))
    }
}

fn plain<M: Message>(handler: &Arc<impl MessageHandler<M>>) -> Arc<dyn BatchHandler> {
    Arc::new(Plain { handler: Arc::clone(handler), message: PhantomData })
}
