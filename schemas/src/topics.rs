//! The topics, declared once. Created by an explicit step; services verify them and never create them.
//! Every record's key is the order id (a product's events have its sku, a customer's the customer id), so one order is one
//! partition of each topic. Customers have a topic of their own: who wants their addresses need not read every order.

use std::time::Duration;

use shared::kafka::Topic;

use crate::SERVICES;

/// How many consumers of a service can share the work.
const PARTITIONS: i32 = 4;
/// How long messages stay. The inboxes remember for longer.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where a service puts copies of the messages that it parked, by the service's name.
pub const PARKED: &str = "{service}.parked";

/// Every topic of the suite: of each service its events, its commands (of the orchestrator the replies to it) and copies of
/// what it parked, and order's topic of customers.
pub fn all() -> Vec<Topic> {
    let mut names = Vec::new();
    for service in SERVICES {
        let inbound = if service == "orchestrator" { "replies" } else { "commands" };
        names.extend(["events", inbound, "parked"].map(|kind| format!("{service}.{kind}")));
    }
    names.push("customer.events".to_owned());
    names.into_iter().map(|name| Topic { name, partitions: PARTITIONS, retention: RETENTION }).collect()
}
