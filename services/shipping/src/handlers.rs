//! What shipping does. Commands call the carrier between two transactions. The confirmation of an order releases its
//! shipment. A task asks the carrier where released parcels are.

mod book;
mod cancel;
mod release;
mod resume;
mod stop;
mod track;

use std::sync::Arc;

use schemas::order::OrderConfirmed;
use schemas::shipping::{BookShipment, CancelShipment, ResumeShipment, StopShipment};
use shared::db::Db;
use shared::envelope::Message;
use shared::router::MessageRouter;

use self::release::Release;
pub(crate) use self::track::Tracker;
use crate::gateway::Carrier;

/// The external dependency that all commands call.
const CARRIER: &str = "carrier";

/// Handles the commands about shipments.
pub struct Shipments<K> {
    carrier: K,
    db: Db,
}

/// Returns the handlers of all messages that shipping consumes, and the task that tracks parcels.
pub(crate) fn router<K: Carrier>(db: Db, carrier: K) -> (MessageRouter, Tracker<K>) {
    let release = Release { pace: carrier.pace() };
    let shipments = Arc::new(Shipments { carrier, db });
    let router = MessageRouter::new()
        .external::<BookShipment>(&shipments)
        .external::<CancelShipment>(&shipments)
        .external::<StopShipment>(&shipments)
        .external::<ResumeShipment>(&shipments)
        .events(&[(OrderConfirmed::TYPE, OrderConfirmed::TOPIC)], Arc::new(release));
    (router, Tracker { shipments })
}
