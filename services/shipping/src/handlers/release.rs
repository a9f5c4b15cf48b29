//! Releases shipments whose orders are confirmed.

use schemas::order::OrderConfirmed;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;

use crate::domain::Pace;
use crate::store::{self, ReleaseRow};

/// Releases the shipments of confirmed orders.
pub(super) struct Release {
    pub pace: Pace,
}

impl BatchHandler for Release {
    /// A shipment is released once.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn is_background(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let mut releases = Vec::with_capacity(messages.len());
            for message in messages {
                let order: OrderConfirmed = message.data()?;
                let cause = message.cause()?;
                releases.push(ReleaseRow {
                    order_id: order.order_id,
                    message_id: message.envelope()?.id,
                    correlation_id: cause.correlation_id,
                    traceparent: cause.traceparent,
                });
            }
            let now = uow.now();
            let missing = store::release(uow.db(), &releases, now, self.pace.dispatch(now)).await?;
            // A confirmation follows its booking, except in a database that was set back in time.
            match missing.first() {
                None => Ok(()),
                Some(order) => {
                    Err(Fault::retry(format!("the shipment of the order {order} is not booked yet")))
                }
            }
        })
    }
}
