//! The parcels of earlier orders. The carrier picks them up and delivers them minutes after the orders have settled, so a
//! suite that looks idle may have work again in the middle of the measurement.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use crate::output::complain;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until no parcel will move within this time.
///
/// # Errors
/// If it is stopped before.
pub async fn until_at_rest(
    ground: &Ground,
    within: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut shipping = ground.connect("shipping").await?;
    let mut told = false;
    loop {
        let due = "select count(*) from shipment where due_at < now() + $1 * interval '1 second'";
        let due = sqlx::query_scalar(due).bind(within.as_secs_f64()).fetch_one(&mut shipping).await;
        let due: i64 = due.context("the parcels of the suite can't be counted")?;
        if due == 0 {
            return Ok(());
        }
        if !told {
            complain!(
                "waiting until {due} parcels of earlier orders are picked up and delivered, which takes some minutes; a \
                 suite that is started with SHIPPING_DISPATCH_AFTER=1d has no such work"
            );
            told = true;
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            bail!("stopped before the measurement had begun");
        }
    }
}
