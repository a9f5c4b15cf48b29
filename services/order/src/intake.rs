//! Takes orders in. Orders that arrive together are written in one transaction: the order, its timeline, the answer under
//! its Idempotency-Key, and the event that starts the saga. A lone order does not wait for others.

mod batch;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use schemas::common::PricedLine;
use shared::db::Db;
use shared::fault::Fault;
use shared::service::problem::{Invalid, Problem};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::NewOrder;

/// Most orders in one transaction.
const BATCH: usize = 200;
/// Most orders that may wait for a transaction. The intake refuses orders beyond that.
const QUEUE: usize = 2000;

/// An order to be placed, and the request that waits for the answer.
pub(crate) struct Placement {
    pub order: NewOrder,
    pub key: Option<Key>,
    pub traceparent: Option<String>,
    answer: oneshot::Sender<Result<Placed, Problem>>,
}

/// An Idempotency-Key, and the hash that identifies its request.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: String,
    pub request_hash: Vec<u8>,
}

/// An order that was placed, now or by an earlier request with the same key.
#[derive(Debug)]
pub(crate) struct Placed {
    pub id: Uuid,
    /// The body of the answer. Every repetition of the request gets the same.
    pub answer: String,
    pub replayed: bool,
}

/// The intake, for the requests that place orders.
#[derive(Clone)]
pub(crate) struct OrderIntake {
    queue: mpsc::Sender<Placement>,
    in_flight: Arc<Mutex<HashSet<String>>>,
}

/// Writes the orders of the intake to the database.
pub(crate) struct OrderWriter {
    db: Db,
    queue: mpsc::Receiver<Placement>,
}

/// Returns the two sides of the intake: where requests place orders, and what writes them.
pub(crate) fn intake(db: Db) -> (OrderIntake, OrderWriter) {
    let (send, queue) = mpsc::channel(QUEUE);
    (OrderIntake { queue: send, in_flight: Arc::default() }, OrderWriter { db, queue })
}

/// An Idempotency-Key whose request is in flight. Until it is dropped, other requests with the key are refused.
#[derive(Debug)]
pub(crate) struct InFlightKey {
    key: Option<String>,
    in_flight: Arc<Mutex<HashSet<String>>>,
}

impl Drop for InFlightKey {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(key);
        }
    }
}

impl OrderIntake {
    /// Reserves an Idempotency-Key for its request, until the returned guard is dropped.
    ///
    /// # Errors
    /// 409 if another request with the key is in flight.
    pub(crate) fn reserve_key(&self, key: Option<&str>) -> Result<InFlightKey, Problem> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(key) = key
            && !in_flight.insert(key.to_owned())
        {
            return Err(still_running());
        }
        Ok(InFlightKey { key: key.map(str::to_owned), in_flight: Arc::clone(&self.in_flight) })
    }

    /// Places an order.
    ///
    /// # Errors
    /// If the order is invalid, if its key was used for another request, or if the service can't take it now.
    pub(crate) async fn place(
        &self,
        order: NewOrder,
        key: Option<Key>,
        traceparent: Option<String>,
    ) -> Result<Placed, Problem> {
        let (answer, answered) = oneshot::channel();
        let placement = Placement { order, key, traceparent, answer };
        self.queue.try_send(placement).map_err(|_| busy())?;
        answered.await.unwrap_or_else(|_| Err(Fault::retry("the writer of orders has ended").into()))
    }
}

fn still_running() -> Problem {
    let title = "A request with this Idempotency-Key is still running";
    Problem::new(StatusCode::CONFLICT, "/problems/request-running", title)
        .detail("repeat it when the first one has ended; it will get the same answer")
        .retry_after(1)
}

fn busy() -> Problem {
    overloaded("nothing was changed; try again", 1)
}

/// The refusal of an order when the service has too much to do. Nothing of the order was written.
pub(crate) fn overloaded(detail: impl Into<String>, retry_after: u32) -> Problem {
    let title = "The service has too much to do";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/overloaded", title)
        .detail(detail)
        .retry_after(retry_after)
}

impl OrderWriter {
    /// Writes orders until `stop`, and then those that still wait.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
                () = stop.cancelled() => {
                    self.queue.close();
                    if self.queue.recv_many(&mut batch, BATCH).await == 0 {
                        return Ok(());
                    }
                }
            }
            batch::place(&self.db, std::mem::take(&mut batch)).await;
        }
    }
}

/// An order with its prices, ready to be written.
pub(crate) struct Priced {
    pub items: Vec<PricedLine>,
    pub total: schemas::common::Money,
}

/// The error about a line with an unknown product.
pub(crate) fn unknown_product(index: usize, sku: &str) -> Invalid {
    let detail = format!("there is no product `{sku}`; GET /products lists them");
    Invalid::new(format!("/items/{index}/sku"), detail)
}
