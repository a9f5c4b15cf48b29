//! Merges the pages of all services, which are sorted by id, so that the states of one order come together. It keeps one
//! page of each service in memory, however many orders there are.

use std::collections::{BTreeMap, VecDeque};

use schemas::SERVICES;
use serde::Deserialize;
use uuid::Uuid;

/// The state of one order in one service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    pub id: Uuid,
    pub states: Vec<String>,
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub age: Option<i64>,
}

/// A page of a service's orders.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub standings: Vec<Standing>,
    pub next: Option<Uuid>,
}

/// The state of one order in every service that knows it, by the service's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(pub BTreeMap<&'static str, Standing>);

impl Row {
    /// Returns the states in one service; empty if it does not know the order.
    pub fn states(&self, service: &str) -> &[String] {
        self.0.get(service).map_or(&[], |standing| &standing.states)
    }
}

/// The merge of all services' pages.
#[derive(Debug)]
pub struct Merge([Source; SERVICES.len()]);

#[derive(Debug)]
struct Source {
    service: &'static str,
    rows: VecDeque<Standing>,
    /// The next page begins behind this id.
    after: Uuid,
    ended: bool,
}

impl Merge {
    pub fn new() -> Self {
        let begin = |service| Source { service, rows: VecDeque::new(), after: Uuid::nil(), ended: false };
        Self(SERVICES.map(begin))
    }

    /// Returns a service whose next page is needed, and the id behind which that page begins. [`Merge::pop`] must not be
    /// called before it has returned `None`.
    pub fn hungry(&self) -> Option<(&'static str, Uuid)> {
        let hungry = |source: &&Source| source.rows.is_empty() && !source.ended;
        self.0.iter().find(hungry).map(|source| (source.service, source.after))
    }

    /// Takes the next page of a service.
    pub fn feed(&mut self, service: &str, page: Page) {
        let Some(source) = self.0.iter_mut().find(|source| source.service == service) else { return };
        match page.next {
            Some(next) => source.after = next,
            None => source.ended = true,
        }
        source.rows.extend(page.standings);
    }

    /// Returns the least id that any service has, with its state in each service.
    pub fn pop(&mut self) -> Option<(Uuid, Row)> {
        let id = self.0.iter().filter_map(|source| source.rows.front()).map(|row| row.id).min()?;
        let mut row = Row::default();
        for source in &mut self.0 {
            if let Some(standing) = source.rows.pop_front_if(|standing| standing.id == id) {
                row.0.insert(source.service, standing);
            }
        }
        Some((id, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(id: u128, state: &str) -> Standing {
        let states = vec![state.to_owned()];
        Standing { id: Uuid::from_u128(id), states, amount: None, currency: None, age: None }
    }

    /// Merges these ids of each service, in pages of two.
    fn merged(services: [&[u128]; SERVICES.len()]) -> Vec<(u128, Vec<usize>)> {
        let (mut merge, mut rows) = (Merge::new(), Vec::new());
        let place = |service| SERVICES.iter().position(|known| *known == service).expect("a service");
        loop {
            if let Some((service, after)) = merge.hungry() {
                let rest = services[place(service)].iter().filter(|id| **id > after.as_u128());
                let standings: Vec<Standing> = rest.take(2).map(|id| standing(*id, "there")).collect();
                let next = standings.get(1).map(|last| last.id);
                merge.feed(service, Page { standings, next });
                continue;
            }
            let Some((id, row)) = merge.pop() else { return rows };
            let mut has: Vec<usize> = row.0.keys().map(|service| place(service)).collect();
            has.sort_unstable();
            rows.push((id.as_u128(), has));
        }
    }

    #[test]
    fn every_id_comes_once_in_order_with_every_service_that_has_it() {
        let rows = merged([&[1, 2, 3, 4, 5], &[2, 4], &[], &[1, 2, 3, 4, 5, 6], &[9], &[1]]);
        let wanted = [
            (1, vec![0, 3, 5]),
            (2, vec![0, 1, 3]),
            (3, vec![0, 3]),
            (4, vec![0, 1, 3]),
            (5, vec![0, 3]),
            (6, vec![3]),
            (9, vec![4]),
        ];
        assert_eq!(rows, wanted);
    }

    #[test]
    fn nothing_to_merge_is_nothing() {
        assert_eq!(merged([&[]; SERVICES.len()]), []);
    }
}
