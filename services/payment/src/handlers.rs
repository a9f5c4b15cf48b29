//! The commands that payment takes. Each asks the card provider, between two transactions.

mod authorize;
mod moves;
mod refund;

use std::sync::Arc;

use schemas::payment::{AuthorizePayment, CapturePayment, RefundPayment, VoidPayment};
use shared::consumer::Table;
use shared::db::Db;
use shared::service::Service;

use crate::Config;
use crate::psp::CardProvider;

/// The outside that all of them call.
const CARD_PROVIDER: &str = "card-provider";

/// Carries out the commands about payments.
pub struct Payments<P> {
    provider: P,
    db: Db,
}

/// The messages that payment takes.
pub fn table<P: CardProvider>(service: &mut Service<Config>, provider: P) -> Table {
    let payments = Arc::new(Payments { provider, db: service.db().clone() });
    let table = service.effect::<AuthorizePayment>(Table::new(), &payments);
    let table = service.effect::<VoidPayment>(table, &payments);
    let table = service.effect::<CapturePayment>(table, &payments);
    service.effect::<RefundPayment>(table, &payments)
}
