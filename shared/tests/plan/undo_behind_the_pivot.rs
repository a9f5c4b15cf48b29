//! A step behind the pivot with an undo.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).then(Toy::commit).undo(Toy::release).or_else(Toy::reject)
}
