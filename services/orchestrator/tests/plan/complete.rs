//! Every word of a plan where it belongs. This one compiles.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .together(|group| {
            group
                .step(Toy::reserve).undo(Toy::release)
                .step(Toy::authorize)
                    .keep(|saga, held| saga.authorization = held.authorization_id)
                    .undo(Toy::void)
        })
        .step(Toy::authorize).nothing_to_undo("it lapses by itself")
        .pivot(Toy::refund)
        .then(Toy::capture)
        .together(|group| group.then(Toy::commit).then(Toy::release))
        .or_else(Toy::reject)
        .if_cancelled(Toy::cancel)
}
