//! The sagas that this orchestrator drives.

pub mod place_order;
mod registry;

pub use self::place_order::PlaceOrder;
pub use self::registry::{OpenSaga, Registry, UnknownDefinition};

/// Every definition, present and past, that a saga in flight may have begun with.
pub fn all() -> Registry {
    Registry::default().with::<PlaceOrder>()
}
