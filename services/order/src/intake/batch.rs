//! Writes all waiting orders in one transaction.

use std::collections::{HashMap, HashSet};

use schemas::common::PricedLine;
use schemas::currency;
use schemas::order::OrderCreated;
use shared::db::Db;
use shared::deadline::limited;
use shared::envelope::{Cause, Message, new_id};
use shared::fault::Fault;
use shared::isolate::together_or_each;
use shared::outbox::Draft;
use shared::service::http::idempotency;
use shared::service::problem::{Invalid, Problem};
use shared::unit_of_work::UnitOfWork;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Key, Placed, Placement, Priced, still_running, unknown_product};
use crate::domain::{NewOrder, Order, Status, total};
use crate::metrics;
use crate::store::{self, AnswerRow, NewRow, ProductRow};

/// The answer to one request.
type Verdict = Result<Placed, Problem>;

/// Places the orders and answers each.
pub(super) async fn place(db: &Db, batch: Vec<Placement>) {
    let write = async |batch: Vec<Placement>| {
        let verdicts = limited(write(db, &batch)).await;
        (batch, verdicts)
    };
    together_or_each(batch, write, answer).await;
}

fn answer(placements: Vec<Placement>, verdicts: Result<Vec<Verdict>, Fault>) {
    let verdicts = verdicts.unwrap_or_else(|fault| {
        let problem = Problem::from(fault);
        placements.iter().map(|_| Err(problem.clone())).collect()
    });
    for (placement, verdict) in placements.into_iter().zip(verdicts) {
        // It fails if the client has hung up. A repetition of the request finds the order under its key.
        let _ = placement.answer.send(verdict);
    }
}

/// What the database knows about the orders of a batch.
struct Known {
    /// What was answered under their Idempotency-Keys before.
    answers: HashMap<String, AnswerRow>,
    products: HashMap<String, ProductRow>,
}

/// An order that is about to be written.
struct Accepted<'p> {
    order: Order,
    asked: &'p NewOrder,
    key: Option<&'p Key>,
    traceparent: Option<&'p str>,
    answer: String,
}

/// What is to be done with an order of a batch.
enum Decision<'p> {
    Write(Box<Accepted<'p>>),
    /// Nothing is written.
    Answer(Verdict),
}

/// Writes the orders in one transaction, and returns the answers in the order of the batch.
async fn write(db: &Db, batch: &[Placement]) -> Result<Vec<Verdict>, Fault> {
    let ids: Vec<Uuid> = batch.iter().map(|_| new_id()).collect();
    let mut uow = db.write(&locks(batch, &ids)).await?;
    let known = look_up(&mut uow, batch).await?;
    let now = uow.now();

    let mut verdicts = Vec::with_capacity(batch.len());
    let mut accepted = Vec::with_capacity(batch.len());
    let mut keys = HashSet::new();
    for (placement, id) in batch.iter().zip(ids) {
        if let Some(key) = &placement.key
            && !keys.insert(&key.text)
        {
            // The client of the first request hung up while its order was queued, which dropped the guard of the key.
            verdicts.push(Err(still_running()));
            continue;
        }
        match decide(placement, id, now, &known)? {
            Decision::Write(order) => {
                verdicts.push(Ok(Placed { id, answer: order.answer.clone(), replayed: false }));
                accepted.push(*order);
            }
            Decision::Answer(verdict) => verdicts.push(verdict),
        }
    }
    if accepted.is_empty() {
        uow.abandon().await?;
        return Ok(verdicts);
    }
    save(&mut uow, &accepted)?;
    uow.commit().await?;
    metrics::ORDERS_PLACED.counter(&[]).increment(accepted.len() as u64);
    Ok(verdicts)
}

/// Returns the locks of a batch: those of its new orders, and those of its Idempotency-Keys.
fn locks(batch: &[Placement], ids: &[Uuid]) -> Vec<String> {
    let lock = |key: &Key| idempotency::lock_of(&key.text);
    let keys = batch.iter().filter_map(|placement| placement.key.as_ref()).map(lock);
    ids.iter().map(Uuid::to_string).chain(keys).collect()
}

