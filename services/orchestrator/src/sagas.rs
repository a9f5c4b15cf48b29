//! The sagas that this orchestrator drives.

pub mod place_order;
mod registry;
mod replay;
pub mod return_order;

pub use self::place_order::{PlaceOrder, PlaceOrder1};
pub(crate) use self::registry::AnyDefinition;
pub use self::registry::{OpenSaga, Registry, UnknownDefinition};
pub(crate) use self::replay::replay;
pub use self::return_order::ReturnOrder;

/// Every definition, present and past, that a saga in flight may have begun with.
pub fn all() -> Registry {
    Registry::default().with::<PlaceOrder>().with::<PlaceOrder1>().with::<ReturnOrder>()
}
