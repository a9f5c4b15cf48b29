//! Changing topics, as an administrator of the cluster may, and `amends topics`.

use std::process::Output;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tokio::process::Command;

use super::Suite;

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

impl Suite {
    fn administrator(&self) -> AdminClient<DefaultClientContext> {
        self.kafka().client().create().expect("a client")
    }

    /// Creates a topic with these settings.
    pub async fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let name = self.kafka().name(topic);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (setting, value)| new.set(setting, value));
        let created = self.administrator().create_topics([&new], &options()).await.expect("an answer");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Replaces the settings of a topic.
    pub async fn alter_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let name = self.kafka().name(topic);
        let altered = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let altered = settings.iter().fold(altered, |altered, (setting, value)| altered.set(setting, value));
        let altered = self.administrator().alter_configs([&altered], &options()).await.expect("an answer");
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    }

    /// Returns a setting of a topic, as the broker has it.
    pub async fn topic_setting(&self, topic: &str, setting: &str) -> Option<String> {
        let name = self.kafka().name(topic);
        let asked = [ResourceSpecifier::Topic(&name)];
        let answers = self.administrator().describe_configs(&asked, &options()).await.expect("an answer");
        answers[0].as_ref().expect("settings").get(setting)?.value.clone()
    }

    /// Adds partitions to a topic, until it has this number.
    pub async fn grow(&self, topic: &str, partitions: usize) {
        let name = self.kafka().name(topic);
        let new = NewPartitions::new(&name, partitions);
        let grown = self.administrator().create_partitions([&new], &options()).await.expect("an answer");
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// Deletes all records of a topic.
    pub async fn delete_records(&self, topic: &str) {
        let name = self.kafka().name(topic);
        let mut ends = TopicPartitionList::new();
        for partition in 0..self.partitions_of(topic) {
            ends.add_partition_offset(&name, partition, Offset::End).expect("a partition");
        }
        let deleted = self.administrator().delete_records(&ends, &options()).await.expect("an answer");
        assert!(deleted.elements().iter().all(|one| one.error().is_ok()), "{deleted:?}");
    }

    /// Returns what a check of `/readyz` says, if it fails or has a notice.
    pub async fn check(&self, service: &'static str, name: &str) -> Option<String> {
        let answer = self.client.get(format!("{}/readyz", self.url(service))).send().await.ok()?;
        let ready: Value = answer.json().await.ok()?;
        let found = ready["checks"].as_array()?.iter().find(|check| check["name"] == name)?;
        found["detail"].as_str().map(str::to_owned)
    }

    /// Waits until a check of `/readyz` says this.
    pub async fn says(&self, service: &'static str, name: &str, words: &str) {
        self.until(&format!("{name} of {service} to say {words}"), async |suite| {
            suite.check(service, name).await.is_some_and(|said| said.contains(words))
        })
        .await;
    }

    /// Runs `amends topics` on the suite's topics. Returns whether it was content, and what it said.
    pub async fn topics_command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.arg("topics").args(arguments);
        command.arg("--kafka-brokers").arg(self.servers.kafka_brokers());
        command.arg("--topic-prefix").arg(format!("{}.", self.name));
        let Output { status, stdout, stderr } = command.output().await.expect("it runs");
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }
}
