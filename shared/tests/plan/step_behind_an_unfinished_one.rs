//! A step behind one that does not say how it is undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).step(Toy::authorize).undo(Toy::void).pivot(Toy::capture).or_else(Toy::reject)
}
