//! One transaction for all the orders that wait.

use std::collections::{HashMap, HashSet};

use axum::http::StatusCode;
use schemas::common::PricedLine;
use schemas::order::OrderCreated;
use shared::db::Db;
use shared::envelope::{Cause, Message, new_id};
use shared::fault::{Class, Fault};
use shared::outbox::Draft;
use shared::service::problem::{Invalid, Problem};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{Key, Placed, Placement, Priced, still_running, unknown_product};
use crate::domain::{NewOrder, Order, Status, total};
use crate::store::{self, AnswerRow, NewRow, ProductRow};

type Verdict = Result<Placed, Problem>;

/// Places the orders and answers each.
pub(super) async fn place(db: &Db, batch: Vec<Placement>) {
    match write(db, &batch).await {
        Ok(verdicts) => {
            for (placement, verdict) in batch.into_iter().zip(verdicts) {
                // Whoever has hung up finds the order under its key.
                let _ = placement.answer.send(verdict);
            }
        }
        Err(fault) if fault.class() == Class::Permanent && batch.len() > 1 => {
            // One of them spoils it for all: each on its own.
            for placement in batch {
                Box::pin(place(db, vec![placement])).await;
            }
        }
        Err(fault) => {
            let problem = Problem::from(fault);
            for placement in batch {
                let _ = placement.answer.send(Err(problem.clone()));
            }
        }
    }
}

/// An order that is about to be written.
struct Accepted<'p> {
    order: Order,
    asked: &'p NewOrder,
    key: Option<&'p Key>,
    traceparent: Option<&'p str>,
    answer: String,
}

async fn write(db: &Db, batch: &[Placement]) -> Result<Vec<Verdict>, Fault> {
    let ids: Vec<Uuid> = batch.iter().map(|_| new_id()).collect();
    let lock = |key: &Key| format!("idempotency-key/{}", key.text);
    let mut locks: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    locks.extend(batch.iter().filter_map(|placement| placement.key.as_ref().map(lock)));
    let mut uow = db.write(&locks).await?;

    let keys: Vec<&str> = batch.iter().filter_map(|p| p.key.as_ref()).map(|key| key.text.as_str()).collect();
    let known = if keys.is_empty() { HashMap::new() } else { store::find_answers(uow.db(), &keys).await? };
    let mut skus: Vec<&str> = batch
        .iter()
        .flat_map(|placement| placement.order.items.iter().map(|line| line.sku.as_str()))
        .collect();
    skus.sort_unstable();
    skus.dedup();
    let products = store::find_products(uow.db(), &skus).await?;

    let mut verdicts = Vec::with_capacity(batch.len());
    let mut accepted = Vec::with_capacity(batch.len());
    let mut keys_here = HashSet::new();
    for (placement, id) in batch.iter().zip(ids) {
        if let Some(key) = &placement.key
            && !keys_here.insert(&key.text)
        {
            // The first one's client hung up while it was queued, and its guard went with it.
            verdicts.push(Err(still_running()));
            continue;
        }
        if let Some(key) = &placement.key
            && let Some(before) = known.get(&key.text)
        {
            verdicts.push(replay(key, before));
            continue;
        }
        match price(&placement.order, &products) {
            Ok(priced) => {
                let order = order(id, &placement.order, priced, uow.now());
                let answer = serde_json::to_string(&order)?;
                verdicts.push(Ok(Placed { id, answer: answer.clone(), replayed: false }));
                accepted.push(Accepted {
                    order,
                    asked: &placement.order,
                    key: placement.key.as_ref(),
                    traceparent: placement.traceparent.as_deref(),
                    answer,
                });
            }
            Err(errors) => verdicts.push(Err(Problem::invalid(errors))),
        }
    }
    if accepted.is_empty() {
        uow.abandon().await?;
        return Ok(verdicts);
    }
    save(&mut uow, &accepted).await?;
    uow.commit().await?;
    metrics::counter!("amends_orders_placed_total").increment(accepted.len() as u64);
    Ok(verdicts)
}

fn replay(key: &Key, before: &AnswerRow) -> Verdict {
    if before.request_hash != key.request_hash {
        let title = "The Idempotency-Key was used for another request";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/idempotency-key-reused",
            title,
        )
        .detail(format!("it belongs to the order {}; use a new key for a new order", before.order_id)));
    }
    Ok(Placed { id: before.order_id, answer: before.answer.clone(), replayed: true })
}

/// Puts prices on an order.
fn price(order: &NewOrder, products: &HashMap<String, ProductRow>) -> Result<Priced, Vec<Invalid>> {
    let mut errors = Vec::new();
    let mut items = Vec::with_capacity(order.items.len());
    for (index, line) in order.items.iter().enumerate() {
        match products.get(&line.sku) {
            Some(product) => items.push(PricedLine {
                sku: line.sku.clone(),
                quantity: line.quantity,
                unit_price: product.price(),
            }),
            None => errors.push(unknown_product(index, &line.sku)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let several = || vec![Invalid::new("/items", "are all priced in one currency")];
    let total = total(&items).ok_or_else(several)?;
    Ok(Priced { items, total })
}

fn order(id: Uuid, asked: &NewOrder, priced: Priced, now: time::OffsetDateTime) -> Order {
    Order {
        id,
        status: Status::Pending,
        customer_id: asked.customer_id.clone(),
        items: priced.items,
        total: priced.total,
        reason: None,
        detail: None,
        cancellation: None,
        cancellation_reason: None,
        returning: None,
        created_at: now,
        version: 1,
    }
}

async fn save(uow: &mut UnitOfWork, accepted: &[Accepted<'_>]) -> Result<(), Fault> {
    let rows: Vec<NewRow<'_>> = accepted
        .iter()
        .map(|new| NewRow {
            order: &new.order,
            shipping_address: &new.asked.shipping_address,
            email: new.asked.email.as_deref(),
        })
        .collect();
    store::insert_orders(uow.db(), &rows).await?;
    let now = uow.now();
    let mut timeline = Vec::with_capacity(accepted.len());
    for new in accepted {
        let Order { id, items, total, .. } = &new.order;
        let event = OrderCreated {
            order_id: *id,
            customer_id: new.asked.customer_id.clone(),
            items: items.clone(),
            total: total.clone(),
            payment_token: new.asked.payment_token.clone(),
            shipping_address: new.asked.shipping_address.clone(),
            email: new.asked.email.clone(),
        };
        // The saga is called like its order.
        let cause = Cause::request(*id, new.traceparent.map(str::to_owned));
        let message = uow.publish(&id.to_string(), &cause, Draft::from(&event).version(new.order.version))?;
        timeline.push((*id, message, now, "order", OrderCreated::TYPE));
    }
    store::append_timeline(uow.db(), &timeline).await?;
    let answers: Vec<AnswerRow> = accepted
        .iter()
        .filter_map(|new| {
            let key = new.key?;
            Some(AnswerRow {
                key: key.text.clone(),
                request_hash: key.request_hash.clone(),
                order_id: new.order.id,
                answer: new.answer.clone(),
            })
        })
        .collect();
    if !answers.is_empty() {
        store::insert_answers(uow.db(), &answers).await?;
    }
    Ok(())
}
