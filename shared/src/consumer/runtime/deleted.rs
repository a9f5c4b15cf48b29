//! Notices records that were deleted before they were read.
//!
//! The client goes on at the earliest record that there is, without a word, if the record that it wants is gone. So the
//! consumer compares itself. When it gets a partition, it compares the offset up to which its group has read with the
//! beginning and the end of the partition, before it stores an offset of its own. Later it looks when a record comes that
//! is not the next one, or when nothing comes although there should be something.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{error, info, warn};

use super::{Consumer, Context, Offsets};
use crate::consumer::gaps::{self, Gap, Reason};
use crate::consumer::positions::{Jump, Partition, Positions};
use crate::deadline::bounded;
use crate::fault::Fault;
use crate::kafka::on_own_thread;
use crate::metric;

/// The timeout of a request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all requests together may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The wait before partitions are asked about again whose broker did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Partitions that this member has got, and about which it has not asked yet.
#[derive(Default)]
pub(super) struct Fresh {
    partitions: Vec<Partition>,
    asked: Option<Instant>,
}

/// Where partitions begin and end, and up to where the group has read them.
struct Places {
    /// `None` if the group has read nothing.
    read: HashMap<Partition, Option<i64>>,
    begin: HashMap<Partition, i64>,
    end: HashMap<Partition, i64>,
}

impl Consumer {
    /// Notices gaps in the partitions that are new to this member, and where a record was not the next one. Returns
    /// whether the batch may be handled. Otherwise the membership must end, and the batch comes again.
    pub(super) async fn notice_gaps(
        &self,
        consumer: &Arc<StreamConsumer<Context>>,
        positions: &mut Positions,
        fresh: &mut Fresh,
        offsets: &mut Offsets,
    ) -> bool {
        for partition in consumer.context().take_assigned() {
            fresh.asked = None;
            if !fresh.partitions.contains(&partition) {
                fresh.partitions.push(partition);
            }
        }
        // The comparison with the group's offsets says more about these.
        let mut jumps = positions.take_jumps();
        jumps.retain(|jump| !fresh.partitions.contains(&jump.partition));
        let taken = fresh.partitions.iter().any(|partition| offsets.contains_key(partition));
        let asked_lately = fresh.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN);
        if jumps.is_empty() && (fresh.partitions.is_empty() || (asked_lately && !taken)) {
            return true;
        }
        fresh.asked = Some(Instant::now());
        let (client, new, jumped) = (Arc::clone(consumer), fresh.partitions.clone(), jumps.clone());
        let places = match on_own_thread(LIMIT, move || ask(&client, &new, &jumped)).await {
            Ok(places) => places,
            Err(error) => {
                info!(%error, "whether records were deleted is not known yet");
                positions.jumped(jumps);
                return !taken;
            }
        };
        let mut found: Vec<(Partition, Gap)> = Vec::new();
        let mut left = Vec::new();
        for partition in std::mem::take(&mut fresh.partitions) {
            let Some((read, begin, end)) = places.of(&partition) else {
                left.push(partition);
                continue;
            };
            found.extend(self.gap(&partition, read, begin, end).map(|gap| (partition.clone(), gap)));
            if !offsets.contains_key(&partition) {
                // Another member may have read it meanwhile.
                positions.forget(&partition);
            }
            positions.begin(&partition, read.unwrap_or(begin).max(begin));
        }
        fresh.partitions = left;
        for Jump { partition, expected, came } in jumps {
            match places.begin.get(&partition) {
                // The marker of a foreign transaction, or a compacted record.
                Some(begin) if *begin <= expected => {}
                Some(begin) => {
                    let gap = self.gap(&partition, Some(expected), (*begin).min(came), i64::MAX);
                    found.extend(gap.map(|gap| (partition, gap)));
                }
                None => positions.jumped(vec![Jump { partition, expected, came }]),
            }
        }
        for (partition, gap) in found {
            if let Err(fault) = bounded(self.record_gap(&consumer.context().group, &gap)).await {
                warn!(%fault, "a gap could not be recorded; the member joins anew");
                return false;
            }
            // Otherwise a gap without a record behind it would be found at each start.
            offsets.entry(partition).or_insert(gap.first_present);
        }
        // A record of a partition whose beginning is not known may be behind a gap.
        !fresh.partitions.iter().any(|partition| offsets.contains_key(partition))
    }

    /// Returns the gap between what the group has read and what is there, if there is one.
    fn gap(&self, (topic, partition): &Partition, read: Option<i64>, begin: i64, end: i64) -> Option<Gap> {
        let (first_missing, reason) = match read {
            None if begin > 0 => (0, Reason::Late),
            Some(read) if read < begin => (read, Reason::Deleted),
            Some(read) if read > end => (end, Reason::Shortened),
            _ => return None,
        };
        let topic = topic.strip_prefix(self.kafka.prefix.as_str()).unwrap_or(topic).to_owned();
        Some(Gap { topic, partition: *partition, first_missing, first_present: begin, reason })
    }

    async fn record_gap(&self, group: &str, gap: &Gap) -> Result<(), Fault> {
        let mut uow = self.db.write(&[]).await?;
        let new = gaps::record(uow.db(), group, gap).await?;
        uow.commit().await?;
        if !new {
            return Ok(());
        }
        metric::CONSUMER_GAPS.counter(&[gap.reason.as_str()]).increment(1);
        let Gap { topic, partition, first_missing, first_present, reason } = gap;
        let reason = reason.as_str();
        error!(
            group,
            topic,
            partition,
            first_missing,
            first_present,
            reason,
            "records are gone that this group has not read; see docs/operations.md, \"Deleted records\""
        );
        Ok(())
    }
}

impl Places {
    fn of(&self, partition: &Partition) -> Option<(Option<i64>, i64, i64)> {
        Some((*self.read.get(partition)?, *self.begin.get(partition)?, *self.end.get(partition)?))
    }
}

/// Asks for the places of partitions. A partition without an answer is left out.
fn ask(client: &StreamConsumer<Context>, fresh: &[Partition], jumps: &[Jump]) -> Result<Places, KafkaError> {
    let list = |offset| {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in fresh {
            list.add_partition_offset(topic, *partition, offset)?;
        }
        Ok::<_, KafkaError>(list)
    };
    let mut begins = list(Offset::Beginning)?;
    for Jump { partition: (topic, partition), .. } in jumps {
        begins.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    let begin = known(&client.offsets_for_times(begins, REQUEST_TIMEOUT)?);
    let mut places = Places { read: HashMap::new(), begin: numbers(begin), end: HashMap::new() };
    if !fresh.is_empty() {
        places.read = known(&client.committed_offsets(list(Offset::Invalid)?, REQUEST_TIMEOUT)?);
        places.end = numbers(known(&client.offsets_for_times(list(Offset::End)?, REQUEST_TIMEOUT)?));
    }
    Ok(places)
}

/// Returns the offsets of the partitions that were answered for. It is `None` where there is none.
fn known(list: &TopicPartitionList) -> HashMap<Partition, Option<i64>> {
    let elements = list.elements();
    let known = elements.iter().filter(|one| one.error().is_ok());
    known
        .map(|one| {
            let offset = if let Offset::Offset(offset) = one.offset() { Some(offset) } else { None };
            ((one.topic().to_owned(), one.partition()), offset)
        })
        .collect()
}

fn numbers(known: HashMap<Partition, Option<i64>>) -> HashMap<Partition, i64> {
    known.into_iter().filter_map(|(partition, offset)| Some((partition, offset?))).collect()
}
