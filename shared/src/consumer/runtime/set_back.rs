//! Notices that the database was set back in time. The consumed offsets are in Kafka, and what was handled is in the
//! database. After a restore the messages between the two would be lost without a word.
//!
//! From time to time a member at work counts up a number in the database. The offsets that it commits afterwards carry the
//! number as their metadata. A group whose offsets have a higher number than the database has handled messages that the
//! database has lost, or never had. Its members then do not join before an operator has set the offsets back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Consumer, Context, Offsets};
use crate::db::Db;
use crate::deadline::bounded;
use crate::fault::Fault;
use crate::metric;

/// How often a member at work counts up the number. A database that was set back by less is not noticed.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a blocked member looks whether the offsets were set back.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the log repeats why a member is blocked.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The timeout of a request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// What the number begins with in the metadata of an offset.
const PREFIX: &str = "mark=";

/// The number that the offsets of a member carry.
#[derive(Default)]
pub(super) struct Mark {
    text: Option<String>,
    counted: Option<Instant>,
}

impl Mark {
    /// Returns whether it is time to count the number up.
    pub fn is_due(&self) -> bool {
        self.counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL)
    }

    /// Counts the number up. If that fails, the former number is as true as before.
    pub async fn renew(&mut self, db: &Db, group: &str) {
        self.counted = Some(Instant::now());
        match bounded(count_up(db, group)).await {
            Ok(mark) => self.text = Some(format!("{PREFIX}{mark}")),
            Err(fault) => info!(%fault, group, "the mark of the consumed offsets was not renewed"),
        }
    }
}

async fn count_up(db: &Db, group: &str) -> Result<i64, Fault> {
    let mut uow = db.write(&[]).await?;
    let mark = sqlx::query_scalar(
        "insert into consumer_mark as known (consumer_group, mark) values ($1, 1)
         on conflict (consumer_group) do update set mark = known.mark + 1, marked_at = now() returning mark",
    )
    .bind(group)
    .fetch_one(uow.db())
    .await?;
    uow.commit().await?;
    Ok(mark)
}

/// Returns the number in the database. It is 0 if no member of the group has worked on it.
async fn known_mark(db: &Db, group: &str) -> Result<i64, Fault> {
    let mark: Option<i64> = sqlx::query_scalar("select mark from consumer_mark where consumer_group = $1")
        .bind(group)
        .fetch_optional(&mut *db.read().await?)
        .await?;
    Ok(mark.unwrap_or(0))
}

/// Marks the records as done. A partition that was lost in the meantime belongs to its new owner.
pub(super) fn store(consumer: &StreamConsumer<Context>, offsets: &Offsets, mark: &Mark) {
    for ((topic, partition), next) in offsets {
        let mut list = TopicPartitionList::with_capacity(1);
        let mut one = list.add_partition(topic, *partition);
        if let Some(mark) = &mark.text {
            one.set_metadata(mark);
        }
        let stored = one.set_offset(Offset::Offset(*next)).and_then(|()| consumer.store_offsets(&list));
        if let Err(error) = stored {
            info!(topic, partition, %error, "the offset was not stored; the partition has another owner now");
        }
    }
}

impl Consumer {
    /// Waits until the database knows what the group has handled. Returns `false` if a stop came, or if the broker or the
    /// database did not answer.
    pub(super) async fn database_is_up_to_date(
        &self,
        consumer: &Arc<StreamConsumer<Context>>,
        topics: &[String],
        stop: &CancellationToken,
    ) -> bool {
        let Context { group, temper, .. } = &**consumer.context();
        let mut logged: Option<Instant> = None;
        let up_to_date = loop {
            match stop.run_until_cancelled(self.is_set_back(consumer, group, topics)).await {
                Some(Ok(true)) => {}
                Some(Ok(false)) => break true,
                Some(Err(fault)) => {
                    info!(%fault, group, "whether the database was set back is not known yet");
                    break false;
                }
                None => break false,
            }
            self.assigned.set_behind(*temper, true);
            metric::CONSUMER_BLOCKED.gauge(&[group]).set(1.0);
            if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                logged = Some(Instant::now());
                error!(
                    group,
                    "nothing is read: the group has handled messages that this database does not know, so the database was \
                     set back in time; see docs/restore.md"
                );
            }
            if stop.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_none() {
                break false;
            }
        };
        if up_to_date {
            self.assigned.set_behind(*temper, false);
            metric::CONSUMER_BLOCKED.gauge(&[group]).set(0.0);
        }
        up_to_date
    }

    async fn is_set_back(
        &self,
        consumer: &Arc<StreamConsumer<Context>>,
        group: &str,
        topics: &[String],
    ) -> Result<bool, Fault> {
        let (client, topics) = (Arc::clone(consumer), topics.to_vec());
        #[expect(clippy::disallowed_methods, reason = "the client's questions block, and have no other form")]
        let asked = tokio::task::spawn_blocking(move || committed_mark(&client, &topics));
        let committed = asked.await.map_err(Fault::retry)??;
        match committed {
            None => Ok(false),
            Some(committed) => Ok(bounded(known_mark(&self.db, group)).await? < committed),
        }
    }
}

/// Returns the highest number among the committed offsets of the group.
fn committed_mark(client: &StreamConsumer<Context>, topics: &[String]) -> Result<Option<i64>, KafkaError> {
    let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name())) {
        for partition in topic.partitions() {
            list.add_partition(topic.name(), partition.id());
        }
    }
    if list.count() == 0 {
        return Ok(None);
    }
    let committed = client.committed_offsets(list, REQUEST_TIMEOUT)?;
    let elements = committed.elements();
    // An error of one partition must not pass for an offset without a number.
    elements.iter().try_for_each(|one| one.error())?;
    Ok(elements.iter().filter_map(|one| number(one.metadata())).max())
}

/// Returns the number in the metadata of an offset.
fn number(metadata: &str) -> Option<i64> {
    metadata.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_others_has_no_number() {
        assert_eq!(number("mark=12"), Some(12));
        for other in ["", "12", "mark=", "mark=x", "NONE"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
