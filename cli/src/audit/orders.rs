//! Compares the states that every order has in all services.

use std::time::Duration;

use anyhow::Context;
use schemas::SERVICES;
use schemas::order::OrderCreated;
use serde_json::Value;
use shared::envelope::Message;
use uuid::Uuid;

use super::merge::{Merge, Page, Row};
use super::order_rules::{Judgement, ORDER, SAGAS, judge};
use super::pending::Pending;
use crate::api::Api;
use crate::json::array;

/// How many rows a page has.
const PAGE: usize = 2000;
/// The most doubtful orders of each sort that are read again. More of them would not say more.
const MOST: usize = 200;
/// The event that begins the saga of an order.
const BEGINS: &str = OrderCreated::TYPE;

/// The result of the comparison.
#[derive(Debug, Default)]
pub struct Orders {
    /// How many orders are as they must be.
    pub fitting: u64,
    /// How many are under way, and neither late, stuck nor parked. If the accepted orders are known, only they count.
    pub under_way: u64,
    /// What all orders under way contribute to the sums.
    pub pending: Pending,
    /// Ids whose states contradict each other, each with the contradiction. An id may belong to no order at all.
    pub wrong: Vec<(Uuid, String)>,
    /// How many more ids seemed to be wrong and were not read again. Nothing can be said of them.
    pub unread: u64,
    /// Orders that are under way for longer than the deadline, and neither stuck nor parked.
    pub late: Vec<Uuid>,
    /// Orders that were accepted longer ago than the deadline, and whose saga has not begun.
    pub unbegun: Vec<Uuid>,
    /// Orders that were accepted and do not exist.
    pub missing: Vec<Uuid>,
    /// How many more orders seemed to be missing and were not asked for.
    pub unasked: usize,
}

/// Orders that are read again before they are judged.
#[derive(Debug, Default)]
struct Doubtful {
    suspects: Vec<Uuid>,
    late: Vec<Uuid>,
}

impl Doubtful {
    /// Counts an order, or keeps it to be read again.
    fn sort(&mut self, found: &mut Orders, id: Uuid, judged: &Judgement, deadline: i64, is_ours: bool) {
        match judged {
            Judgement::Fits => found.fitting += 1,
            Judgement::UnderWay { stuck: true, .. } => {}
            Judgement::UnderWay { .. } if !is_ours => {}
            Judgement::UnderWay { age, .. } if *age > deadline && self.late.len() < MOST => {
                self.late.push(id);
            }
            Judgement::UnderWay { .. } => found.under_way += 1,
            Judgement::Wrong(_) if self.suspects.len() < MOST => self.suspects.push(id),
            Judgement::Wrong(_) => found.unread += 1,
        }
    }
}

/// Compares all orders. `accepted` are orders that must exist, sorted by id.
///
/// The services are read one after the other while orders move on. An order whose states contradict each other is
/// therefore read again on its own, in a sequence that can't mislead: see [`again`].
pub async fn compare(api: &Api, deadline: Duration, accepted: &[Uuid]) -> anyhow::Result<Orders> {
    let deadline = i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX);
    let mut found = Orders::default();
    let mut doubtful = Doubtful::default();
    // Whoever knows which orders were accepted asks for their ends alone.
    let is_ours = |id: &Uuid| accepted.is_empty() || accepted.binary_search(id).is_ok();
    let (mut merge, mut wanted) = (Merge::new(), accepted.iter().copied().peekable());
    loop {
        if let Some((service, after)) = merge.hungry() {
            merge.feed(service, page(api, service, after, PAGE).await?);
            continue;
        }
        let Some((id, row)) = merge.pop() else { break };
        if row.0.contains_key(ORDER) {
            while let Some(wanted) = wanted.next_if(|wanted| *wanted <= id) {
                if wanted != id {
                    found.missing.push(wanted);
                }
            }
        }
        let judged = judge(&row);
        if matches!(judged, Judgement::UnderWay { .. }) {
            found.pending.add(id, &row);
        }
        doubtful.sort(&mut found, id, &judged, deadline, is_ours(&id));
    }
    found.missing.extend(wanted);
    found.unasked = found.missing.len().saturating_sub(MOST);
    found.missing.truncate(MOST);
    let mut missing = Vec::new();
    for id in std::mem::take(&mut found.missing) {
        if api.find("order", &format!("/orders/{id}")).await?.is_none() {
            missing.push(id);
        }
    }
    found.missing = missing;
    for id in doubtful.suspects {
        match again(api, id).await? {
            Judgement::Fits => found.fitting += 1,
            Judgement::UnderWay { .. } => {
                found.under_way += u64::from(is_ours(&id));
                found.pending.add_moving(id);
            }
            Judgement::Wrong(what) => found.wrong.push((id, what)),
        }
    }
    for id in doubtful.late {
        match again(api, id).await? {
            Judgement::Fits => found.fitting += 1,
            Judgement::UnderWay { stuck: true, .. } => {}
            // Only the event that begins the saga excuses that it has not begun. Another one may be parked because of it.
            Judgement::UnderWay { begun: false, .. } if !is_parked(api, id, Some(BEGINS)).await? => {
                found.unbegun.push(id);
            }
            Judgement::UnderWay { .. } if is_parked(api, id, None).await? => {}
            Judgement::UnderWay { .. } => found.late.push(id),
            Judgement::Wrong(what) => found.wrong.push((id, what)),
        }
    }
    Ok(found)
}

