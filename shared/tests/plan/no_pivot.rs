//! A plan without a point of no return.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).undo(Toy::release).or_else(Toy::reject)
}