async fn look_up(uow: &mut UnitOfWork, batch: &[Placement]) -> Result<Known, Fault> {
    let keys: Vec<&str> = batch.iter().filter_map(|p| p.key.as_ref()).map(|key| key.text.as_str()).collect();
    let answers = if keys.is_empty() { HashMap::new() } else { store::find_answers(uow.db(), &keys).await? };
    let mut skus: Vec<&str> = batch
        .iter()
        .flat_map(|placement| placement.order.items.iter().map(|line| line.sku.as_str()))
        .collect();
    skus.sort_unstable();
    skus.dedup();
    let products = store::find_products(uow.db(), &skus).await?;
    Ok(Known { answers, products })
}

fn decide<'p>(
    placement: &'p Placement,
    id: Uuid,
    now: OffsetDateTime,
    known: &Known,
) -> Result<Decision<'p>, Fault> {
    if let Some(key) = &placement.key
        && let Some(before) = known.answers.get(&key.text)
    {
        return Ok(Decision::Answer(replay(key, before)));
    }
    let priced = match price(&placement.order, &known.products) {
        Ok(priced) => priced,
        Err(errors) => return Ok(Decision::Answer(Err(Problem::invalid(errors)))),
    };
    let order = order(id, &placement.order, priced, now);
    let answer = serde_json::to_string(&order)?;
    Ok(Decision::Write(Box::new(Accepted {
        order,
        asked: &placement.order,
        key: placement.key.as_ref(),
        traceparent: placement.traceparent.as_deref(),
        answer,
    })))
}

/// Returns the answer that an earlier request with the key got.
fn replay(key: &Key, before: &AnswerRow) -> Verdict {
    if before.request_hash != key.request_hash {
        let detail = format!("it belongs to the order {}; use a new key for a new order", before.order_id);
        return Err(idempotency::reused(detail));
    }
    Ok(Placed { id: before.order_id, answer: before.answer.clone(), replayed: true })
}

/// Adds the prices to the lines of an order.
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
    if currency::decimals(&total.currency).is_none() {
        // Only a product of an earlier release can have such a price.
        let detail = format!("are priced in `{}`, which is no currency", total.currency.escape_debug());
        return Err(vec![Invalid::new("/items", detail)]);
    }
    Ok(Priced { items, total })
}

fn order(id: Uuid, asked: &NewOrder, priced: Priced, now: OffsetDateTime) -> Order {
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

/// Writes the orders, their events and timelines, and the answers under their keys.
fn save(uow: &mut UnitOfWork, accepted: &[Accepted<'_>]) -> Result<(), Fault> {
    let rows: Vec<NewRow<'_>> = accepted
        .iter()
        .map(|new| NewRow {
            order: &new.order,
            shipping_address: &new.asked.shipping_address,
            email: new.asked.email.as_deref(),
        })
        .collect();
    store::insert_orders(uow, &rows);
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
        // The saga has the id of its order.
        let cause = Cause::request(*id, new.traceparent.map(str::to_owned));
        let message = uow.publish(&id.to_string(), &cause, Draft::from(&event).version(new.order.version))?;
        timeline.push((*id, message, now, "order", OrderCreated::TYPE));
    }
    store::append_timeline(uow, &timeline);
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
        store::insert_answers(uow, &answers);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AskedLine;

    fn priced_in(currency: &str) -> Result<Priced, Vec<Invalid>> {
        let items = vec![AskedLine { sku: "lamp".to_owned(), quantity: 2 }];
        let lamp = ProductRow {
            sku: "lamp".to_owned(),
            name: "Lamp".to_owned(),
            price_amount: 1905,
            price_currency: currency.to_owned(),
            version: 1,
        };
        let products = HashMap::from([("lamp".to_owned(), lamp)]);
        price(&NewOrder { items, ..NewOrder::default() }, &products)
    }

    #[test]
    fn nothing_is_sold_for_what_is_no_currency() {
        assert_eq!(priced_in("JPY").map(|priced| priced.total.amount).ok(), Some(3810));
        let errors = priced_in("QQQ").err().expect("no currency");
        assert!(matches!(errors.as_slice(), [only] if only.pointer == "/items"), "{errors:?}");
    }
}