async fn page(api: &Api, service: &str, after: Uuid, limit: usize) -> anyhow::Result<Page> {
    let path = format!("/audit/orders?after={after}&limit={limit}");
    let page = api.get(service, &path).await.with_context(|| format!("the orders of {service}"))?;
    serde_json::from_value(page).with_context(|| format!("the orders of {service} are not in pages"))
}

/// Reads one order again. Its sagas and the order are read first: a saga that has ended had all its answers, so the other
/// services can't be behind it. Both are read once more at the end, because something may have begun meanwhile. An order
/// that is missing both times did not exist in between either.
async fn again(api: &Api, id: Uuid) -> anyhow::Result<Judgement> {
    let mut row = Row::default();
    let others = SERVICES.into_iter().filter(|service| ![SAGAS, ORDER].contains(service));
    for service in [SAGAS, ORDER].into_iter().chain(others) {
        read_into(&mut row, api, service, id).await?;
    }
    if let judged @ (Judgement::Fits | Judgement::UnderWay { .. }) = judge(&row) {
        return Ok(judged);
    }
    let mut later = row.clone();
    for service in [SAGAS, ORDER] {
        read_into(&mut later, api, service, id).await?;
    }
    // An order that has changed meanwhile is under way.
    if same_states(&row, &later) {
        Ok(judge(&later))
    } else {
        Ok(Judgement::UnderWay { age: 0, stuck: false, begun: true })
    }
}

/// Reads the state of one order in one service.
async fn read_into(row: &mut Row, api: &Api, service: &'static str, id: Uuid) -> anyhow::Result<()> {
    let before = Uuid::from_u128(id.as_u128().saturating_sub(1));
    let page = page(api, service, before, 1).await?;
    match page.standings.into_iter().find(|standing| standing.id == id) {
        Some(standing) => row.0.insert(service, standing),
        None => row.0.remove(service),
    };
    Ok(())
}

/// Whether two readings have the same states. Their ages differ.
fn same_states(one: &Row, other: &Row) -> bool {
    SERVICES.into_iter().all(|service| one.states(service) == other.states(service))
}

/// Whether a service has parked a message about this order, of this type if one is given.
async fn is_parked(api: &Api, id: Uuid, kind: Option<&str>) -> anyhow::Result<bool> {
    for service in SERVICES {
        let Some(page) = api.find(service, &format!("/parked/{id}?limit=200")).await? else { continue };
        let parked = |message: &Value| {
            message["status"] == "parked" && kind.is_none_or(|kind| message["type"] == kind)
        };
        if array(&page["messages"]).iter().any(parked) || !page["next"].is_null() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_are_not_read_again_are_counted() {
        let (mut found, mut doubtful) = (Orders::default(), Doubtful::default());
        let wrong = Judgement::Wrong("x".to_owned());
        let late = Judgement::UnderWay { age: 11, stuck: false, begun: true };
        for id in 0..MOST as u128 + 3 {
            doubtful.sort(&mut found, Uuid::from_u128(id), &wrong, 10, true);
            doubtful.sort(&mut found, Uuid::from_u128(id), &late, 10, true);
            doubtful.sort(&mut found, Uuid::from_u128(id), &late, 10, false);
        }
        assert_eq!((doubtful.suspects.len(), doubtful.late.len()), (MOST, MOST));
        assert_eq!((found.unread, found.under_way), (3, 3), "so neither 3 nor 4 is said to hold");
    }
}
