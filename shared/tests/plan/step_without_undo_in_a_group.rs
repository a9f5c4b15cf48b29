//! A group whose last step does not say how it is undone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .together(|group| group.step(Toy::reserve).undo(Toy::release).step(Toy::authorize))
        .pivot(Toy::capture)
        .or_else(Toy::reject)
}
