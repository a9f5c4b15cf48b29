//! A deadline behind a group, which would be that of its last step alone.

use std::time::Duration;

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .pivot(Toy::capture)
        .together(|group| group.then(Toy::commit).then(Toy::release)).deadline(Duration::from_secs(5))
        .or_else(Toy::reject)
}
