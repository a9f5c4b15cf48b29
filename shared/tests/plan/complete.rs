//! Every word of a plan where it belongs. This one compiles.

use std::time::Duration;

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .together(|group| {
            group
                .step(Toy::reserve).undo(Toy::release)
                .step(Toy::authorize)
                    .on_reply(|saga, held| saga.authorization = held.authorization_id)
                    .undo(Toy::void)
        })
        .step(Toy::void).nothing_to_undo("it lapses by itself")
        .pivot(Toy::refund)
            .on_reply(|_, _| ()).deadline(Duration::from_secs(5)).stuck_after(3)
        .then(Toy::capture)
            .on_reply(|_, _| ()).deadline(Duration::from_secs(5)).stuck_after(3)
        .together(|group| {
            group
                .then(Toy::commit)
                    .on_reply(|_, _| ()).deadline(Duration::from_secs(5)).stuck_after(3)
                .then(Toy::release)
        })
        .or_else(Toy::reject)
        .if_cancelled(Toy::cancel)
}
