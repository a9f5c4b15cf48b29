//! The sagas that this orchestrator drives.

pub mod place_order;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod rehearsal_tests;
pub mod return_order;
#[cfg(test)]
mod sweeps;
#[cfg(test)]
mod test_orders;

use std::time::Duration;

use shared::saga::registry::Registry;

pub use self::place_order::{PlaceOrder, PlaceOrder1};
pub use self::return_order::ReturnOrder;

/// The deadline of a saga. It is long enough to wait for the end of a night's outage, and no customer waits for ever.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns every definition, present and past, that a saga in flight may have begun with.
///
/// `deadline` replaces the deadline of every step in the plans.
pub fn all(deadline: Option<Duration>) -> Registry {
    Registry::new(deadline).with::<PlaceOrder>().with::<PlaceOrder1>().with::<ReturnOrder>()
}
