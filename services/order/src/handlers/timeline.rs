//! Keeps what others tell: the timeline of everybody's events with the carrier's word on the order, whether it was too
//! late to cancel, and the products.

use std::collections::HashMap;

use schemas::inventory::{Committed, ProductUpdated, Released, Reserved, Restocked};
use schemas::notification::{Failed, Sent};
use schemas::orchestrator::{
    SagaCancellationRefused, SagaCompensated, SagaCompensating, SagaCompleted, SagaStarted, SagaStuck,
};
use schemas::payment::{Authorized, Captured, Declined, Refunded, Voided};
use schemas::shipping::{Booked, Cancelled, Delivered, Dispatched};
use shared::consumer::{BatchHandler, BoxFuture, Incoming};
use shared::envelope::Message;
use shared::fault::Fault;
use shared::inbox::Claimed;
use uuid::Uuid;

use crate::domain::Status;
use crate::store::{self, ProductRow};
use crate::watch::Watchers;

const fn of<M: Message>() -> (&'static str, &'static str) {
    (M::TYPE, M::TOPIC)
}

/// What is told in an order's timeline, beside the order service's own events.
pub(super) const TIMELINE: &[(&str, &str)] = &[
    of::<SagaStarted>(),
    of::<Reserved>(),
    of::<Released>(),
    of::<Committed>(),
    of::<Restocked>(),
    of::<Authorized>(),
    of::<Declined>(),
    of::<Voided>(),
    of::<Captured>(),
    of::<Refunded>(),
    of::<Booked>(),
    of::<Cancelled>(),
    of::<Dispatched>(),
    of::<Delivered>(),
    of::<Sent>(),
    of::<Failed>(),
    of::<SagaStuck>(),
    of::<SagaCancellationRefused>(),
    of::<SagaCompensating>(),
    of::<SagaCompensated>(),
    of::<SagaCompleted>(),
];

pub(super) struct Timeline {
    pub watchers: Watchers,
}

impl BatchHandler for Timeline {
    /// An entry is known by its message, and a parcel does not go back.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let mut entries = Vec::with_capacity(messages.len());
            let (mut carried, mut too_late) = (HashMap::new(), Vec::new());
            for message in messages {
                let envelope = message.envelope()?;
                let order = Uuid::parse_str(&envelope.subject)
                    .map_err(|_| Fault::permanent("the event's subject is not an order's id"))?;
                entries.push((order, envelope.id, envelope.timestamp, &*envelope.source, &*envelope.kind));
                match &*envelope.kind {
                    Dispatched::TYPE => drop(carried.entry(order).or_insert(Status::Shipped)),
                    // A pick-up that comes again behind it does not hide it.
                    Delivered::TYPE => drop(carried.insert(order, Status::Delivered)),
                    SagaCancellationRefused::TYPE => {
                        too_late.push((order, message.data::<SagaCancellationRefused>()?.reason));
                    }
                    _ => {}
                }
            }
            store::append_timeline(claimed.db(), &entries).await?;
            if !too_late.is_empty() {
                store::refuse_cancellations(claimed.db(), &too_late).await?;
            }
            if !carried.is_empty() {
                let carried: Vec<(Uuid, Status)> = carried.into_iter().collect();
                store::save_delivery(claimed.db(), &carried).await?;
            }
            let mut orders: Vec<Uuid> = entries.iter().map(|entry| entry.0).collect();
            orders.dedup();
            let watchers = self.watchers.clone();
            claimed.after_commit(move || watchers.tell(&orders));
            Ok(())
        })
    }
}

pub(super) struct Products;

impl BatchHandler for Products {
    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            for message in messages {
                let product: ProductUpdated = message.data()?;
                let version = message.envelope()?.sequence.unwrap_or_default();
                let row = ProductRow {
                    sku: product.sku,
                    name: product.name,
                    price_amount: product.price.amount,
                    price_currency: product.price.currency,
                    version,
                };
                store::save_product(claimed.db(), &row).await?;
            }
            Ok(())
        })
    }
}
