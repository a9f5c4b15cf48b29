//! The PostgreSQL and the Kafka of a suite: processes of this machine, or containers. The tests are the same.
//!
//! `AMENDS_SERVERS` chooses between `local` and `docker`. With `auto`, or without it, the servers are containers if Java or
//! Maven is missing and a container engine answers. With the feature `containers` they are containers of testcontainers,
//! which can also be cut off from their network.

#[cfg(feature = "containers")]
mod containers;
mod local;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use ::local::Backend;

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Kafka,
}

/// A PostgreSQL and a Kafka. They are deleted with their data when this is dropped. The calls block the thread.
pub trait Servers: Send + Sync {
    fn postgres_url(&self, database: &str, user: &str) -> String;
    fn kafka_brokers(&self) -> String;
    /// Kills a server, as a crash does.
    fn kill(&self, server: Server);
    /// Starts a server again with its address and its data, and waits until it serves.
    fn restart(&self, server: Server);
    /// Freezes a server: it answers nothing and closes no connection.
    fn freeze(&self, server: Server);
    fn thaw(&self, server: Server);
    /// Returns the network of the servers, if it can be cut.
    fn network(&self) -> Option<&dyn Network>;

    /// Returns the superuser's URL.
    fn admin_url(&self) -> String {
        self.postgres_url("postgres", "postgres")
    }
}

pub trait Network {
    /// Cuts a server off: it keeps running, but nothing reaches it, and it reaches nobody.
    fn cut(&self, server: Server);
    fn mend(&self, server: Server);
}

static SHARED: LazyLock<Arc<dyn Servers>> = LazyLock::new(|| start("servers"));

/// Returns the servers that most tests share.
pub fn shared() -> Arc<dyn Servers> {
    blocking(|| Arc::clone(&SHARED))
}

/// Starts servers for one test.
pub fn own(name: &str) -> Arc<dyn Servers> {
    blocking(|| start(name))
}

fn start(name: &str) -> Arc<dyn Servers> {
    #[cfg(feature = "containers")]
    if in_containers() {
        return Arc::new(containers::Containers::start());
    }
    Arc::new(local::start(name, backend()))
}

/// Returns how further servers are run.
pub fn backend() -> Backend {
    if in_containers() { Backend::Docker } else { Backend::Local }
}

fn in_containers() -> bool {
    static CHOICE: LazyLock<bool> = LazyLock::new(|| match Backend::from_env() {
        Ok(Backend::Docker) => true,
        Ok(Backend::Local) => false,
        Ok(Backend::Auto) => {
            !(runs("java", "-version") && runs("mvn", "--version")) && runs("docker", "version")
        }
        Err(error) => panic!("{error}"),
    });
    *CHOICE
}

fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|ended| ended.success())
}

/// Calls, from within a test's runtime, a function that blocks and has a runtime of its own.
pub fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the folder for the files of tests.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
