//! The state folder: the data and logs that the servers of one run keep for the next.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::account::Account;
use crate::cache::Cache;
use crate::docker::Container;
use crate::error::{Doing, Error};
use crate::files;
use crate::lock::{Lock, Waiting};
use crate::options::Options;
use crate::orphans::await_vacant;
use crate::ports::ensure_free;
use crate::progress::Progress;
use crate::tool::short_hash;

/// How long to wait for a run that was told to stop and still holds the state folder.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// One server's part of a state folder, held by this process.
pub(crate) struct Claim {
    /// The state folder.
    pub state: PathBuf,
    /// The server's data folder. For root's PostgreSQL it may be a link; see [`postgres_home`].
    pub dir: PathBuf,
    pub log: PathBuf,
    pub container: Container,
    pub lock: Lock,
}

impl Claim {
    /// Takes the server's part of the state folder and begins a new log. With [`Options::fresh`] it deletes the data.
    ///
    /// It first waits for an earlier run and its servers to be gone. Fails with [`Error::StateInUse`] or
    /// [`Error::StillRunning`] if they are not, and with [`Error::PortBusy`] if one of the `ports` is taken.
    pub fn take(
        options: &Options,
        server: &'static str,
        folder: &str,
        ports: &[(u16, &str)],
        progress: &dyn Progress,
    ) -> Result<Claim, Error> {
        files::make_dir(&options.state)?;
        let state = options.state.canonicalize().doing("find", &options.state)?;
        let waiting = Waiting {
            step: &|holder| format!("waiting for {holder} to leave {}", state.display()),
            done: "the state folder is free",
        };
        let lock = Lock::take(&state, &format!("{folder}.lock"), LOCK_LIMIT, &waiting, progress)?;
        let dir = state.join(folder);
        let container = Container::of(&state, folder);
        if container.has_volume() {
            container.remove();
        }
        await_vacant(server, &dir)?;
        for (port, what) in ports {
            ensure_free(*port, what)?;
        }
        if options.fresh {
            container.remove_volume()?;
            remove_data(&dir)?;
        }
        let log = state.join(format!("{folder}.log"));
        rotate(&log)?;
        Ok(Claim { state, dir, log, container, lock })
    }
}

/// Removes a server's data folder, and the folder that it links to.
fn remove_data(dir: &Path) -> Result<(), Error> {
    if let Ok(elsewhere) = fs::read_link(dir) {
        files::remove_tree(&elsewhere)?;
        return fs::remove_file(dir).doing("remove", dir);
    }
    files::remove_tree(dir)
}

/// Begins a new log and keeps the log of the run before.
fn rotate(log: &Path) -> Result<(), Error> {
    if log.exists() {
        fs::rename(log, log.with_extension("log.1")).doing("rename", log)?;
    }
    File::create(log).map(drop).doing("create", log)
}

/// Returns the folder for PostgreSQL's data and the account that must own it.
///
/// If root's state folder lies below a private one, such as `/root`, PostgreSQL's account can't enter it. The data
/// then lies beside the cache, and a link in the state folder leads to it.
pub(crate) fn postgres_home(claim: &Claim, cache: &Cache) -> Result<(PathBuf, Option<Account>), Error> {
    let plain = &claim.dir;
    let Some(account) = Account::for_postgres()? else {
        return Ok((plain.clone(), None));
    };
    if let Some(owner) = Account::owner_of(plain) {
        return Ok((plain.canonicalize().doing("find", plain)?, Some(owner)));
    }
    // A link that is still here leads to data that is gone, or that belongs to root.
    if plain.is_symlink() {
        fs::remove_file(plain).doing("remove", plain)?;
    }
    if account.may_enter(&claim.state) {
        return Ok((plain.clone(), Some(account)));
    }
    let states = cache.root.join("states");
    files::make_dir(&states)?;
    sweep(&states);
    let home = states.join(short_hash(&[&claim.state.to_string_lossy()]));
    // Data without a link belonged to a state folder that was deleted since, and Kafka's half of it with it.
    files::remove_tree(&home)?;
    let origin = home.with_extension("origin");
    fs::write(&origin, claim.dir.as_os_str().as_encoded_bytes()).doing("write", &origin)?;
    symlink(&home, plain).doing("create", plain)?;
    Ok((home, Some(account)))
}

/// Removes data whose state folder no longer links to it. Errors are ignored, because the data is only waste.
fn sweep(states: &Path) {
    for origin in fs::read_dir(states).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if origin.extension().is_none_or(|it| it != "origin") {
            continue;
        }
        let home = origin.with_extension("");
        let linked =
            fs::read_to_string(&origin).is_ok_and(|from| fs::read_link(from).is_ok_and(|to| to == home));
        if !linked && files::remove_tree(&home).is_ok() {
            let _ = fs::remove_file(&origin);
        }
    }
}
