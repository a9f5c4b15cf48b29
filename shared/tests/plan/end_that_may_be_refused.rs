//! A closing step that its participant may refuse.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).or_else(Toy::reserve_anew)
}
