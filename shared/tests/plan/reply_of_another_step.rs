//! A step that keeps the reply of another.

use toy::*;

#[rustfmt::skip]
pub fn plan() -> Definition<Toy> {
    Plan::begin()
        .step(Toy::reserve)
            .on_reply(|saga, held| saga.authorization = held.authorization_id)
            .undo(Toy::release)
        .pivot(Toy::capture)
        .or_else(Toy::reject)
}
