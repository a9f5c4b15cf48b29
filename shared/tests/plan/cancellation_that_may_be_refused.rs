//! A closing step of a cancelled saga that its participant may refuse.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).or_else(Toy::reject).if_cancelled(Toy::reserve_anew)
}
