//! Every order, held against what all services have about it.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use uuid::Uuid;

use super::merge::{Merge, Page, Row, SERVICES};
use super::order_rules::{Judgement, judge};
use crate::api::Api;
use crate::json::array;

/// How many rows a page has.
const PAGE: usize = 2000;
/// Most orders of each sort that are looked at again. More would say no more.
const MOST: usize = 200;

/// What came of it.
#[derive(Debug, Default)]
pub struct Orders {
    /// How many orders fit.
    pub fitting: u64,
    /// How many are under way, and neither late, stuck nor parked.
    pub under_way: u64,
    /// Orders, and things without an order, of which something does not fit.
    pub wrong: Vec<(Uuid, String)>,
    /// How many more did not seem to fit than were looked at again. Nothing can be said of them.
    pub unread: u64,
    /// Orders that are under way for longer than they may, and neither stuck nor parked.
    pub late: Vec<Uuid>,
    /// Orders that were accepted and are not there.
    pub missing: Vec<Uuid>,
    /// How many more did not seem to be there than were asked for.
    pub unasked: usize,
}

/// What is looked at again.
#[derive(Debug, Default)]
struct Doubtful {
    suspects: Vec<Uuid>,
    late: Vec<Uuid>,
}

impl Doubtful {
    /// Counts an order, or keeps it to be looked at again.
    fn sort(&mut self, found: &mut Orders, id: Uuid, judged: &Judgement, deadline: i64) {
        match judged {
            Judgement::Fits => found.fitting += 1,
            Judgement::UnderWay { stuck: true, .. } => {}
            Judgement::UnderWay { age, .. } if *age > deadline && self.late.len() < MOST => {
                self.late.push(id);
            }
            Judgement::UnderWay { .. } => found.under_way += 1,
            Judgement::Wrong(_) if self.suspects.len() < MOST => self.suspects.push(id),
            Judgement::Wrong(_) => found.unread += 1,
        }
    }
}

/// Compares all orders. `accepted` are orders that must be there, in the order of their ids.
///
/// The services are read one after the other while orders move on, so what does not fit is read again by itself, in an
/// order in which it can't be mistaken: see [`again`].
pub async fn compare(api: &Api, deadline: Duration, accepted: &[Uuid]) -> anyhow::Result<Orders> {
    let deadline = i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX);
    let mut found = Orders::default();
    let mut doubtful = Doubtful::default();
    let (mut merge, mut accepted) = (Merge::default(), accepted.iter().copied().peekable());
    loop {
        if let Some((service, after)) = merge.hungry() {
            merge.feed(service, page(api, service, after, PAGE).await?);
            continue;
        }
        let Some((id, row)) = merge.pop() else { break };
        if row.0[0].is_some() {
            while let Some(wanted) = accepted.next_if(|wanted| *wanted <= id) {
                if wanted != id {
                    found.missing.push(wanted);
                }
            }
        }
        doubtful.sort(&mut found, id, &judge(&row), deadline);
    }
    found.missing.extend(accepted);
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
            Judgement::UnderWay { .. } => found.under_way += 1,
            Judgement::Wrong(what) => found.wrong.push((id, what)),
        }
    }
    for id in doubtful.late {
        match again(api, id).await? {
            Judgement::Fits => found.fitting += 1,
            Judgement::UnderWay { stuck: true, .. } => {}
            Judgement::UnderWay { .. } if is_parked(api, id).await? => {}
            Judgement::UnderWay { .. } => found.late.push(id),
            Judgement::Wrong(what) => found.wrong.push((id, what)),
        }
    }
    Ok(found)
}

async fn page(api: &Api, service: usize, after: Uuid, limit: usize) -> anyhow::Result<Page> {
    let path = format!("/audit/orders?after={after}&limit={limit}");
    let service = SERVICES[service];
    let page = api.get(service, &path).await.with_context(|| format!("the orders of {service}"))?;
    serde_json::from_value(page).with_context(|| format!("the orders of {service} are not in pages"))
}

/// Reads one order again. Sagas and the order come first, the others after them: a saga that had ended by then had all its
/// answers, and so the others can't be behind it. They are read once more at the end, for what began meanwhile; an order
/// that is missing both times was not there before what is said of it either.
async fn again(api: &Api, id: Uuid) -> anyhow::Result<Judgement> {
    let before = Uuid::from_u128(id.as_u128().saturating_sub(1));
    let mut row = Row::default();
    let (order, sagas) = (0, SERVICES.len() - 1);
    for service in [sagas, order, 1, 2, 3, 4] {
        let page = page(api, service, before, 1).await?;
        row.0[service] = page.standings.into_iter().find(|standing| standing.id == id);
    }
    if let judged @ (Judgement::Fits | Judgement::UnderWay { .. }) = judge(&row) {
        return Ok(judged);
    }
    let mut later = row.clone();
    for service in [sagas, order] {
        let page = page(api, service, before, 1).await?;
        later.0[service] = page.standings.into_iter().find(|standing| standing.id == id);
    }
    // What has changed meanwhile is under way.
    if same_states(&row, &later) {
        Ok(judge(&later))
    } else {
        Ok(Judgement::UnderWay { age: 0, stuck: false })
    }
}

/// Whether two readings say the same, whatever time it was.
fn same_states(one: &Row, other: &Row) -> bool {
    (0..SERVICES.len()).all(|service| one.states(service) == other.states(service))
}

/// Whether a service has parked something of this order.
async fn is_parked(api: &Api, id: Uuid) -> anyhow::Result<bool> {
    for service in SERVICES {
        let Some(page) = api.find(service, &format!("/parked/{id}?limit=200")).await? else { continue };
        let parked = |message: &Value| message["status"] == "parked";
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
    fn what_is_not_looked_at_again_is_counted() {
        let (mut found, mut doubtful) = (Orders::default(), Doubtful::default());
        let wrong = Judgement::Wrong("x".to_owned());
        let late = Judgement::UnderWay { age: 11, stuck: false };
        for id in 0..MOST as u128 + 3 {
            doubtful.sort(&mut found, Uuid::from_u128(id), &wrong, 10);
            doubtful.sort(&mut found, Uuid::from_u128(id), &late, 10);
        }
        assert_eq!((doubtful.suspects.len(), doubtful.late.len()), (MOST, MOST));
        assert_eq!((found.unread, found.under_way), (3, 3), "so neither 3 nor 4 is said to hold");
    }
}
