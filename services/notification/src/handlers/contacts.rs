//! Keeps a read model of customers' addresses.

use schemas::order::CustomerUpdated;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::read_model;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;

use crate::store;

pub(super) struct Contacts;

impl BatchHandler for Contacts {
    // A repeated event is not newer than the row, so it changes nothing.
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
            let heard = read_model::read::<CustomerUpdated>(messages)?;
            let customers: Vec<&str> = heard.iter().map(|heard| heard.data.customer_id.as_str()).collect();
            let known = store::find_contact_versions(uow.db(), &customers).await?;
            let newest =
                read_model::newest(uow, "customer_contact", heard, |customer| &customer.customer_id, known);
            if !newest.is_empty() {
                store::save_contacts(uow, &newest);
            }
            Ok(())
        })
    }
}
