//! A real Apache Kafka: one node that is broker and controller.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::cache::{Prepared, run_tool};
use crate::error::{Doing, Error};
use crate::files::{self, Lock};
use crate::java::Java;
use crate::probe::Probe;
use crate::progress::{Progress, Step};
use crate::ready::await_ready;
use crate::state::Claim;
use crate::unit::{Launch, Unit, await_vacant};
use crate::{Options, Ports, Runtime, archive, docker};

const NAME: &str = "Kafka";
const IMAGE: &str = "apache/kafka:4.3.1";
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(3);

/// Any 16 bytes in Kafka's spelling will do: nobody ever joins this cluster.
const CLUSTER: &str = "YW1lbmRzLWxvY2FsLWRldg";

/// An Apache Kafka 4.3 on 127.0.0.1 that ends with this process.
pub struct Kafka {
    unit: Unit,
    ports: Ports,
    _lock: Lock,
}

impl Kafka {
    /// Starts Kafka alone and waits until it would create a topic. A second broker needs a state folder and
    /// ports of its own.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Kafka, Error> {
        let claim = Self::claim(options, progress)?;
        let runtime = Runtime::choose(options, progress)?;
        Self::launch(claim, &runtime, options, progress)
    }

    pub(crate) fn claim(options: &Options, progress: &dyn Progress) -> Result<Claim, Error> {
        let ports = [(options.ports.kafka, NAME), (options.ports.kafka_controller, "Kafka's controller")];
        Claim::take(options, NAME, "kafka", &ports, progress)
    }

    pub(crate) fn launch(
        claim: Claim,
        runtime: &Runtime,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Kafka, Error> {
        let ports = options.ports;
        let heap = options.kafka_heap_mb;
        let (dir, launch, container): (_, Launch, _) = match runtime {
            Runtime::Native(prepared) => {
                let archive = archive::of(prepared, progress);
                let home = lay_out(&claim.dir, prepared, ports)?;
                let prepared = prepared.clone();
                let launch = {
                    let home = home.clone();
                    move || {
                        let mut command = broker(&prepared, &home, heap);
                        if let Some(archive) = &archive {
                            command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
                        }
                        finish(command)
                    }
                };
                (home, Box::new(launch), None)
            }
            Runtime::Docker => {
                docker::need(IMAGE, &claim.state, progress)?;
                claim.container.own_volume()?;
                let container = claim.container.clone();
                let launch = move || in_container(&container, ports, heap);
                (docker::working_dir(&claim.state, "kafka")?, Box::new(launch), Some(claim.container))
            }
        };
        let step = Step::begin(progress, "starting Kafka");
        let unit = Unit {
            name: NAME,
            launch,
            // An orderly end takes a second and saves the next start four: a broker that was killed is
            // taken for alive until its session runs out.
            stop: Signal::TERM,
            log: claim.log,
            dir,
            container,
            child: Mutex::default(),
            asked: Mutex::default(),
        };
        let kafka = Kafka { unit, ports, _lock: claim.lock };
        kafka.go()?;
        step.done(&format!("Kafka listens on 127.0.0.1:{}", ports.kafka));
        Ok(kafka)
    }

    fn go(&self) -> Result<(), Error> {
        await_vacant(NAME, &self.unit.dir)?;
        self.unit.start()?;
        let probe = Probe::new(self.ports.kafka);
        await_ready(&self.unit, START, async || probe.attempt().await)
    }

    /// Its address, as clients call `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.kafka)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.unit.pid()
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.unit.log
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill9(&self) -> Result<(), Error> {
        self.unit.kill9()
    }

    /// Starts it again on the same ports and data and waits until it serves; stops it first if it runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.unit.ask_to_stop();
        self.unit.finish(STOP);
        self.go()
    }

    /// Freezes it: clients hang as they would on a machine that is gone.
    pub fn sigstop(&self) -> Result<(), Error> {
        self.unit.signal(Signal::STOP)
    }

    /// Lets it go on after `sigstop`.
    pub fn sigcont(&self) -> Result<(), Error> {
        self.unit.signal(Signal::CONT)
    }

    pub(crate) fn ask_to_stop(&self) {
        self.unit.ask_to_stop();
    }

    /// Stops it in order; dropping it does the same.
    pub fn stop(self) {}
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.unit.ask_to_stop();
        self.unit.finish(STOP);
    }
}

