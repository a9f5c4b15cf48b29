//! A plan that does not say what closes a saga after everything was undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).undo(Toy::release).pivot(Toy::capture).then(Toy::commit)
}
