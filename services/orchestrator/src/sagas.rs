//! The sagas that this orchestrator drives.

pub mod place_order;
mod registry;
mod rehearsal;
mod replay;
pub mod return_order;
#[cfg(test)]
mod sweeps;

pub use self::place_order::{PlaceOrder, PlaceOrder1};
use std::time::Duration;

pub(crate) use self::registry::AnyDefinition;
pub use self::registry::{OpenSaga, Registry, UnknownDefinition};
pub use self::rehearsal::{Divergence, Recorded, RehearsalError};
pub(crate) use self::replay::replay;
pub use self::return_order::ReturnOrder;

/// How long a saga may take: an outage of a night is waited for, and nobody waits for an order for ever.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Every definition, present and past, that a saga in flight may have begun with.
/// `deadline` is for every step, instead of what its plan says.
pub fn all(deadline: Option<Duration>) -> Registry {
    Registry::new(deadline).with::<PlaceOrder>().with::<PlaceOrder1>().with::<ReturnOrder>()
}
