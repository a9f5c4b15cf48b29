//! A reply that is kept behind a group of several steps.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .pivot(Toy::capture)
        .together(|group| group.then(Toy::commit).then(Toy::release)).on_reply(|_, _| ())
        .or_else(Toy::reject)
}
