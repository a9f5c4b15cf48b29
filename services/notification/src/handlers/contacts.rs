//! Keeps a read model of customers' addresses.

use schemas::order::CustomerUpdated;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;

use crate::store;

pub(super) struct Contacts;

impl BatchHandler for Contacts {
    // A repeated event has no newer version than the row, so it changes nothing.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn is_background(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let mut contacts: Vec<(CustomerUpdated, i64)> = Vec::with_capacity(messages.len());
            for message in messages {
                let version = message.envelope()?.sequence;
                let version = version.ok_or_else(|| {
                    Fault::permanent("the event has no sequence, so it can't be told whether it is newer")
                })?;
                contacts.push((message.data()?, version));
            }
            Ok(store::save_contacts(uow.db(), &contacts).await?)
        })
    }
}
