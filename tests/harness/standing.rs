//! How a suite stands, for whoever has to find out why a fact does not come.

use std::time::Duration;

use super::{SERVICES, Suite, kafka};

/// How many lines of each log are told.
const LINES: usize = 20;
/// How long the audit may take, as a suite that is stuck may not answer.
const AUDIT: Duration = Duration::from_secs(30);

impl Suite {
    /// Tells what every process said last, what was not sent, what was not taken, and what the audit finds.
    #[expect(clippy::print_stdout, reason = "the test runner shows it if the test fails")]
    pub(super) async fn print_standing(&self, what: &str) {
        // First, as the rest may panic where a server is down.
        println!("-- {} waits in vain for {what}", self.name);
        for (service, replica) in self.replicas() {
            let log = std::fs::read_to_string(self.log(service, replica)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("-- {service}-{replica}\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
        let standing = async {
            for service in self.services.iter().copied() {
                println!("-- {service}: {} rows not sent", self.unsent(service).await);
                for behind in self.behind(service) {
                    println!("-- {service}: {behind}");
                }
            }
            if self.services == SERVICES {
                println!("-- audit: {}", self.audited_now().await);
            }
        };
        if tokio::time::timeout(AUDIT, standing).await.is_err() {
            println!("-- the rest can't be said: something does not answer");
        }
    }

    /// The partitions whose end a service's group has not committed.
    fn behind(&self, service: &str) -> Vec<String> {
        let marks = self.marks(service).into_iter().flatten().filter(|mark| mark.committed < mark.end);
        marks
            .map(|kafka::Mark { place, committed, end }| format!("{place}: committed {committed} of {end}"))
            .collect()
    }
}
