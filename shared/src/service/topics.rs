//! Watches over the settings of the topics that a service reads or writes. While a guarantee is endangered at the start,
//! the service neither consumes nor sends. If that happens later, it goes on, but is not ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{App, Service};
use crate::backoff::jittered;
use crate::kafka::{BrokerError, Examination, Kafka, Topic};

/// The wait before topics that are not safe are examined again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often topics are examined that were found to be safe.
const EXAMINE_EVERY: Duration = Duration::from_secs(180);

/// Returns the declared topics of a service, with another number of partitions if there is one.
pub(super) fn declared<A: App>(partitions: Option<i32>) -> Vec<Topic> {
    let topics = A::topics().into_iter();
    topics.map(|topic| Topic { partitions: partitions.unwrap_or(topic.partitions), ..topic }).collect()
}

/// The settings of a service's topics.
pub(super) struct TopicWatch {
    kafka: Kafka,
    /// How long ids of messages are remembered.
    remembered: Duration,
    state: Mutex<State>,
    /// Cancelled once the topics were found to be safe.
    safe: CancellationToken,
}

/// What was found last.
#[derive(Default, Clone, PartialEq, Eq)]
struct State {
    examined: bool,
    dangers: Vec<String>,
    notices: Vec<String>,
}

impl State {
    fn of(found: &Examination) -> Self {
        let mut state = Self { examined: true, ..Self::default() };
        if !found.missing.is_empty() {
            let missing = found.missing.join(", ");
            state.dangers.push(format!("{missing}: missing; `amends topics apply` creates what is missing"));
        }
        for one in &found.differences {
            let list = if one.endangers { &mut state.dangers } else { &mut state.notices };
            list.push(one.to_string());
        }
        if !found.unread.is_empty() {
            state.notices.push(format!(
                "{}: the settings could not be checked, because this client may not read them; allow it \
                 DescribeConfigs, or run `amends topics verify` as a user who may",
                found.unread.join(", ")
            ));
        }
        state
    }
}

impl TopicWatch {
    pub fn new(kafka: &Kafka, remembered: Duration) -> Self {
        let (state, safe) = (Mutex::default(), CancellationToken::new());
        Self { kafka: kafka.clone(), remembered, state, safe }
    }

    /// Waits until the topics were found to be safe. Returns whether that happened before a stop.
    pub async fn safe(&self, stop: &CancellationToken) -> bool {
        stop.run_until_cancelled(self.safe.cancelled()).await.is_some()
    }

    /// Returns what endangers a guarantee, or else what is worth knowing.
    pub fn verdict(&self) -> Result<Option<String>, String> {
        let state = self.lock();
        if !state.examined {
            return Err("not examined yet".to_owned());
        }
        let joined = |lines: &[String]| (!lines.is_empty()).then(|| lines.join("; "));
        joined(&state.dangers).map_or_else(|| Ok(joined(&state.notices)), Err)
    }

    /// Examines the topics, at once and from time to time.
    async fn run(&self, topics: Vec<Topic>, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let examined = self.kafka.examine_topics(&topics, self.remembered);
            let Some(found) = stop.run_until_cancelled(examined).await else { return };
            let calm = self.take(found);
            let next = if calm { EXAMINE_EVERY } else { wait };
            wait = if calm { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            if stop.run_until_cancelled(tokio::time::sleep(jittered(next))).await.is_none() {
                return;
            }
        }
    }

    /// Remembers what was found, and says it if it is new. Returns whether all topics are safe.
    fn take(&self, found: Result<Examination, BrokerError>) -> bool {
        let found = match found {
            Ok(found) => State::of(&found),
            // The client itself says in the log what is wrong.
            Err(error) => {
                info!(%error, "the topics could not be examined");
                return false;
            }
        };
        let mut state = self.lock();
        let before = std::mem::replace(&mut *state, found.clone());
        drop(state);
        let safe = found.dangers.is_empty();
        for danger in found.dangers.iter().filter(|one| !before.dangers.contains(one)) {
            if self.safe.is_cancelled() {
                error!("a topic endangers a guarantee, the service is not ready: {danger}");
            } else {
                error!("a topic endangers a guarantee, the service neither consumes nor sends: {danger}");
            }
        }
        for notice in found.notices.iter().filter(|one| !before.notices.contains(one)) {
            warn!("a topic differs from its declaration: {notice}");
        }
        if safe {
            if before.examined && !before.dangers.is_empty() {
                info!("the topics are as they should be");
            }
            self.safe.cancel();
        }
        safe
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Send + Sync + 'static> Service<C> {
    /// Examines the topics that the service reads or writes.
    pub(super) fn watch_topics<A: App>(&self) {
        let (watch, stop) = (Arc::clone(&self.topics), self.stages.intake.stop.clone());
        let used =
            |topic: &&Topic| self.messages.topics().any(|read| read == topic.name) || A::writes(&topic.name);
        let topics = self.kafka.topics.iter().filter(used).cloned().collect();
        self.spawn(&self.stages.intake, "topics", async move {
            watch.run(topics, stop).await;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> TopicWatch {
        TopicWatch::new(&Kafka::new("127.0.0.1:1"), Duration::from_secs(1))
    }

    #[tokio::test]
    async fn nothing_is_consumed_or_sent_before_the_topics_are_safe() {
        let (watch, stopped) = (watch(), CancellationToken::new());
        stopped.cancel();
        assert!(watch.verdict().is_err());
        let missing = Examination { missing: vec!["order.events".to_owned()], ..Examination::default() };
        assert!(!watch.take(Ok(missing.clone())));
        assert!(watch.verdict().is_err_and(|said| said.contains("order.events: missing")));
        assert!(!watch.safe(&stopped).await);
        assert!(watch.take(Ok(Examination::default())));
        assert!(watch.safe(&CancellationToken::new()).await);
        assert_eq!(watch.verdict(), Ok(None));
        // Later it is said, but nothing is stopped.
        assert!(!watch.take(Ok(missing)));
        assert!(watch.verdict().is_err() && watch.safe.is_cancelled());
    }

    #[test]
    fn what_could_not_be_read_is_said_and_does_no_harm() {
        let watch = watch();
        let unread = vec!["order.events".to_owned()];
        assert!(watch.take(Ok(Examination { unread, ..Examination::default() })));
        assert!(watch.verdict().is_ok_and(|said| said.is_some_and(|said| said.contains("DescribeConfigs"))));
    }
}
