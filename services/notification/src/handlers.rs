//! The messages that notification takes: the command to tell a customer, and where customers can be reached.

mod contacts;
mod kept;
mod mailed;

use std::sync::Arc;

use schemas::notification::NotifyCustomer;
use schemas::order::CustomerUpdated;
use shared::consumer::Table;
use shared::db::Db;
use shared::envelope::Message;
use shared::service::Service;

use self::contacts::Contacts;
use crate::Config;
use crate::mail::Smtp;

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
pub fn table(service: &mut Service<Config>, smtp: Option<Smtp>) -> Table {
    let table = Table::new().on(&[(CustomerUpdated::TYPE, CustomerUpdated::TOPIC)], Arc::new(Contacts));
    let has_server = smtp.is_some();
    let mailed = Arc::new(Mailed { db: service.db().clone(), smtp });
    if has_server {
        return service.effect::<NotifyCustomer>(table, &mailed);
    }
    // No command comes this way, but what was begun while there was a mail server is brought to its end.
    drop(service.effect::<NotifyCustomer>(Table::new(), &mailed));
    table.command::<NotifyCustomer>(&Arc::new(Kept))
}
