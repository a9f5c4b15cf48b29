//! A number of attempts behind a group, which would be that of its last step alone.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .pivot(Toy::capture)
        .together(|group| group.then(Toy::commit).then(Toy::release)).stuck_after(3)
        .or_else(Toy::reject)
}
