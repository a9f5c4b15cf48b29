//! The messages that notification consumes: the command to notify a customer, and updates of customers' addresses.

mod contacts;
mod kept;
mod mailed;

use std::sync::Arc;

use schemas::notification::NotifyCustomer;
use schemas::order::CustomerUpdated;
use shared::db::Db;
use shared::envelope::Message;
use shared::router::MessageRouter;

use self::contacts::Contacts;
use crate::gateway::Smtp;

/// Keeps notices where no mail server is set.
#[derive(Debug)]
pub struct Kept;

/// Sends notices by mail.
pub struct Mailed {
    /// For reading the notices that are to be sent.
    db: Db,
    smtp: Option<Smtp>,
}

/// Returns the handlers of all messages that notification consumes.
///
/// Without a mail server, a notice is written in the transaction that handles the command. With one, the outcome is recorded
/// in a second transaction.
pub fn router(db: Db, smtp: Option<Smtp>) -> MessageRouter {
    let contacts = [(CustomerUpdated::TYPE, CustomerUpdated::TOPIC)];
    let router = MessageRouter::new().events(&contacts, Arc::new(Contacts));
    let has_server = smtp.is_some();
    let mailed = Arc::new(Mailed { db, smtp });
    if has_server {
        return router.external::<NotifyCustomer>(&mailed);
    }
    router.finish_external::<NotifyCustomer>(&mailed).command::<NotifyCustomer>(&Arc::new(Kept))
}
