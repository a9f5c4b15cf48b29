//! A plan with two points of no return.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).pivot(Toy::refund).or_else(Toy::reject)
}
