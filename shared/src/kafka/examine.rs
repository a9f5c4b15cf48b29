//! Examines the topics on the cluster, and changes those that differ from their declarations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AlterConfig, ConfigResource, ConfigSource, NewPartitions, OwnedResourceSpecifier,
    ResourceSpecifier,
};
use rdkafka::error::KafkaError;

use super::settings::{Actual, Difference, Remedy, compare};
use super::topics::options;
use super::{BrokerError, Kafka, LogOnly, REQUEST_TIMEOUT, Topic, on_own_thread};

/// What was found on the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Declared topics that do not exist.
    pub missing: Vec<String>,
    /// What differs, what endangers a guarantee first.
    pub differences: Vec<Difference>,
    /// Topics whose settings the client may not read.
    pub unread: Vec<String>,
}

impl Kafka {
    /// Compares topics on the cluster with their declarations. Ids of messages are remembered for `remembered`.
    ///
    /// # Errors
    /// Fails if the broker does not answer.
    pub async fn examine_topics(
        &self,
        topics: &[Topic],
        remembered: Duration,
    ) -> Result<Examination, BrokerError> {
        if topics.is_empty() {
            return Ok(Examination::default());
        }
        // The client is a new one each time: one that finds no broker may never find it again, see `TopicChecker`.
        let client = Arc::new(self.admin()?);
        let asked = Arc::clone(&client);
        let shape = on_own_thread(2 * REQUEST_TIMEOUT, move || Shape::ask(&asked)).await;
        let shape = shape.map_err(|source| self.unanswered(source))?;
        let mut found = Examination::default();
        let names = topics.iter().map(|topic| self.name(&topic.name));
        let there: Vec<String> = names.filter(|name| shape.topics.contains_key(name)).collect();
        let mut settings = self.settings_of(&client, there.iter().map(String::as_str)).await?;
        for topic in topics {
            let name = self.name(&topic.name);
            let Some(&(partitions, replicas)) = shape.topics.get(&name) else {
                found.missing.push(name);
                continue;
            };
            let settings = settings.remove(&name).map(|settings| values(&settings));
            if settings.is_none() {
                found.unread.push(name.clone());
            }
            let actual = Actual { name, partitions, replicas, brokers: shape.brokers, settings };
            found.differences.extend(compare(topic, &actual, remembered));
        }
        found.differences.sort_by_key(|one| !one.endangers);
        Ok(found)
    }

    /// Changes topics on the cluster so that these differences vanish. What only an operator can do is left as it is.
    ///
    /// # Errors
    /// Fails if the broker does not answer or refuses a change.
    pub async fn change_topics(&self, differences: &[Difference]) -> Result<(), BrokerError> {
        let client = self.admin()?;
        let mut changes: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
        for one in differences {
            match one.remedy {
                Remedy::AddPartitions => self.add_partitions(&client, one).await?,
                Remedy::Apply | Remedy::Alter => changes.entry(&one.topic).or_default().push(one),
                Remedy::ByHand(_) => {}
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        // A request that sets some of a topic's settings resets all others, so those are sent along.
        let mut settings = self.settings_of(&client, changes.keys().copied()).await?;
        let own = |topic: &str| {
            let settings = settings.remove(topic).into_iter().flat_map(|resource| resource.entries);
            let own = settings.filter(|entry| entry.source == ConfigSource::DynamicTopic);
            own.filter_map(|entry| Some((entry.name, entry.value?))).collect::<BTreeMap<_, _>>()
        };
        let kept: Vec<BTreeMap<String, String>> = changes.keys().copied().map(own).collect();
        let altered: Vec<AlterConfig<'_>> = changes
            .iter()
            .zip(&kept)
            .map(|((topic, changes), kept)| {
                let kept = kept.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let changed = changes.iter().map(|one| (one.setting, one.right.as_str()));
                AlterConfig {
                    specifier: ResourceSpecifier::Topic(topic),
                    entries: kept.chain(changed).collect::<HashMap<_, _>>(),
                }
            })
            .collect();
        let answers = client.alter_configs(&altered, &options()).await;
        for answer in answers.map_err(|source| self.unanswered(source))? {
            if let Err((OwnedResourceSpecifier::Topic(topic), code)) = answer {
                return Err(BrokerError::Change { topic, code });
            }
        }
        Ok(())
    }

    async fn add_partitions(
        &self,
        client: &AdminClient<LogOnly>,
        one: &Difference,
    ) -> Result<(), BrokerError> {
        let partitions = NewPartitions::new(&one.topic, one.right.parse().unwrap_or_default());
        let answers = client.create_partitions([&partitions], &options()).await;
        for answer in answers.map_err(|source| self.unanswered(source))? {
            answer.map_err(|(topic, code)| BrokerError::Change { topic, code })?;
        }
        Ok(())
    }

    /// Returns the settings of topics, by name. A topic whose settings the client may not read is left out.
    async fn settings_of<'n>(
        &self,
        client: &AdminClient<LogOnly>,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<HashMap<String, ConfigResource>, BrokerError> {
        let asked: Vec<ResourceSpecifier<'_>> = names.map(ResourceSpecifier::Topic).collect();
        // The client refuses an empty request.
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let answers = client.describe_configs(&asked, &options()).await;
        let answers = answers.map_err(|source| self.unanswered(source))?.into_iter().flatten();
        // The client reports a refusal as a topic without settings.
        let read = answers.filter(|resource| !resource.entries.is_empty());
        Ok(read
            .filter_map(|resource| match &resource.specifier {
                OwnedResourceSpecifier::Topic(name) => Some((name.clone(), resource)),
                _ => None,
            })
            .collect())
    }
}

/// The brokers and topics of a cluster.
struct Shape {
    brokers: usize,
    /// The number of partitions, and the least number of replicas, by the names of topics.
    topics: HashMap<String, (i32, usize)>,
}

impl Shape {
    fn ask(client: &AdminClient<LogOnly>) -> Result<Self, KafkaError> {
        let metadata = client.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
        let there = metadata.topics().iter().filter(|topic| !topic.partitions().is_empty());
        let topics = there.map(|topic| {
            let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
            (topic.name().to_owned(), (partitions, replicas.unwrap_or_default()))
        });
        Ok(Self { brokers: metadata.brokers().len(), topics: topics.collect() })
    }
}

fn values(resource: &ConfigResource) -> BTreeMap<String, String> {
    let entries = resource.entries.iter();
    entries.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect()
}
