//! The commands that shipping takes. Each asks the carrier, between two transactions.

mod book;
mod cancel;

use std::sync::Arc;

use schemas::shipping::{BookShipment, CancelShipment};
use shared::consumer::Table;
use shared::service::Service;

use crate::Config;
use crate::carrier::Carrier;

/// The outside that all of them call.
const CARRIER: &str = "carrier";

/// Carries out the commands about shipments.
#[derive(Debug)]
pub struct Shipments<K> {
    carrier: K,
}

/// The messages that shipping takes.
pub fn table<K: Carrier>(service: &mut Service<Config>, carrier: K) -> Table {
    let shipments = Arc::new(Shipments { carrier });
    let table = service.effect::<BookShipment>(Table::new(), &shipments);
    service.effect::<CancelShipment>(table, &shipments)
}
