//! Checks that each partition of a group's topics belongs to a member, and leaves the group if that is not so.
//!
//! The members of a group notice added partitions when they refresh what they know of the topics. A static member that was
//! restarted before that does not: it knows the new number from its start, and the broker gives it its old partitions back
//! without asking anybody to divide them anew. Then nobody ever reads the added ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use tracing::{debug, warn};

use super::Context;
use crate::backoff::jittered;
use crate::consumer::positions::Partition;
use crate::kafka::on_own_thread;

/// The interval between checks of a group whose partitions were all assigned.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The wait for a group that is dividing its partitions.
const CHECK_AGAIN: Duration = Duration::from_secs(2);
/// A group divides its partitions in two steps, and partitions belong to nobody in between. So several checks, one after
/// the other, must find a partition without a member.
const CHECKS: u32 = 3;
/// The timeout of a request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a member may take to give its partitions back.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// How long the client may take to tell the broker that it leaves, once it has given its partitions back.
const LEAVE_WAIT: Duration = Duration::from_millis(250);

/// The checks of one membership.
pub(super) struct Coverage {
    due: Instant,
    /// How many checks, one after the other, have found a partition without a member.
    found: u32,
}

impl Coverage {
    pub fn new() -> Self {
        Self { due: Instant::now() + CHECK_AGAIN, found: 0 }
    }

    /// Returns whether partitions of these topics belong to no member of the group, and will not soon. The names have the
    /// installation's prefix.
    pub async fn is_incomplete(
        &mut self,
        consumer: &Arc<StreamConsumer<Context>>,
        group: &str,
        topics: &[String],
    ) -> bool {
        if Instant::now() < self.due {
            return false;
        }
        let (client, asked, names) = (Arc::clone(consumer), group.to_owned(), topics.to_vec());
        let ask = move || unassigned(&client, &asked, &names);
        let wait = match on_own_thread(4 * REQUEST_TIMEOUT, ask).await {
            Ok(Some(left)) if left.is_empty() => {
                self.found = 0;
                CHECK_EVERY
            }
            Ok(Some(left)) => {
                self.found += 1;
                debug!(group, ?left, "partitions belong to no member");
                if self.found == CHECKS {
                    warn!(group, ?left, "partitions belong to no member; this member leaves and joins anew");
                    return true;
                }
                jittered(CHECK_AGAIN)
            }
            Ok(None) => {
                self.found = 0;
                CHECK_AGAIN
            }
            // The client may not be allowed to look at the group.
            Err(error) => {
                debug!(group, %error, "whether every partition belongs to a member is not known");
                self.found = 0;
                CHECK_EVERY
            }
        };
        self.due = Instant::now() + wait;
        false
    }
}

/// Returns the partitions that belong to no member, or `None` while the group is dividing them.
fn unassigned(
    client: &StreamConsumer<Context>,
    group: &str,
    topics: &[String],
) -> Result<Option<Vec<Partition>>, KafkaError> {
    let groups = client.fetch_group_list(Some(group), REQUEST_TIMEOUT)?;
    let known = groups.groups().iter().find(|known| known.name() == group && known.state() == "Stable");
    let Some(known) = known else { return Ok(None) };
    let mut assigned = HashSet::new();
    for member in known.members() {
        let Some(theirs) = member.assignment().and_then(partitions) else { return Ok(None) };
        assigned.extend(theirs);
    }
    let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT)?;
    let ours = metadata.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name()));
    let all = ours.flat_map(|topic| {
        topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id()))
    });
    Ok(Some(all.filter(|partition| !assigned.contains(partition)).collect()))
}

/// Reads a member's assignment as the protocol of consumer groups writes it: a version, and the topics with their
/// partitions. What follows is not of interest.
fn partitions(assignment: &[u8]) -> Option<Vec<Partition>> {
    let mut rest = Bytes(assignment);
    rest.take::<2>()?;
    let mut partitions = Vec::new();
    for _ in 0..rest.count()? {
        let length = usize::try_from(i16::from_be_bytes(rest.take()?)).ok()?;
        let topic = std::str::from_utf8(rest.slice(length)?).ok()?.to_owned();
        for _ in 0..rest.count()? {
            partitions.push((topic.clone(), i32::from_be_bytes(rest.take()?)));
        }
    }
    Some(partitions)
}

struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn slice(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn count(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take()?))
    }
}

/// Leaves the group. To close the client is not enough: a static member that closes keeps its partitions.
pub(super) async fn leave(consumer: &StreamConsumer<Context>) {
    consumer.unsubscribe();
    let given_back = async {
        let mut stream = consumer.stream();
        // The client gives its partitions back while it is polled. Records that come meanwhile come again.
        while consumer.assignment().is_ok_and(|assignment| assignment.count() > 0) {
            let _ = tokio::time::timeout(LEAVE_WAIT, stream.next()).await;
        }
    };
    if tokio::time::timeout(LEAVE_LIMIT, given_back).await.is_ok() {
        tokio::time::sleep(LEAVE_WAIT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_up_to_its_partitions() {
        let mut bytes = vec![0, 3, 0, 0, 0, 2];
        bytes.extend([0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7]);
        bytes.extend([0, 2, b'b', b'c', 0, 0, 0, 0]);
        let user_data = [0, 0, 0, 0];
        let read = partitions(&[&bytes[..], &user_data].concat());
        assert_eq!(read, Some(vec![("a".to_owned(), 0), ("a".to_owned(), 7)]));
        for length in 0..bytes.len() {
            assert_eq!(partitions(&bytes[..length]), None, "{length}");
        }
        assert_eq!(partitions(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None, "a topic without a name");
    }
}
