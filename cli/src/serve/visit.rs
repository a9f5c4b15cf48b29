//! The type of each service by its name. It uses nothing else of this program, so that the integration tests can include it.

use shared::service::App;

/// Does something with a service's type.
pub trait Visit {
    type Output;
    fn visit<A: App>(self) -> Self::Output;
}

/// Gives the type of the service with this name to a visitor. Returns `None` if there is no such service.
pub fn visit<V: Visit>(name: &str, visitor: V) -> Option<V::Output> {
    Some(match name {
        "order" => visitor.visit::<order::Order>(),
        "payment" => visitor.visit::<payment::Payment>(),
        "inventory" => visitor.visit::<inventory::Inventory>(),
        "shipping" => visitor.visit::<shipping::Shipping>(),
        "notification" => visitor.visit::<notification::Notification>(),
        "orchestrator" => visitor.visit::<orchestrator::Orchestrator>(),
        _ => return None,
    })
}
