//! Puts together what every service has about the same order, from pages in the order of ids. It keeps one page of each
//! service, however many orders there are.

use std::collections::VecDeque;

use serde::Deserialize;
use uuid::Uuid;

/// The services whose pages are merged, in the places that [`Row`] has for them.
pub const SERVICES: [&str; 6] = ["order", "payment", "inventory", "shipping", "notification", "orchestrator"];

/// Where one order stands in one service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    pub id: Uuid,
    pub states: Vec<String>,
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub age: Option<i64>,
}

/// A page of a service.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub standings: Vec<Standing>,
    pub next: Option<Uuid>,
}

/// What every service has about one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(pub [Option<Standing>; SERVICES.len()]);

impl Row {
    /// What a service has, in its words; nothing if it has nothing.
    pub fn states(&self, service: usize) -> &[String] {
        self.0[service].as_ref().map_or(&[], |standing| &standing.states)
    }
}

/// The merge of all services' pages.
#[derive(Debug, Default)]
pub struct Merge([Source; SERVICES.len()]);

#[derive(Debug, Default)]
struct Source {
    rows: VecDeque<Standing>,
    /// Behind which id the next page is asked for.
    after: Uuid,
    ended: bool,
}

impl Merge {
    /// A service whose next page is needed, and behind which id it begins. [`Merge::pop`] may be asked when there is none.
    pub fn hungry(&self) -> Option<(usize, Uuid)> {
        let hungry = |source: &Source| source.rows.is_empty() && !source.ended;
        self.0.iter().position(hungry).map(|index| (index, self.0[index].after))
    }

    /// Takes the next page of a service.
    pub fn feed(&mut self, service: usize, page: Page) {
        let source = &mut self.0[service];
        match page.next {
            Some(next) => source.after = next,
            None => source.ended = true,
        }
        source.rows.extend(page.standings);
    }

    /// The least id that any service has, with what each has about it.
    pub fn pop(&mut self) -> Option<(Uuid, Row)> {
        let id = self.0.iter().filter_map(|source| source.rows.front()).map(|row| row.id).min()?;
        let mut row = Row::default();
        for (source, place) in self.0.iter_mut().zip(&mut row.0) {
            *place = source.rows.pop_front_if(|standing| standing.id == id);
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

    /// Merges these, in pages of two.
    fn merged(services: [&[u128]; SERVICES.len()]) -> Vec<(u128, Vec<usize>)> {
        let (mut merge, mut rows) = (Merge::default(), Vec::new());
        loop {
            if let Some((service, after)) = merge.hungry() {
                let rest = services[service].iter().filter(|id| **id > after.as_u128());
                let standings: Vec<Standing> = rest.take(2).map(|id| standing(*id, "there")).collect();
                let next = standings.get(1).map(|last| last.id);
                merge.feed(service, Page { standings, next });
                continue;
            }
            let Some((id, row)) = merge.pop() else { return rows };
            let has = (0..SERVICES.len()).filter(|service| row.0[*service].is_some()).collect();
            rows.push((id.as_u128(), has));
        }
    }

    #[test]
    fn every_id_comes_once_in_order_with_everybody_who_has_it() {
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
