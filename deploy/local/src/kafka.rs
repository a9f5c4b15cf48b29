//! A real Apache Kafka: one node that is both broker and controller.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::broker;
use crate::cache::Prepared;
use crate::class_archive;
use crate::docker::Container;
use crate::error::Error;
use crate::instance::{Instance, Launch};
use crate::options::Options;
use crate::ports::Ports;
use crate::probe::Probe;
use crate::ready::await_ready;
use crate::server::{Server, Software};
use crate::state::Claim;

/// How long a start may take, with the recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(90);

/// An Apache Kafka 4.3.
pub type Kafka = Server<KafkaSoftware>;

/// What distinguishes Kafka from other servers.
pub struct KafkaSoftware {
    ports: Ports,
    heap_mb: u32,
}

impl Software for KafkaSoftware {
    const NAME: &'static str = "Kafka";
    const FOLDER: &'static str = "kafka";
    const IMAGE: &'static str = "apache/kafka:4.3.1";
    /// An orderly end takes a second and saves the next start four. The controller believes that a killed broker is
    /// alive until its session times out.
    const STOP_SIGNAL: Signal = Signal::TERM;

    fn new(options: &Options) -> Self {
        KafkaSoftware { ports: options.ports, heap_mb: options.kafka_heap_mb }
    }

    fn port(&self) -> u16 {
        self.ports.kafka
    }

    fn ports(&self) -> Vec<(u16, &'static str)> {
        vec![(self.ports.kafka, Self::NAME), (self.ports.kafka_controller, "Kafka's controller")]
    }

    fn in_folder(&self, claim: &Claim, prepared: &Prepared) -> Result<(PathBuf, Launch), Error> {
        let folder = broker::lay_out(&claim.dir, prepared, self.ports)?;
        let (prepared, home, heap_mb) = (prepared.clone(), folder.clone(), self.heap_mb);
        let launch = move || {
            let archive = class_archive::find(&prepared);
            let flag = archive.map(|archive| format!("-XX:SharedArchiveFile={}", archive.display()));
            broker::command(&prepared, &home, heap_mb, flag.as_deref().as_slice())
        };
        Ok((folder, Box::new(launch)))
    }

    fn in_container(&self, container: Container) -> Launch {
        let (ports, heap_mb) = (self.ports, self.heap_mb);
        Box::new(move || broker::container_command(&container, Self::IMAGE, ports, heap_mb))
    }

    /// Waits until the server would create a topic.
    fn await_ready(&self, instance: &Instance) -> Result<(), Error> {
        let probe = Probe::new(self.ports.kafka);
        await_ready(instance, START_LIMIT, async || probe.attempt().await)
    }
}

impl Server<KafkaSoftware> {
    /// Returns the server's address, for the clients' setting `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }
}
