//! Audits a test's suite with `amends audit`.

use std::process::Output;
use std::sync::Mutex;

use serde_json::Value;
use tokio::process::Command;

use super::{SERVICES, Suite};

impl Suite {
    /// Runs `amends audit` with these arguments.
    async fn run_audit(&self, arguments: &[&str]) -> Output {
        let mut urls = Vec::new();
        for service in SERVICES {
            urls.push((service, self.a_ready_one(service).await));
        }
        self.audit_at(urls, arguments).await
    }

    async fn audit_at(&self, urls: Vec<(&str, String)>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.arg("audit").args(arguments);
        for (service, url) in urls {
            command.arg("--service-url").arg(format!("{service}={url}"));
        }
        command.arg("--kafka-brokers").arg(self.servers.kafka_brokers());
        command.arg("--topic-prefix").arg(format!("{}.", self.name));
        command.output().await.expect("it runs")
    }

    /// Returns the URL of a process of the service that is ready; others may have been killed.
    async fn a_ready_one(&self, service: &'static str) -> String {
        let (all, found) = (self.replicas(), Mutex::new(None));
        self.until(&format!("one {service} to be ready"), async |suite| {
            for (_, replica) in all.iter().filter(|(name, _)| *name == service) {
                let url = suite.replica_url(service, *replica);
                let answer = suite.client.get(format!("{url}/readyz")).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    *found.lock().expect("no panic") = Some(url);
                    return true;
                }
            }
            false
        })
        .await;
        found.into_inner().expect("no panic").expect("it was found")
    }

    /// Checks that all nine invariants hold once the suite has come to rest.
    pub async fn audit(&self) {
        let audit = self.run_audit(&["--wait", "60s"]).await;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            audit.status.success(),
            "{}: the audit fails\n{}{}",
            self.name,
            said(&audit.stdout),
            said(&audit.stderr)
        );
    }

    /// Returns the text of an audit that waits for nothing. The suite may be broken.
    pub(super) async fn audited_now(&self) -> String {
        let urls = SERVICES.map(|service| (service, self.url(service)));
        let audit = self.audit_at(urls.to_vec(), &["--wait", "0s"]).await;
        String::from_utf8_lossy(&[audit.stdout, audit.stderr].concat()).into_owned()
    }

    /// Returns what an audit that waits for nothing says about one invariant.
    pub async fn invariant(&self, number: usize) -> Value {
        self.invariant_with(number, &[]).await
    }

    /// Returns the same with further arguments of the audit.
    pub async fn invariant_with(&self, number: usize, arguments: &[&str]) -> Value {
        let audit = self.run_audit(&[&["--wait", "0s", "--json"], arguments].concat()).await;
        let said: Value = serde_json::from_slice(&audit.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&audit.stderr)));
        said["statements"][number - 1].clone()
    }
}
