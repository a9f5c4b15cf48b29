//! Stock and its rules, without database or wire.

use std::collections::BTreeMap;

use schemas::common::Line;
use schemas::inventory::{ReserveRefused, Shortage};

/// The products of a batch of orders, with their stock.
#[derive(Debug, Default)]
pub struct Shelf {
    products: BTreeMap<String, Stock>,
}

/// The stock of a product, and what the batch has moved of it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    pub on_hand: i64,
    pub low_threshold: i64,
    before: i64,
    reserved: i64,
    shipped: i64,
}

/// What a batch has changed of a product.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'s> {
    pub sku: &'s str,
    pub on_hand: i64,
    pub reserved: i64,
    pub shipped: i64,
}

/// How a reservation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The pieces go back to the shelf.
    Released,
    /// The pieces are shipped.
    Committed,
    /// The pieces were shipped, and came back to the shelf.
    Restocked,
}

impl End {
    /// Returns the reservation's status after this end, as the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Committed => "committed",
            Self::Restocked => "restocked",
        }
    }
}

impl Shelf {
    pub fn put(&mut self, sku: String, on_hand: i64, low_threshold: i64) {
        let stock = Stock { on_hand, low_threshold, before: on_hand, reserved: 0, shipped: 0 };
        self.products.insert(sku, stock);
    }

    /// Reserves all of the lines or none.
    ///
    /// # Errors
    /// The refusal, with every line that can't be reserved.
    pub fn hold(&mut self, lines: &[Line]) -> Result<(), ReserveRefused> {
        let wanted = merged(lines);
        let unknown: Vec<String> =
            wanted.keys().filter(|sku| !self.products.contains_key(*sku)).cloned().collect();
        if !unknown.is_empty() {
            return Err(ReserveRefused::UnknownProduct { items: unknown });
        }
        let short: Vec<Shortage> = wanted
            .iter()
            .filter_map(|(sku, &requested)| {
                let available = self.products.get(sku).map_or(0, |stock| stock.on_hand);
                (available < requested).then(|| Shortage { sku: sku.clone(), requested, available })
            })
            .collect();
        if !short.is_empty() {
            return Err(ReserveRefused::OutOfStock { items: short });
        }
        for (sku, quantity) in wanted {
            if let Some(stock) = self.products.get_mut(&sku) {
                stock.on_hand -= quantity;
                stock.reserved += quantity;
            }
        }
        Ok(())
    }

    /// Puts reserved lines back on the shelf.
    pub fn release(&mut self, lines: &[Line]) {
        for line in lines {
            if let Some(stock) = self.products.get_mut(&line.sku) {
                stock.on_hand += line.quantity;
                stock.reserved -= line.quantity;
            }
        }
    }

    /// Ships reserved lines.
    pub fn ship(&mut self, lines: &[Line]) {
        for line in lines {
            if let Some(stock) = self.products.get_mut(&line.sku) {
                stock.reserved -= line.quantity;
                stock.shipped += line.quantity;
            }
        }
    }

    /// Puts shipped lines back on the shelf.
    pub fn take_back(&mut self, lines: &[Line]) {
        for line in lines {
            if let Some(stock) = self.products.get_mut(&line.sku) {
                stock.shipped -= line.quantity;
                stock.on_hand += line.quantity;
            }
        }
    }

    /// Returns the changes by the batch, product by product.
    pub fn changes(&self) -> Vec<Change<'_>> {
        let all = self.products.iter().map(|(sku, stock)| Change {
            sku,
            on_hand: stock.on_hand - stock.before,
            reserved: stock.reserved,
            shipped: stock.shipped,
        });
        all.filter(|change| (change.on_hand, change.reserved, change.shipped) != (0, 0, 0)).collect()
    }

    /// Returns the products that the batch has brought below their threshold.
    pub fn fallen_low(&self) -> impl Iterator<Item = (&str, &Stock)> {
        let fell = |s: &Stock| s.on_hand < s.low_threshold && s.before >= s.low_threshold;
        self.products.iter().filter(move |(_, s)| fell(s)).map(|(sku, s)| (sku.as_str(), s))
    }
}

/// Returns the pieces of each product in the lines.
pub fn merged(lines: &[Line]) -> BTreeMap<String, i64> {
    let mut merged = BTreeMap::new();
    for line in lines {
        let pieces: &mut i64 = merged.entry(line.sku.clone()).or_default();
        *pieces = pieces.saturating_add(line.quantity);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: i64) -> Line {
        Line { sku: sku.to_owned(), quantity }
    }

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.put("lamp".to_owned(), 5, 3);
        shelf.put("chair".to_owned(), 1, 0);
        shelf
    }

    #[test]
    fn all_lines_are_held_or_none() {
        let mut shelf = shelf();
        let refused = shelf.hold(&[line("lamp", 2), line("chair", 2)]).expect_err("only one chair");
        let short = Shortage { sku: "chair".to_owned(), requested: 2, available: 1 };
        assert_eq!(refused, ReserveRefused::OutOfStock { items: vec![short] });
        assert_eq!(shelf.changes(), []);
    }

    #[test]
    fn lines_of_one_product_are_added_up() {
        let mut shelf = shelf();
        assert!(shelf.hold(&[line("lamp", 3), line("lamp", 3)]).is_err());
        assert!(shelf.hold(&[line("lamp", 3), line("lamp", 2)]).is_ok());
        assert_eq!(shelf.changes(), [Change { sku: "lamp", on_hand: -5, reserved: 5, shipped: 0 }]);
    }

    #[test]
    fn orders_of_one_batch_share_the_shelf() {
        let mut shelf = shelf();
        assert!(shelf.hold(&[line("chair", 1)]).is_ok());
        assert!(shelf.hold(&[line("chair", 1)]).is_err());
    }

    #[test]
    fn what_one_order_gives_back_the_next_one_gets() {
        let mut shelf = shelf();
        assert!(shelf.hold(&[line("chair", 1)]).is_ok());
        shelf.release(&[line("chair", 1)]);
        assert!(shelf.hold(&[line("chair", 1)]).is_ok());
        shelf.ship(&[line("chair", 1)]);
        assert_eq!(shelf.changes(), [Change { sku: "chair", on_hand: -1, reserved: 0, shipped: 1 }]);
    }

    #[test]
    fn an_unknown_product_is_named() {
        let refused = shelf().hold(&[line("ghost", 1), line("lamp", 1)]).expect_err("no ghosts");
        assert_eq!(refused, ReserveRefused::UnknownProduct { items: vec!["ghost".to_owned()] });
    }

    #[test]
    fn falling_low_is_told_once() {
        let mut shelf = shelf();
        shelf.hold(&[line("lamp", 2)]).expect("enough");
        assert_eq!(shelf.fallen_low().count(), 0);
        shelf.hold(&[line("lamp", 1)]).expect("enough");
        assert_eq!(shelf.fallen_low().map(|(sku, _)| sku).collect::<Vec<_>>(), ["lamp"]);
    }
}
