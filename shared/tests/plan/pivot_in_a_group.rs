//! A point of no return beside other steps.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .together(|group| group.step(Toy::reserve).undo(Toy::release).pivot(Toy::capture))
        .pivot(Toy::refund)
        .or_else(Toy::reject)
}
