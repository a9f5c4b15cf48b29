//! A step in a group behind the pivot that its participant may refuse.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .pivot(Toy::capture)
        .together(|group| group.then(Toy::commit).then(Toy::reserve))
        .or_else(Toy::reject)
}
