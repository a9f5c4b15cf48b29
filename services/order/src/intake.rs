//! Places orders. Requests that arrive together are written in one transaction: order, timeline, the answer under its
//! Idempotency-Key, and the event that starts the saga. A lone request waits for nobody.

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
/// Requests that may wait for a transaction; beyond it they are turned away.
const QUEUE: usize = 2000;

/// An order that someone waits for.
pub(crate) struct Placement {
    pub order: NewOrder,
    pub key: Option<Key>,
    pub traceparent: Option<String>,
    answer: oneshot::Sender<Result<Placed, Problem>>,
}

/// An Idempotency-Key with what identifies the request.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: String,
    pub request_hash: Vec<u8>,
}

/// An order that was placed, now or before under the same key.
#[derive(Debug)]
pub(crate) struct Placed {
    pub id: Uuid,
    /// The body of the answer, the same however often the request is repeated.
    pub answer: String,
    pub replayed: bool,
}

/// Takes orders in.
#[derive(Clone)]
pub(crate) struct OrderIntake {
    queue: mpsc::Sender<Placement>,
    running: Arc<Mutex<HashSet<String>>>,
}

/// Writes them down.
pub(crate) struct OrderWriter {
    db: Db,
    queue: mpsc::Receiver<Placement>,
}

/// The two sides of the counter.
pub(crate) fn counter(db: Db) -> (OrderIntake, OrderWriter) {
    let (send, queue) = mpsc::channel(QUEUE);
    (OrderIntake { queue: send, running: Arc::default() }, OrderWriter { db, queue })
}

/// While it lives, other requests with the key are told that it is under way.
#[derive(Debug)]
pub(crate) struct InFlightKey {
    key: Option<String>,
    running: Arc<Mutex<HashSet<String>>>,
}

impl Drop for InFlightKey {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(key);
        }
    }
}

impl OrderIntake {
    /// Reserves an Idempotency-Key for as long as its request runs.
    ///
    /// # Errors
    /// 409 if a request with the key is running.
    pub(crate) fn run(&self, key: Option<&str>) -> Result<InFlightKey, Problem> {
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(key) = key
            && !running.insert(key.to_owned())
        {
            return Err(still_running());
        }
        Ok(InFlightKey { key: key.map(str::to_owned), running: Arc::clone(&self.running) })
    }

    /// Places an order.
    ///
    /// # Errors
    /// What is wrong with it, or that the service can't take it now.
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

/// The refusal of an order of which nothing was written.
pub(crate) fn overloaded(detail: impl Into<String>, retry_after: u32) -> Problem {
    let title = "The service has too much to do";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/overloaded", title)
        .detail(detail)
        .retry_after(retry_after)
}

impl OrderWriter {
    /// Writes orders down until `stop`, and then those that are still waiting.
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

/// The error about a line whose product is not known.
pub(crate) fn unknown_product(index: usize, sku: &str) -> Invalid {
    let detail = format!("there is no product `{sku}`; GET /products lists them");
    Invalid::new(format!("/items/{index}/sku"), detail)
}
