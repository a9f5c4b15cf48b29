//! A pivot that wants to be undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).undo(Toy::release).or_else(Toy::reject)
}
