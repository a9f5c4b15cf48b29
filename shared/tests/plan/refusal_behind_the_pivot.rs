//! A step behind the pivot that its participant may refuse.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).then(Toy::reserve).or_else(Toy::reject)
}