/// Makes `dir` a broker's home: settings, and a log folder that the storage tool has formatted.
pub(crate) fn lay_out(dir: &Path, prepared: &Prepared, ports: Ports) -> Result<std::path::PathBuf, Error> {
    files::make_dir(dir)?;
    let home = dir.canonicalize().doing("find", dir)?;
    let data = home.join("data");
    if !data.exists() {
        files::copy_tree(&prepared.formatted, &data, None)?;
    }
    let settings = home.join("server.properties");
    fs::write(&settings, render(&properties("127.0.0.1", ports, "data"))).doing("write", &settings)?;
    Ok(home)
}

/// The JVM and its flags; more flags may follow before `finish`.
pub(crate) fn broker(prepared: &Prepared, home: &Path, heap_mb: u32) -> Command {
    let mut command = jvm(&prepared.java, &prepared.classpath);
    command.current_dir(home);
    command.args(["-Xms32m", &format!("-Xmx{heap_mb}m"), "-Xss256k", "-XX:ReservedCodeCacheSize=64m"]);
    command.args(["-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"]);
    command
}

/// Ends the flags and names the program.
pub(crate) fn finish(mut command: Command) -> Command {
    command.args(["kafka.Kafka", "server.properties"]);
    command
}

fn jvm(java: &Java, classpath: &str) -> Command {
    let mut command = Command::new(&java.program);
    // Each thread's own malloc arena would cost more memory than it saves time.
    command.env("MALLOC_ARENA_MAX", "2");
    // Options meant for the user's other programs could break the archive or the memory limits.
    command.env_remove("JAVA_TOOL_OPTIONS").env_remove("_JAVA_OPTIONS").env_remove("JDK_JAVA_OPTIONS");
    command.env_remove("CLASSPATH").args(["-cp", classpath]);
    command.args(["-XX:+UseSerialGC", "-Xshare:auto"]);
    command.args([
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
    ]);
    command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS");
    command
}

/// Makes `work/formatted` by Kafka's storage tool, to be copied into each new state folder.
pub(crate) fn format(work: &Path, classpath: &str, java: &Java) -> Result<(), Error> {
    let ports = Ports { postgres: 0, kafka: 9092, kafka_controller: 9093 };
    let settings = work.join("format.properties");
    fs::write(&settings, render(&properties("127.0.0.1", ports, "formatted"))).doing("write", &settings)?;
    let mut command = jvm(java, classpath);
    command.current_dir(work);
    // An id may begin with `-`, so it must not be an argument of its own.
    command.args([
        "kafka.tools.StorageTool",
        "format",
        &format!("--cluster-id={CLUSTER}"),
        "-c",
        "format.properties",
    ]);
    run_tool("formatting Kafka's storage", command, None, &work.with_file_name("format.log"))
}

fn render(properties: &[(&'static str, String)]) -> String {
    properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn in_container(container: &docker::Container, ports: Ports, heap_mb: u32) -> Command {
    let data = "/var/lib/kafka/data";
    // The image takes each property as a variable: `node.id` is KAFKA_NODE_ID.
    let mut env: Vec<(String, String)> = properties("0.0.0.0", ports, data)
        .into_iter()
        .map(|(name, value)| (format!("KAFKA_{}", name.replace('.', "_").to_uppercase()), value))
        .collect();
    env.push(("CLUSTER_ID".to_owned(), CLUSTER.to_owned()));
    env.push(("KAFKA_HEAP_OPTS".to_owned(), format!("-Xms32m -Xmx{heap_mb}m")));
    container.run(data, &[(ports.kafka, ports.kafka)], &env, &[IMAGE])
}

/// All settings of the broker, which listens on `listen` and is reached by clients on 127.0.0.1. A relative
/// `data` saves escaping: a comma in the path would make two folders of it.
fn properties(listen: &str, ports: Ports, data: &str) -> Vec<(&'static str, String)> {
    let Ports { kafka, kafka_controller: controller, .. } = ports;
    let mut all = vec![
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
        ("listeners", format!("PLAINTEXT://{listen}:{kafka},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{kafka}")),
        ("log.dirs", data.to_owned()),
    ];
    all.extend(FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())));
    all
}

const FIXED: &[(&str, &str)] = &[
    ("controller.listener.names", "CONTROLLER"),
    ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
    // There is one node, so every internal topic has one copy, and few partitions to open at each start.
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("auto.create.topics.enable", "false"),
    ("num.network.threads", "2"),
    ("num.io.threads", "2"),
    ("log.cleaner.dedupe.buffer.size", "8388608"),
    // After a kill the old registration must time out, and groups must notice a lost member: both sooner
    // than production wants.
    ("broker.heartbeat.interval.ms", "500"),
    ("broker.session.timeout.ms", "3000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "10000"),
];
