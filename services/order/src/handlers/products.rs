//! Keeps a copy of the products, from which orders are priced.

use schemas::inventory::ProductUpdated;
use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::read_model;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;

use crate::store;

pub(super) struct ProductUpdates;

impl BatchHandler for ProductUpdates {
    /// A repeated event is not newer than the row, so it changes nothing.
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
            let heard = read_model::read::<ProductUpdated>(messages)?;
            let skus: Vec<&str> = heard.iter().map(|heard| heard.data.sku.as_str()).collect();
            let known = store::find_product_versions(uow.db(), &skus).await?;
            let newest = read_model::newest(uow, "product", heard, |product| &product.sku, known);
            if !newest.is_empty() {
                store::save_products(uow, &newest);
            }
            Ok(())
        })
    }
}
