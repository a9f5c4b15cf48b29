//! Asks the carrier what became of parcels, and tells it. Any number of replicas may ask: a shipment is taken by one at a
//! time, and moves only from where it stood when the carrier was asked, so that each move is told once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::shipping::{Delivered, Dispatched};
use shared::envelope::Cause;
use shared::fault::{Class, Fault};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::Shipments;
use crate::carrier::{Carrier, NoAnswer, Parcel};
use crate::domain::{Move, Status};
use crate::store::{self, MovedRow};

/// How often due shipments are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most shipments in one question and in one transaction.
const BATCH: i64 = 500;
/// How long the carrier may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shipment is left alone after the carrier was asked: by other replicas meanwhile, and by all if there was no
/// news, or no answer. Longer than [`CALL_TIMEOUT`], so that two rarely ask at once; if they did, one of them would find
/// that the shipment has moved.
const LEASE: Duration = Duration::from_secs(10);

/// Follows released parcels.
pub(crate) struct Tracker<K> {
    pub(super) shipments: Arc<Shipments<K>>,
}

impl<K: Carrier> Tracker<K> {
    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            while !stop.is_cancelled() {
                match self.look().await {
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

    /// Asks about a batch of due shipments and writes what is new. How many were due.
    async fn look(&self) -> Result<i64, Fault> {
        let Shipments { carrier, db } = &*self.shipments;
        let mut claimed = db.write(&[]).await?;
        let now = claimed.now();
        let due = store::claim_due(claimed.db(), LEASE, BATCH).await?;
        claimed.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let count = due.len() as i64;
        let mut asked = Vec::with_capacity(due.len());
        let mut parcels = Vec::with_capacity(due.len());
        for row in due {
            // The table's check lets no other text in.
            let Some(status) = Status::parse(&row.status) else { continue };
            asked.push((row.order_id, status));
            parcels.push(Parcel { tracking_number: row.tracking_number, released_at: row.released_at });
        }
        let said = tokio::time::timeout(CALL_TIMEOUT, carrier.track(&parcels, now)).await;
        let said = said.unwrap_or(Err(NoAnswer)).map_err(Fault::retry)?;
        let news = asked.into_iter().zip(said);
        let news = news.filter_map(|((order, status), is)| Some((order, Move::of(status, is)?)));
        self.write_all(news.collect()).await?;
        Ok(count)
    }

    async fn write_all(&self, moves: Vec<(Uuid, Move)>) -> Result<(), Fault> {
        match self.write(&moves).await {
            Err(fault) if fault.class() == Class::Permanent => {
                // One of them spoils it for all: each on its own.
                for one in moves {
                    if let Err(fault) = self.write(&[one]).await {
                        error!(order = %one.0, %fault, "a parcel's move could not be written; the carrier is asked again");
                    }
                }
                Ok(())
            }
            ended => ended,
        }
    }

    async fn write(&self, moves: &[(Uuid, Move)]) -> Result<(), Fault> {
        if moves.is_empty() {
            return Ok(());
        }
        let Shipments { carrier, db } = &*self.shipments;
        let keys: Vec<String> = moves.iter().map(|(order, _)| order.to_string()).collect();
        let mut claimed = db.write(&keys).await?;
        // What was stopped meanwhile, or moved by another replica, is not among them.
        let moved = store::save_moves(claimed.db(), moves, carrier.pace()).await?;
        let mut moved: HashMap<Uuid, MovedRow> = moved.into_iter().map(|row| (row.order_id, row)).collect();
        let count = moved.len();
        for ((order_id, step), key) in moves.iter().zip(&keys) {
            let Some(row) = moved.remove(order_id) else { continue };
            let cause = Cause {
                correlation_id: row.correlation_id,
                causation_id: Some(row.released_by),
                traceparent: row.traceparent,
            };
            let order_id = *order_id;
            if step.dispatches() {
                let event = Dispatched { order_id, tracking_number: row.tracking_number };
                claimed.publish(key, &cause, &event)?;
            }
            if step.delivers() {
                claimed.publish(key, &cause, &Delivered { order_id })?;
            }
        }
        claimed.commit().await?;
        debug!(asked = moves.len(), moved = count, "parcels have moved");
        Ok(())
    }
}
