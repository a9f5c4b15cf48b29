//! The PostgreSQL and the Kafka of this binary. They start with the first test that needs them and end with the process.

use std::path::PathBuf;
use std::sync::LazyLock;

use local::{Backend, Options, Ports, Servers, Silent};

static SHARED: LazyLock<Servers> = LazyLock::new(start);

/// The servers that all tests share.
pub fn shared() -> &'static Servers {
    // Starting them blocks, and brings a runtime of its own. Neither may happen on a thread of a test's runtime.
    std::thread::scope(|scope| scope.spawn(|| &*SHARED).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn start() -> Servers {
    let options = Options {
        ports: Ports::free().expect("free ports"),
        fresh: true,
        backend: Backend::from_env().expect("a known backend"),
        ..Options::new(folder().join("servers"))
    };
    Servers::start(&options, &Silent).unwrap_or_else(|error| panic!("the servers start: {error}"))
}

/// The folder for what the tests leave behind.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("core")
}
