//! The state folder: what one run of the suite keeps. One run at a time may use it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Options;
use crate::account::Account;
use crate::cache::{Cache, short_hash};
use crate::docker::Container;
use crate::error::{Doing, Error};
use crate::files::{self, Lock};
use crate::ports::ensure_free;
use crate::progress::{Progress, Step};
use crate::unit::{await_vacant, turn_log};

/// How long a run that was told to stop may take to be gone.
const STOPPING: Duration = Duration::from_secs(5);

/// One server's part of a state folder, held by this process.
pub(crate) struct Claim {
    pub state: PathBuf,
    /// The server's data, unless it had to be put elsewhere.
    pub dir: PathBuf,
    pub log: PathBuf,
    pub container: Container,
    pub lock: Lock,
}

impl Claim {
    /// Takes the server's part of the state folder, waits for what an earlier run left to be gone, and
    /// makes sure of the ports.
    pub fn take(
        options: &Options,
        server: &'static str,
        folder: &str,
        ports: &[(u16, &str)],
        progress: &dyn Progress,
    ) -> Result<Claim, Error> {
        files::make_dir(&options.state)?;
        let state = options.state.canonicalize().doing("find", &options.state)?;
        let mut step = None;
        let lock = Lock::take(&state.join(format!("{folder}.lock")), STOPPING, |holder| {
            let who = holder.as_ref().map_or_else(|| "another run".to_owned(), ToString::to_string);
            step = Some(Step::begin(progress, format!("waiting for {who} to leave {}", state.display())));
        })?
        .map_err(|holder| Error::StateInUse { state: state.clone(), holder })?;
        if let Some(step) = step {
            step.done("the state folder is free");
        }
        let dir = state.join(folder);
        let container = Container::of(&state, folder);
        if container.marker.exists() {
            container.remove();
        }
        await_vacant(server, &dir)?;
        for (port, what) in ports {
            ensure_free(*port, what)?;
        }
        if options.fresh {
            container.forget()?;
            forget(&dir)?;
        }
        let log = state.join(format!("{folder}.log"));
        turn_log(&log)?;
        Ok(Claim { state, dir, log, container, lock })
    }
}

/// Removes a server's data, also when it is elsewhere.
fn forget(dir: &Path) -> Result<(), Error> {
    if let Ok(elsewhere) = fs::read_link(dir) {
        files::remove_tree(&elsewhere)?;
        return fs::remove_file(dir).doing("remove", dir);
    }
    files::remove_tree(dir)
}

/// Where PostgreSQL's data goes, and the account that is to own it.
///
/// When we are root and the state folder is below a private one (such as /root), the unprivileged account
/// can't get there. Then the data is kept beside the cache, and a link in the state folder leads to it.
pub(crate) fn postgres_home(claim: &Claim, cache: &Cache) -> Result<(PathBuf, Option<Account>), Error> {
    let plain = &claim.dir;
    let Some(account) = Account::for_postgres()? else {
        return Ok((plain.clone(), None));
    };
    if let Some(owner) = Account::owner_of(plain) {
        return Ok((plain.canonicalize().doing("find", plain)?, Some(owner)));
    }
    if account.may_enter(&claim.state) {
        // A link whose data is gone would only lead astray.
        if plain.is_symlink() {
            fs::remove_file(plain).doing("remove", plain)?;
        }
        return Ok((plain.clone(), Some(account)));
    }
    let states = cache.root.join("states");
    files::make_dir(&states)?;
    sweep(&states);
    let home = states.join(short_hash(&[&claim.state.to_string_lossy()]));
    // Data without a link belongs to a state folder that was deleted since: Kafka's half of it is gone.
    files::remove_tree(&home)?;
    if plain.is_symlink() {
        fs::remove_file(plain).doing("remove", plain)?;
    }
    let origin = home.with_extension("origin");
    fs::write(&origin, claim.dir.as_os_str().as_encoded_bytes()).doing("write", &origin)?;
    symlink(&home, plain).doing("create", plain)?;
    Ok((home, Some(account)))
}

/// Removes data whose state folder no longer links to it. It is only tidying, so faults are ignored.
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
