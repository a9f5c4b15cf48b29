//! Two kinds of members of consumer groups: one for messages that somebody waits for, and one for those that nobody waits
//! for. A fetch costs the broker and the service nearly the same for one record as for a hundred. Without the second kind,
//! each event of an order would wake every service that keeps a read model.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::config::ClientConfig;

use crate::router::Temper;

/// How long the broker collects records for a background member.
const BACKGROUND_WAIT: &str = "200";

impl Temper {
    /// Returns the consumer group of the members of this kind. Lag is thus shown separately.
    pub fn group(self, group: &str) -> String {
        match self {
            Self::Prompt => group.to_owned(),
            Self::Background => format!("{group}-background"),
        }
    }

    /// Sets how soon a member of this kind fetches records, and how soon it is replaced.
    pub fn configure(self, config: &mut ClientConfig) {
        let settings = match self {
            Self::Prompt => [
                ("fetch.min.bytes", "1"),
                ("fetch.wait.max.ms", "500"),
                ("heartbeat.interval.ms", "1000"),
                ("session.timeout.ms", "6000"),
            ],
            // Nobody waits for a takeover either.
            Self::Background => [
                ("fetch.min.bytes", "1000000"),
                ("fetch.wait.max.ms", BACKGROUND_WAIT),
                ("heartbeat.interval.ms", "2000"),
                ("session.timeout.ms", "10000"),
            ],
        };
        for (name, value) in settings {
            config.set(name, value);
        }
    }
}

/// Whether the members of a consumer have their shares of the partitions. A kind of member without topics needs none.
#[derive(Debug)]
pub(crate) struct Assigned {
    prompt: AtomicBool,
    background: AtomicBool,
    /// Which kinds do not join, because the database was set back in time.
    prompt_behind: AtomicBool,
    background_behind: AtomicBool,
}

impl Assigned {
    pub fn new(prompt: bool, background: bool) -> Self {
        Self {
            prompt: AtomicBool::new(prompt),
            background: AtomicBool::new(background),
            prompt_behind: AtomicBool::new(false),
            background_behind: AtomicBool::new(false),
        }
    }

    pub fn set(&self, temper: Temper, assigned: bool) {
        let flag = match temper {
            Temper::Prompt => &self.prompt,
            Temper::Background => &self.background,
        };
        flag.store(assigned, Ordering::Release);
    }

    /// Sets whether the members of this kind do not join, because the database was set back in time.
    pub fn set_behind(&self, temper: Temper, behind: bool) {
        let flag = match temper {
            Temper::Prompt => &self.prompt_behind,
            Temper::Background => &self.background_behind,
        };
        flag.store(behind, Ordering::Release);
    }

    #[cfg(feature = "service")]
    pub fn any_behind(&self) -> bool {
        self.prompt_behind.load(Ordering::Acquire) || self.background_behind.load(Ordering::Acquire)
    }

    #[cfg(feature = "service")]
    pub fn all(&self) -> bool {
        self.prompt.load(Ordering::Acquire) && self.background.load(Ordering::Acquire)
    }
}
