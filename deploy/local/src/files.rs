//! Small things done to files: copies of trees, locks, replacement by renaming.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::account::Account;
use crate::error::{Doing, Error};
use crate::ports::Process;

/// How often a wait looks again.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Every folder whose name begins so is unfinished and may be swept by whoever holds the lock.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Makes `dir` and its parents passable for other accounts, whatever the umask says.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(fault) => Err(fault).doing("create", dir),
        Ok(()) => set_mode(dir, 0o755),
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing("set the permissions of", path)
}

/// Removes a tree; its absence is fine.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault).doing("remove", dir),
        _ => Ok(()),
    }
}

/// Copies a tree of plain files to `to` by way of a sibling, so that `to` is whole or absent.
pub(crate) fn copy_tree(from: &Path, to: &Path, owner: Option<&Account>) -> Result<(), Error> {
    let unfinished = unfinished_sibling(to);
    remove_tree(&unfinished)?;
    copy_into(from, &unfinished, owner)?;
    fs::rename(&unfinished, to).doing("move into place", to)
}

/// The name under which `path` is made before it is whole.
pub(crate) fn unfinished_sibling(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{UNFINISHED}{name}"))
}

fn copy_into(from: &Path, to: &Path, owner: Option<&Account>) -> Result<(), Error> {
    fs::create_dir(to).doing("create", to)?;
    for entry in fs::read_dir(from).doing("read", from)? {
        let entry = entry.doing("read", from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().doing("read", &source)?.is_dir() {
            copy_into(&source, &target, owner)?;
        } else {
            fs::copy(&source, &target).doing("copy", &source)?;
            give(&target, owner)?;
        }
    }
    let mode = fs::metadata(from).doing("read", from)?.permissions();
    fs::set_permissions(to, mode).doing("set the permissions of", to)?;
    give(to, owner)
}

/// Hands `path` to `owner`, if there is one.
pub(crate) fn give(path: &Path, owner: Option<&Account>) -> Result<(), Error> {
    owner.map_or(Ok(()), |it| lchown(path, Some(it.uid), Some(it.gid)).doing("change the owner of", path))
}

/// A lock on a file that lasts until this is dropped or the process ends; the file names the holder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, calling `waiting` once with the holder if it has to wait.
    /// Returns the holder when `patience` runs out.
    pub fn take(
        path: &Path,
        patience: Duration,
        waiting: impl FnOnce(&Option<Process>),
    ) -> Result<Result<Lock, Option<Process>>, Error> {
        let deadline = Instant::now() + patience;
        let mut waiting = Some(waiting);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .doing("open", path)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(fault) => return Err(fault).doing("lock", path),
            }
            let holder =
                fs::read_to_string(path).ok().and_then(|pid| pid.trim().parse().ok()).map(Process::of);
            if Instant::now() >= deadline {
                return Ok(Err(holder));
            }
            if let Some(waiting) = waiting.take() {
                waiting(&holder);
            }
            std::thread::sleep(POLL);
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).doing("write", path)?;
        Ok(Ok(Lock { _file: file }))
    }
}
