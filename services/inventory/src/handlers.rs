//! The commands that inventory consumes. All of them move stock, so one handler takes a whole batch with two statements. It
//! locks the products once, in the order of their sku, so that two replicas can't deadlock.

mod stock;

use std::sync::Arc;

use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock, Reserved, RestockOrder};
use shared::envelope::Message;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::router::MessageRouter;
use shared::saga::participant::CommandSet;

/// Handles the commands about stock.
#[derive(Debug)]
pub struct StockHandler;

/// A command about stock.
#[derive(Debug)]
pub enum StockCommand {
    Reserve(ReserveStock),
    Release(ReleaseStock),
    Commit(CommitStock),
    Restock(RestockOrder),
}

impl CommandSet for StockCommand {
    const TYPES: &'static [(&'static str, &'static str)] = &[
        (ReserveStock::TYPE, ReserveStock::TOPIC),
        (ReleaseStock::TYPE, ReleaseStock::TOPIC),
        (CommitStock::TYPE, CommitStock::TOPIC),
        (RestockOrder::TYPE, RestockOrder::TOPIC),
    ];

    const ANSWERS: &'static str = Reserved::TOPIC;

    fn read(message: &Incoming) -> Result<Self, Fault> {
        Ok(match message.kind() {
            ReserveStock::TYPE => Self::Reserve(message.data()?),
            ReleaseStock::TYPE => Self::Release(message.data()?),
            CommitStock::TYPE => Self::Commit(message.data()?),
            _ => Self::Restock(message.data()?),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Reserve(_) => ReserveStock::TYPE,
            Self::Release(_) => ReleaseStock::TYPE,
            Self::Commit(_) => CommitStock::TYPE,
            Self::Restock(_) => RestockOrder::TYPE,
        }
    }
}

/// Returns the handlers of all messages that inventory consumes.
pub fn router() -> MessageRouter {
    MessageRouter::new().commands::<StockCommand>(&Arc::new(StockHandler))
}
