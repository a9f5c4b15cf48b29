//! A step of which nobody says why it need not be undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).nothing_to_undo().pivot(Toy::capture).or_else(Toy::reject)
}
