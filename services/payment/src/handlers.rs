//! The commands that payment consumes. Each calls the card provider between two transactions.

mod authorize;
mod moves;
mod refund;

use std::sync::Arc;

use schemas::payment::{AuthorizePayment, CapturePayment, RefundPayment, VoidPayment};
use shared::db::Db;
use shared::router::MessageRouter;

use crate::gateway::CardProvider;

/// The external dependency that all commands call.
const CARD_PROVIDER: &str = "card-provider";

/// Handles the commands about payments.
pub struct Payments<P> {
    provider: P,
    db: Db,
}

/// Returns the handlers of all messages that payment consumes.
pub fn router<P: CardProvider>(db: Db, provider: P) -> MessageRouter {
    let payments = Arc::new(Payments { provider, db });
    MessageRouter::new()
        .external::<AuthorizePayment>(&payments)
        .external::<VoidPayment>(&payments)
        .external::<CapturePayment>(&payments)
        .external::<RefundPayment>(&payments)
}
