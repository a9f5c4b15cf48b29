//! The cache folder: the servers' programs, fetched once and shared by all state folders.
//!
//! A process fills it while it holds the lock. It makes each thing under an unfinished name and renames it when it is
//! complete. So a thing with its final name can be used without the lock, and the next holder removes the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::account::{Account, is_root};
use crate::error::{Doing, Error, Missing};
use crate::files::{self, UNFINISHED};
use crate::java::Java;
use crate::lock::{Lock, Waiting};
use crate::maven;
use crate::progress::Progress;
use crate::tool::{short_hash, which};

/// How long to wait for another process that fills the cache. A download over a slow network takes minutes.
const LOCK_LIMIT: Duration = Duration::from_secs(900);

/// The folder of downloads and templates.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub root: PathBuf,
}

/// Programs and templates in the cache, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// The folder with `bin`, `lib` and `share` of PostgreSQL.
    pub postgres: PathBuf,
    /// A data folder that `initdb` has just made. Each state folder gets a copy.
    pub cluster: PathBuf,
    /// Kafka's class path. A class-data archive requires the same order each time.
    pub classpath: String,
    /// A log folder that Kafka's storage tool has just formatted. Each state folder gets a copy.
    pub formatted: PathBuf,
    pub java: Java,
    pub cache: Cache,
}

impl Cache {
    /// Opens the folder `chosen`, or the default one, and creates it if need be.
    ///
    /// Fails with [`Error::Unreachable`] if the account that PostgreSQL will run as may not enter the folder.
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

    /// Takes the cache's lock, then removes what runs that were killed left unfinished.
    pub fn lock(&self, progress: &dyn Progress) -> Result<Lock, Error> {
        let waiting = Waiting {
            step: &|holder| format!("waiting for {holder}, which prepares the servers"),
            done: "the other process has prepared the servers",
        };
        let lock = Lock::take(&self.root, "lock", LOCK_LIMIT, &waiting, progress)?;
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

    /// Returns the folder of the servers. Its name follows from the pom, so that a changed pom gets a new folder.
    pub fn servers(&self, platform: &str) -> PathBuf {
        self.root.join(format!("servers-{}", short_hash(&[maven::POM, platform])))
    }

    /// Returns the first thing that this machine lacks to run the servers as child processes.
    ///
    /// Maven counts as missing only until the servers are in the cache.
    pub fn missing(&self) -> Option<Missing> {
        let prepared = maven::platform().is_ok_and(|platform| self.servers(platform).is_dir());
        match Java::find() {
            Err(missing) => Some(missing),
            Ok(_) if prepared || which("mvn").is_some() => None,
            Ok(_) => Some(Missing::Maven),
        }
    }
}

/// Root's cache must be readable for PostgreSQL's account, and `/root` is not. Other users have it in their home.
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
