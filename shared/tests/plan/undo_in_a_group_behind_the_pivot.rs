//! A group behind the pivot that wants to be undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .pivot(Toy::capture)
        .together(|group| group.step(Toy::reserve).undo(Toy::release))
        .or_else(Toy::reject)
}
