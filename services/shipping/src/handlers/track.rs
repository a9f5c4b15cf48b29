//! Asks the carrier where parcels are, and publishes their moves. Any number of replicas may ask. One replica at a time leases
//! a shipment, and a shipment moves only from where it stood when the carrier was asked. So each move is published once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::shipping::{Delivered, Dispatched};
use shared::deadline::limited;
use shared::envelope::Cause;
use shared::fault::{Class, Fault};
use shared::isolate::together_or_each;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::Shipments;
use crate::domain::{Move, Status};
use crate::gateway::{Carrier, NoAnswer, Parcel};
use crate::store::{self, DueRow, MovedRow, News};

/// How often due shipments are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most shipments in one call of the carrier, and in one transaction.
const BATCH: i64 = 500;
/// How long the carrier may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shipment is left alone after a replica leased it. Other replicas wait that long for its answer. If there was no
/// change or no answer, all wait that long.
///
/// It is longer than [`CALL_TIMEOUT`], so that two replicas rarely ask at once. If they do, one of them finds that the
/// shipment has moved.
const LEASE: Duration = Duration::from_secs(10);

/// Tracks released parcels.
pub(crate) struct Tracker<K> {
    pub(super) shipments: Arc<Shipments<K>>,
}

impl<K: Carrier> Tracker<K> {
    /// Tracks parcels until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            while !stop.is_cancelled() {
                match limited(self.look()).await {
                    // There may be more.
                    Ok(BATCH..) => {}
                    Ok(_) => break,
                    Err(fault) => {
                        warn!(%fault, "parcels could not be followed; the carrier is asked again");
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks about a batch of due shipments, and writes their moves. Returns the number of due shipments.
    async fn look(&self) -> Result<i64, Fault> {
        let Shipments { carrier, db } = &*self.shipments;
        // Mostly no shipment is due. Finding that out needs no transaction.
        if !store::is_any_due(&mut *db.read().await?).await? {
            return Ok(0);
        }
        let mut uow = db.write(&[]).await?;
        let now = uow.now();
        let due = store::claim_due(uow.db(), LEASE, BATCH).await?;
        uow.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let count = due.len() as i64;
        let parcel = |row: &DueRow| Parcel {
            tracking_number: row.tracking_number.clone(),
            released_at: row.released_at,
        };
        let parcels: Vec<Parcel> = due.iter().map(parcel).collect();
        let said = tokio::time::timeout(CALL_TIMEOUT, carrier.track(&parcels, now)).await;
        let said = said.unwrap_or(Err(NoAnswer)).map_err(Fault::retry)?;
        let news = due.into_iter().zip(said).filter_map(|(row, said)| {
            // The table's check constraint allows no other text.
            let step = Move::of(Status::parse(&row.status)?, said)?;
            Some(News { order_id: row.order_id, tracking_number: row.tracking_number, step })
        });
        self.write_all(news.collect()).await?;
        Ok(count)
    }

    async fn write_all(&self, news: Vec<News>) -> Result<(), Fault> {
        let batch = news.len();
        let mut retry = Ok(());
        let done = |news: Vec<News>, written: Result<(), Fault>| match written {
            Ok(()) => {}
            // The whole batch has to be retried.
            Err(fault) if fault.class() == Class::Retry && news.len() == batch => retry = Err(fault),
            Err(fault) => {
                for one in news {
                    error!(order = %one.order_id, %fault, "a parcel's move could not be written; the carrier is asked again");
                }
            }
        };
        let write = async |news: Vec<News>| {
            let written = self.write(&news).await;
            (news, written)
        };
        together_or_each(news, write, done).await;
        retry
    }

    async fn write(&self, news: &[News]) -> Result<(), Fault> {
        if news.is_empty() {
            return Ok(());
        }
        let Shipments { carrier, db } = &*self.shipments;
        let keys: Vec<String> = news.iter().map(|news| news.order_id.to_string()).collect();
        let mut uow = db.write(&keys).await?;
        // Shipments that were stopped meanwhile, or moved by another replica, are not among them.
        let moved = store::save_moves(uow.db(), news, carrier.pace()).await?;
        let mut moved: HashMap<Uuid, MovedRow> = moved.into_iter().map(|row| (row.order_id, row)).collect();
        let count = moved.len();
        for (News { order_id, step, .. }, key) in news.iter().zip(&keys) {
            let Some(row) = moved.remove(order_id) else { continue };
            let cause = Cause {
                correlation_id: row.correlation_id,
                causation_id: Some(row.released_by),
                traceparent: row.traceparent,
            };
            let order_id = *order_id;
            if step.dispatches() {
                let event = Dispatched { order_id, tracking_number: row.tracking_number };
                uow.publish(key, &cause, &event)?;
            }
            if step.delivers() {
                uow.publish(key, &cause, &Delivered { order_id })?;
            }
        }
        uow.commit().await?;
        debug!(asked = news.len(), moved = count, "parcels have moved");
        Ok(())
    }
}
