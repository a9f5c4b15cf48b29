//! Kafka's broker: its settings, its home folder, and the commands that format and start it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Prepared;
use crate::docker::Container;
use crate::error::{Doing, Error};
use crate::files;
use crate::java::Java;
use crate::ports::Ports;
use crate::tool::run_tool;

/// The cluster's id: any 16 bytes, in the base64 that Kafka uses. It can be constant because no other node ever joins.
const CLUSTER_ID: &str = "YW1lbmRzLWxvY2FsLWRldg";

/// Makes `dir` a broker's home, with settings and a formatted log folder. Returns its canonical path.
pub(crate) fn lay_out(dir: &Path, prepared: &Prepared, ports: Ports) -> Result<PathBuf, Error> {
    files::make_dir(dir)?;
    let home = dir.canonicalize().doing("find", dir)?;
    let data = home.join("data");
    if !data.exists() {
        files::copy_tree(&prepared.formatted, &data, None, |_| Ok(()))?;
    }
    let settings = home.join("server.properties");
    fs::write(&settings, render(&properties("127.0.0.1", ports, "data"))).doing("write", &settings)?;
    Ok(home)
}

/// Returns the command that starts a broker in `home`, with `flags` as further flags for the JVM.
pub(crate) fn command(prepared: &Prepared, home: &Path, heap_mb: u32, flags: &[&str]) -> Command {
    let mut command = jvm(&prepared.java, &prepared.classpath);
    command.current_dir(home);
    command.args(["-Xms32m", &format!("-Xmx{heap_mb}m"), "-Xss256k", "-XX:ReservedCodeCacheSize=64m"]);
    command.args(["-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"]);
    command.args(flags).args(["kafka.Kafka", "server.properties"]);
    command
}

/// Returns `docker run` for a broker from `image`.
pub(crate) fn container_command(container: &Container, image: &str, ports: Ports, heap_mb: u32) -> Command {
    let data = "/var/lib/kafka/data";
    // The image takes each property as a variable: `node.id` is KAFKA_NODE_ID.
    let mut env: Vec<(String, String)> = properties("0.0.0.0", ports, data)
        .into_iter()
        .map(|(name, value)| (format!("KAFKA_{}", name.replace('.', "_").to_uppercase()), value))
        .collect();
    env.push(("CLUSTER_ID".to_owned(), CLUSTER_ID.to_owned()));
    env.push(("KAFKA_HEAP_OPTS".to_owned(), format!("-Xms32m -Xmx{heap_mb}m")));
    container.run(data, &[(ports.kafka, ports.kafka)], &env, image)
}

/// Makes `work/formatted` with Kafka's storage tool. Each new state folder gets a copy of it.
pub(crate) fn format(work: &Path, classpath: &str, java: &Java) -> Result<(), Error> {
    let ports = Ports { postgres: 0, kafka: 9092, kafka_controller: 9093 };
    let settings = work.join("format.properties");
    fs::write(&settings, render(&properties("127.0.0.1", ports, "formatted"))).doing("write", &settings)?;
    let mut command = jvm(java, classpath);
    command.current_dir(work);
    // An id may begin with `-`, so it must not be an argument of its own.
    let id = format!("--cluster-id={CLUSTER_ID}");
    command.args(["kafka.tools.StorageTool", "format", &id, "-c", "format.properties"]);
    run_tool("formatting Kafka's storage", command, None, &work.with_file_name("format.log"))
}

fn jvm(java: &Java, classpath: &str) -> Command {
    let mut command = Command::new(&java.program);
    // With the default, each thread has a malloc arena of its own, which costs more memory than it saves time.
    command.env("MALLOC_ARENA_MAX", "2");
    // Options that are meant for the user's other programs could break the archive or the memory limits.
    command.env_remove("JAVA_TOOL_OPTIONS").env_remove("_JAVA_OPTIONS").env_remove("JDK_JAVA_OPTIONS");
    command.env_remove("CLASSPATH").args(["-cp", classpath]);
    command.args(["-XX:+UseSerialGC", "-Xshare:auto"]);
    // In the first minutes the compiler takes half of Kafka's time, so it must not hold up what somebody waits for.
    command.args(["-XX:ThreadPriorityPolicy=1", "-XX:CompilerThreadPriority=15"]);
    command.args([
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
    ]);
    command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS");
    command
}

fn render(properties: &[(&'static str, String)]) -> String {
    properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// Returns all settings of a broker that listens on the address `listen`. Clients reach it on 127.0.0.1.
///
/// `data` should be a relative path: Kafka would take a comma in an absolute one for a separator of two folders.
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
    // After a kill the old registration must time out, and groups must notice a lost member. With the defaults,
    // which suit production, each restart in a test would take several seconds longer.
    ("broker.heartbeat.interval.ms", "500"),
    ("broker.session.timeout.ms", "3000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "10000"),
];
