//! The declarations of all topics. An explicit command creates them. Services check that they exist and never create
//! them.
//!
//! The key of every record is the order id, so that one order is in one partition of each topic. Product events have
//! the sku as their key, and customer events the customer id. Customers have their own topic, so that consumers of
//! addresses need not read every order.

use std::time::Duration;

use shared::kafka::Topic;

use crate::SERVICES;

/// The number of partitions, and therefore of replicas of a service that can share the work.
const PARTITIONS: i32 = 4;
/// How long messages are kept. The inboxes must remember ids for longer.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The topic for copies of the messages that a service has parked.
pub const PARKED: &str = "{service}.parked";

/// The topic for events of a service, among them its answers to sagas.
pub const EVENTS: &str = "{service}.events";

/// Returns every topic of the suite. Each service has a topic for events, one for copies of parked messages, and one for
/// commands, except the orchestrator, which takes none. Order also has the topic of customers.
pub fn all() -> Vec<Topic> {
    let mut names = Vec::new();
    for service in SERVICES {
        names.extend(["events", "parked"].map(|kind| format!("{service}.{kind}")));
        if service != "orchestrator" {
            names.push(format!("{service}.commands"));
        }
    }
    names.push("customer.events".to_owned());
    names.into_iter().map(|name| Topic { name, partitions: PARTITIONS, retention: RETENTION }).collect()
}

/// Returns every topic of the suite, with another number of partitions if one is set.
pub fn with_partitions(partitions: Option<i32>) -> Vec<Topic> {
    let topics = all().into_iter();
    topics.map(|topic| Topic { partitions: partitions.unwrap_or(topic.partitions), ..topic }).collect()
}

/// Returns whether a service writes to a topic. The orchestrator sends the commands of all services.
pub fn writes(service: &str, topic: &str) -> bool {
    let (owner, kind) = topic.split_once('.').unwrap_or_default();
    if kind == "commands" {
        return service == "orchestrator";
    }
    owner == service || (service == "order" && owner == "customer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_one_service_that_writes_to_it() {
        for topic in all() {
            let writers = SERVICES.into_iter().filter(|service| writes(service, &topic.name));
            assert_eq!(writers.count(), 1, "{}", topic.name);
        }
    }
}
