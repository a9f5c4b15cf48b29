//! Prints the state of a suite, so that people can find out why a test has waited without success.

use std::time::Duration;

use super::{SERVICES, Suite, kafka};

/// How many lines of each log are printed.
const LINES: usize = 20;
/// How long the audit may take. A suite that is stuck may not answer.
const AUDIT: Duration = Duration::from_secs(30);

impl Suite {
    /// Prints the end of every log, the messages that were not sent or not handled, and the findings of the audit.
    #[expect(clippy::print_stdout, reason = "the test runner shows it if the test fails")]
    pub(super) async fn print_standing(&self, what: &str) {
        // The logs come first, because the rest may panic if a server is down.
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

    /// Returns the partitions that a service's group has not read to their ends.
    fn behind(&self, service: &str) -> Vec<String> {
        let marks = self.marks(service).into_iter().flatten().filter(|mark| mark.committed < mark.end);
        marks
            .map(|kafka::Mark { place, committed, end }| format!("{place}: committed {committed} of {end}"))
            .collect()
    }
}
