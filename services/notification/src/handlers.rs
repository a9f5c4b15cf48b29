//! The messages that notification takes: the command to tell a customer, and where customers can be reached.

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

/// Keeps what customers are to be told, where there is no way to send it.
#[derive(Debug)]
pub struct Kept;

/// Tells customers by mail.
pub struct Mailed {
    /// To read what is to be sent.
    db: Db,
    smtp: Option<Smtp>,
}

/// The messages that notification takes. Without a mail server a notice is kept with the transaction that takes the
/// command; with one it takes a second transaction.
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
