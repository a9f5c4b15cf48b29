//! The topics, declared once. Created by an explicit step; services verify them and never create them.
//! Every record's key is the order id (a product's events have its sku, a customer's the customer id), so one order is one
//! partition of each topic. Customers have a topic of their own: who wants their addresses need not read every order.

use std::time::Duration;

use shared::kafka::Topic;

/// How many consumers of a service can share the work.
const PARTITIONS: i32 = 4;
/// How long messages stay. The inboxes remember for longer.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where a service puts copies of the messages that it parked, by the service's name.
pub const PARKED: &str = "{service}.parked";

/// Every topic of the suite.
pub fn all() -> Vec<Topic> {
    const SERVICES: [(&str, &str, &str); 6] = [
        ("order.events", "order.commands", "order.parked"),
        ("payment.events", "payment.commands", "payment.parked"),
        ("inventory.events", "inventory.commands", "inventory.parked"),
        ("shipping.events", "shipping.commands", "shipping.parked"),
        ("notification.events", "notification.commands", "notification.parked"),
        ("orchestrator.events", "orchestrator.replies", "orchestrator.parked"),
    ];
    let named = |name| Topic { name, partitions: PARTITIONS, retention: RETENTION };
    SERVICES
        .into_iter()
        .flat_map(|(events, commands, parked)| [events, commands, parked])
        .chain(["customer.events"])
        .map(named)
        .collect()
}
