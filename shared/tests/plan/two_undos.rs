//! A step with two undos.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).undo(Toy::release).undo(Toy::void).pivot(Toy::capture).or_else(Toy::reject)
}
