//! The commands that payment takes. Each asks the card provider, between two transactions.

mod authorize;
mod moves;

use std::sync::Arc;

use schemas::payment::{AuthorizePayment, CapturePayment, VoidPayment};
use shared::consumer::Table;
use shared::service::Service;

use crate::Config;
use crate::psp::CardProvider;

/// The outside that all of them call.
const CARD_PROVIDER: &str = "card-provider";

/// Carries out the commands about payments.
pub struct Payments<P> {
    provider: P,
}

/// The messages that payment takes.
pub fn table<P: CardProvider>(service: &mut Service<Config>, provider: P) -> Table {
    let payments = Arc::new(Payments { provider });
    let table = service.effect::<AuthorizePayment>(Table::new(), &payments);
    let table = service.effect::<VoidPayment>(table, &payments);
    service.effect::<CapturePayment>(table, &payments)
}
