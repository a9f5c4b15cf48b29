//! A step behind the pivot that wants to be undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).step(Toy::reserve).undo(Toy::release).or_else(Toy::reject)
}
