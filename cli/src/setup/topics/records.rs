//! Which topics have records, and whether the services have read all of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use shared::kafka::Kafka;

use crate::suite::SERVICES;

const ASK: Duration = Duration::from_secs(10);

/// Returns whether a topic never had a record. It is named with its prefix.
pub async fn never_had_any(kafka: &Kafka, topic: &str) -> anyhow::Result<bool> {
    let (client, topic) = (client(kafka, "amends-topics")?, topic.to_owned());
    blocking(move || {
        Ok(ends(&client, &[topic])?.elements().iter().all(|end| end.offset() == Offset::Offset(0)))
    })
    .await
}

/// Fails if a service runs, or has not read all records. Then added partitions would let messages overtake.
pub async fn ensure_all_read(kafka: &Kafka) -> anyhow::Result<()> {
    let kafka = kafka.clone();
    blocking(move || {
        let names: Vec<String> = schemas::topics::all().iter().map(|topic| kafka.name(&topic.name)).collect();
        let groups = SERVICES.into_iter().flat_map(|service| [service.to_owned(), format!("{service}-background")]);
        for group in groups.map(|group| kafka.name(&group)) {
            let client = client(&kafka, &group)?;
            let known = client.fetch_group_list(Some(&group), ASK)?;
            let members: usize = known.groups().iter().map(|group| group.members().len()).sum();
            if members > 0 {
                bail!(
                    "the consumer group {group} has {members} members; stop all services, and wait ten seconds, in which \
                     a stopped service leaves its group"
                );
            }
            let ends = ends(&client, &names)?;
            for read in client.committed_offsets(ends.clone(), ASK)?.elements() {
                let end = ends.find_partition(read.topic(), read.partition()).map(|end| end.offset());
                // A group that never read from a partition does not consume the topic.
                if let (Offset::Offset(read_to), Some(Offset::Offset(end))) = (read.offset(), end)
                    && read_to < end
                {
                    bail!(
                        "{group} has not read {} records of {}/{}; start the services until every order has settled",
                        end - read_to, read.topic(), read.partition()
                    );
                }
            }
        }
        Ok(())
    })
    .await
}

fn client(kafka: &Kafka, group: &str) -> anyhow::Result<Arc<BaseConsumer>> {
    let consumer = kafka.client().set("group.id", group).set("enable.auto.commit", "false").create();
    Ok(Arc::new(consumer?))
}

/// Returns the end of each partition of these topics.
fn ends(client: &BaseConsumer, topics: &[String]) -> anyhow::Result<TopicPartitionList> {
    let metadata = client.fetch_metadata(None, ASK).context("the broker does not answer")?;
    let mut list = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name())) {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), Offset::End)?;
        }
    }
    Ok(client.offsets_for_times(list, ASK)?)
}

/// Asks on a thread of its own, because the client's questions block.
async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("records".into()).spawn(move || {
        // Nobody waits for the answer if the command was stopped.
        let _ = done.send(ask());
    })?;
    answer.await.context("the question was not answered")?
}
