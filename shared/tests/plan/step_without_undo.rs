//! A step that says neither how it is undone nor why it need not be.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin().step(Toy::reserve).pivot(Toy::capture).or_else(Toy::reject)
}
