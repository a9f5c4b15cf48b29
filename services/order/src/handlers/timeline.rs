//! Handles the other services' events: they go into the timeline, and some change the order's delivery or cancellation.

use std::collections::HashMap;

use schemas::inventory::{Committed, Released, ReservationRefused, Reserved, Restocked};
use schemas::notification::{Failed, Sent};
use schemas::orchestrator::{
    EVENTS as SAGAS, SagaCancellationRefused, SagaCompensated, SagaCompensating, SagaCompleted, SagaStuck,
};
use schemas::order::{OrderCancelled, OrderConfirmed, OrderRejected, OrderReturned, ReturnRefused};
use schemas::payment::{Authorized, CaptureDeclined, Captured, Declined, RefundDeclined, Refunded, Voided};
use schemas::shipping::{
    Booked, BookingRefused, Cancelled, Delivered, Dispatched, Resumed, StopDeclined, Stopped,
};
use shared::envelope::Message;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use crate::domain::Status;
use crate::order_events::OrderNotifier;
use crate::store;

const fn of<M: Message>() -> (&'static str, &'static str) {
    (M::TYPE, M::TOPIC)
}

/// The events in an order's timeline. Those of requests are written with the request already, and stay as they are.
pub(super) const TIMELINE: &[(&str, &str)] = &[
    of::<OrderConfirmed>(),
    of::<OrderRejected>(),
    of::<OrderCancelled>(),
    of::<OrderReturned>(),
    of::<ReturnRefused>(),
    of::<Reserved>(),
    of::<ReservationRefused>(),
    of::<Released>(),
    of::<Committed>(),
    of::<Restocked>(),
    of::<Authorized>(),
    of::<Declined>(),
    of::<Voided>(),
    of::<Captured>(),
    of::<CaptureDeclined>(),
    of::<Refunded>(),
    of::<RefundDeclined>(),
    of::<Booked>(),
    of::<BookingRefused>(),
    of::<Cancelled>(),
    of::<Stopped>(),
    of::<StopDeclined>(),
    of::<Resumed>(),
    of::<Dispatched>(),
    of::<Delivered>(),
    of::<Sent>(),
    of::<Failed>(),
    (SagaStuck::TYPE, SAGAS),
    (SagaCancellationRefused::TYPE, SAGAS),
    (SagaCompensating::TYPE, SAGAS),
    (SagaCompensated::TYPE, SAGAS),
    (SagaCompleted::TYPE, SAGAS),
];

pub(super) struct Timeline {
    pub events: OrderNotifier,
}

impl BatchHandler for Timeline {
    /// An entry is identified by its message, and a delivery status only goes forward.
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
            let mut entries = Vec::with_capacity(messages.len());
            let (mut deliveries, mut too_late) = (HashMap::new(), Vec::new());
            for message in messages {
                let envelope = message.envelope()?;
                let order = Uuid::parse_str(&envelope.subject)
                    .map_err(|_| Fault::permanent("the event's subject is not an order's id"))?;
                entries.push((order, envelope.id, envelope.timestamp, &*envelope.source, &*envelope.kind));
                match &*envelope.kind {
                    Dispatched::TYPE => drop(deliveries.entry(order).or_insert(Status::Shipped)),
                    // A dispatch that is repeated behind the delivery must not replace it.
                    Delivered::TYPE => drop(deliveries.insert(order, Status::Delivered)),
                    SagaCancellationRefused::TYPE => {
                        too_late.push((order, message.data::<SagaCancellationRefused>()?.reason));
                    }
                    _ => {}
                }
            }
            // The events of different topics come in any order.
            entries.sort_by_key(|entry| entry.2);
            store::append_timeline(uow, &entries);
            if !too_late.is_empty() {
                store::refuse_cancellations(uow.db(), &too_late).await?;
            }
            if !deliveries.is_empty() {
                let deliveries: Vec<(Uuid, Status)> = deliveries.into_iter().collect();
                // A parcel follows its order's confirmation, except in a database that was set back in time.
                if let Some(order) = store::save_delivery(uow.db(), &deliveries).await?.first() {
                    return Err(Fault::retry(format!("the order {order} is not confirmed yet")));
                }
            }
            let mut orders: Vec<Uuid> = entries.iter().map(|entry| entry.0).collect();
            orders.sort_unstable();
            orders.dedup();
            let events = self.events.clone();
            uow.after_commit(move || events.notify_changed(&orders));
            Ok(())
        })
    }
}
