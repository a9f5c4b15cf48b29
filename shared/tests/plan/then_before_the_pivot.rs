//! A step before the pivot by the word for those behind it, so without a word about its undo.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().then(Toy::commit).pivot(Toy::capture).or_else(Toy::reject)
}
