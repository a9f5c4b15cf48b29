//! The commands about topics: create them, compare them with their declarations, and change what differs.

mod records;

use std::time::{Duration, Instant};

use anyhow::bail;
use shared::kafka::{Difference, Examination, Kafka, Remedy, Topic, owners};
use shared::service::config::duration;
use shared::service::secret::SettingError;

use super::patiently;
use crate::output::{complain, say};
use crate::suite::{Cluster, SERVICES};

/// How long the cluster may take until all its brokers know a change.
const SETTLING: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The commands about topics.
#[derive(Debug, clap::Subcommand)]
pub enum Topics {
    /// Create the topics that do not exist, and change settings of existing ones where that loses nothing.
    ///
    /// It prints what still differs from the declarations, and exits with 1 if that endangers a guarantee.
    Apply(Apply),
    /// Compare the topics with their declarations, and change nothing.
    ///
    /// It exits with 1 if a guarantee is endangered or if the settings cannot be read.
    Verify(Broker),
    /// List the topics, with their partitions and retention.
    List,
    /// Give a service's topics up, so that another database can take them.
    ///
    /// The topics belong to the database that the service had first. A service with another database ends at its start.
    /// Stop the service, and make sure that its first database is gone for good.
    Release {
        /// The service.
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(SERVICES))]
        service: String,
        #[command(flatten)]
        broker: Broker,
    },
}

/// What `topics apply` may do.
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    broker: Broker,
    /// Also change settings of existing topics where that may delete records or refuse writes.
    #[arg(long)]
    alter: bool,
    /// Also add partitions to topics that have records. All orders must have settled, and all services must be stopped.
    #[arg(long)]
    add_partitions: bool,
}

/// The Kafka cluster, and what is declared.
#[derive(Debug, clap::Args)]
pub struct Broker {
    /// The brokers, host:port, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: String,
    /// How long to wait for a broker that does not answer yet, for example 60s.
    #[arg(long, default_value = "0s", value_parser = duration)]
    wait: Duration,
    /// The number of partitions, if it is not the number that the release declares.
    #[arg(long = "partitions", env = "TOPIC_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=1000))]
    topic_partitions: Option<i32>,
    /// How long the services remember message ids; topics must keep records for less.
    #[arg(long, env = "INBOX_RETENTION", default_value = "14d", value_parser = duration)]
    inbox_retention: Duration,
    #[command(flatten)]
    cluster: Cluster,
}

impl Topics {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List => {
                for topic in schemas::topics::all() {
                    let days = topic.retention.as_secs() / 86_400;
                    say!("{:<22} {} partitions, kept {days} days", topic.name, topic.partitions);
                }
                Ok(())
            }
            Self::Release { service, broker } => {
                match owners::release(&broker.kafka()?, &service)? {
                    Some(database) => {
                        say!("the topics of {service} no longer belong to the database {database}");
                    }
                    None => say!("the topics of {service} belong to no database"),
                }
                Ok(())
            }
            Self::Apply(apply) => crate::runtime::block_on(apply.run()),
            Self::Verify(broker) => crate::runtime::block_on(async {
                let found = broker.examine().await?;
                report(&found)?;
                if !found.unread.is_empty() {
                    bail!("the settings of {} topics could not be checked", found.unread.len());
                }
                say!("{} topics exist, and none endangers a guarantee", broker.topics().len());
                Ok(())
            }),
        }
    }
}

impl Broker {
    fn kafka(&self) -> Result<Kafka, SettingError> {
        self.cluster.kafka(self.kafka_brokers.clone())
    }

    fn topics(&self) -> Vec<Topic> {
        schemas::topics::with_partitions(self.topic_partitions)
    }

    async fn examine(&self) -> anyhow::Result<Examination> {
        let (kafka, topics) = (self.kafka()?, self.topics());
        patiently(self.wait, async || Ok(kafka.examine_topics(&topics, self.inbox_retention).await?)).await
    }
}

impl Apply {
    async fn run(self) -> anyhow::Result<()> {
        let (kafka, topics) = (self.broker.kafka()?, self.broker.topics());
        patiently(self.broker.wait, async || Ok(kafka.create_topics(&topics).await?)).await?;
        let found = self.settled(&[]).await?;
        let changes = self.permitted(&kafka, &found.differences).await?;
        kafka.change_topics(&changes).await?;
        for one in &changes {
            say!("{}: {} was {} and is {} now", one.topic, one.setting, one.actual, one.right);
        }
        report(&self.settled(&changes).await?)?;
        say!("{} topics exist, and none endangers a guarantee", topics.len());
        Ok(())
    }

    /// Returns the differences that may be mended.
    async fn permitted(&self, kafka: &Kafka, found: &[Difference]) -> anyhow::Result<Vec<Difference>> {
        let mut permitted = Vec::new();
        for one in found {
            let may = match one.remedy {
                Remedy::Apply => true,
                Remedy::Alter => self.alter,
                // Where nothing was ever sent, no key can move.
                Remedy::AddPartitions => {
                    records::never_had_any(kafka, &one.topic).await? || self.add_partitions
                }
                Remedy::ByHand(_) => false,
            };
            if may {
                permitted.push(one.clone());
            }
        }
        if self.add_partitions && permitted.iter().any(|one| one.remedy == Remedy::AddPartitions) {
            records::ensure_all_read(kafka).await?;
        }
        Ok(permitted)
    }

    /// Examines the topics, and waits a while until the cluster shows what was created and changed.
    async fn settled(&self, changes: &[Difference]) -> anyhow::Result<Examination> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let found = self.broker.examine().await?;
            let pending = changes.iter().any(|one| found.differences.contains(one));
            if (found.missing.is_empty() && !pending) || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Prints what was found.
///
/// # Errors
/// Fails if a guarantee is endangered.
fn report(found: &Examination) -> anyhow::Result<()> {
    for topic in &found.missing {
        complain!("{topic}: missing; `amends topics apply` creates it");
    }
    for one in &found.differences {
        let kind = if one.endangers { "" } else { "note: " };
        complain!("{kind}{one}");
    }
    for topic in &found.unread {
        complain!("note: {topic}: the settings could not be checked, because this user may not read them");
    }
    let dangers = found.missing.len() + found.differences.iter().filter(|one| one.endangers).count();
    if dangers > 0 {
        bail!(
            "{dangers} findings endanger a guarantee; the services that use these topics do not start to work"
        );
    }
    Ok(())
}
