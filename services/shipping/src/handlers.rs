//! What shipping does: the commands that ask the carrier, between two transactions; the confirmations of orders, which
//! release their shipments; and the carrier's word on what became of them.

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

/// The external dependency that all of them call.
const CARRIER: &str = "carrier";

/// Carries out the commands about shipments.
pub struct Shipments<K> {
    carrier: K,
    db: Db,
}

/// The messages that shipping takes, and what follows the parcels.
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
