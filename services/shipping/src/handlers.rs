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
use shared::consumer::Table;
use shared::db::Db;
use shared::envelope::Message;
use shared::service::Service;

use self::release::Release;
pub(crate) use self::track::Tracker;
use crate::Config;
use crate::carrier::Carrier;

/// The outside that all of them call.
const CARRIER: &str = "carrier";

/// Carries out the commands about shipments.
pub struct Shipments<K> {
    carrier: K,
    db: Db,
}

/// The messages that shipping takes, and what follows the parcels.
pub(crate) fn all<K: Carrier>(service: &mut Service<Config>, carrier: K) -> (Table, Tracker<K>) {
    let db = service.db().clone();
    let release = Release { pace: carrier.pace() };
    let shipments = Arc::new(Shipments { carrier, db });
    let table = service.effect::<BookShipment>(Table::new(), &shipments);
    let table = service.effect::<CancelShipment>(table, &shipments);
    let table = service.effect::<StopShipment>(table, &shipments);
    let table = service.effect::<ResumeShipment>(table, &shipments);
    let table = table.on(&[(OrderConfirmed::TYPE, OrderConfirmed::TOPIC)], Arc::new(release));
    (table, Tracker { shipments })
}
