//! An undo that its participant may refuse.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).undo(Toy::refund).pivot(Toy::capture).or_else(Toy::reject)
}
