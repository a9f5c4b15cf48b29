//! Helpers of the tests: temporary folders, waits with a deadline, and this binary as another process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use local::{Backend, Options, Ports, Postgres, Servers, Silent};
use sqlx::{Connection, PgConnection};

/// A temporary folder. Dropping it removes it, and the volumes of containers that kept their state in it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("local-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder in the temporary one");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Containers keep their data in volumes. Files in the state folder hold the names.
        for state in [self.0.clone(), self.0.join("state")] {
            for volume in
                ["postgres.volume", "kafka.volume"].map(|it| std::fs::read_to_string(state.join(it)))
            {
                let Ok(volume) = volume else { continue };
                let _ = Command::new("docker").args(["volume", "rm", "-f", &volume]).status();
            }
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn options(state: &Path) -> Options {
    let mut options = Options::new(state);
    options.ports = Ports::free().expect("free ports");
    options.backend = Backend::from_env().expect("a known backend");
    options
}

/// Waits until `fact` is true. Panics if it isn't within `limit`.
pub fn until(what: &str, limit: Duration, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !fact() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn runs(pid: u32) -> bool {
    // A zombie has no command line any more.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Runs `statement` and returns the first column of the first row, if there is a row.
pub fn sql(url: &str, statement: &'static str) -> Result<Option<i64>, sqlx::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query_scalar(statement).fetch_optional(&mut connection).await
    })
}

const TASK: &str = "LOCAL_TEST_TASK";

/// Returns a command that runs this test binary as another process, which does `task` in `folder`.
pub fn another_process(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "helper::task", "--nocapture"]).env(TASK, task).env("LOCAL_TEST_FOLDER", folder);
    command
}

/// Kills `child` with SIGKILL and reaps it.
pub fn kill(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// Does the task of [`another_process`]. Without a task it does nothing, so it passes as a test.
#[test]
fn task() {
    let (Ok(task), Some(folder)) = (std::env::var(TASK), std::env::var_os("LOCAL_TEST_FOLDER")) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let mut options = options(&folder.join("state"));
    match task.as_str() {
        // Starts both servers, writes their pids to a file, and waits to be killed.
        "serve" => {
            let servers = Servers::start(&options, &Silent).expect("servers");
            sql(&servers.admin_url(), "create table kept as select 42::bigint as n").expect("a table");
            let pids =
                [servers.postgres().pid(), servers.kafka().pid()].map(|pid| pid.expect("runs").to_string());
            std::fs::write(folder.join("pids.tmp"), pids.join(" ")).expect("write");
            std::fs::rename(folder.join("pids.tmp"), folder.join("pids")).expect("rename");
            loop {
                std::thread::park();
            }
        }
        // Fills an empty cache.
        "prepare" => {
            options.cache = Some(folder.join("cache"));
            Postgres::start(&options, &Silent).expect("PostgreSQL").stop();
        }
        // Finds neither Java nor Maven nor Docker.
        "bare" => {
            options.cache = Some(folder.join("cache"));
            let error = Servers::start(&options, &Silent).err().expect("there is nothing to run on");
            std::fs::write(folder.join("error"), error.to_string()).expect("write");
        }
        other => panic!("unknown task {other}"),
    }
}
