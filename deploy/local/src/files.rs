//! Folders and trees of files: made, copied, handed to an account, removed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Doing, Error};

/// The beginning of the names of unfinished folders. A process that holds the cache's lock may remove them.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Creates `dir` and its parents where they are missing.
///
/// The new folders let other accounts pass whatever the umask says, because PostgreSQL may run under another account.
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

/// Sets the permission bits of a file or folder.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing("set the permissions of", path)
}

/// Removes a tree. Succeeds if there is none.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault).doing("remove", dir),
        _ => Ok(()),
    }
}

/// Copies a tree of plain files to `to`, gives the copy to `owner`, and lets `finish` change it.
///
/// The copy is made under another name and renamed at the end. So a crash leaves `to` either complete or absent.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    owner: Option<&Account>,
    finish: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let unfinished = unfinished_sibling(to);
    remove_tree(&unfinished)?;
    copy_into(from, &unfinished, owner)?;
    finish(&unfinished)?;
    fs::rename(&unfinished, to).doing("move into place", to)
}

/// Returns the name under which `path` is made before it is complete.
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
            // Mostly the disk is full, so the error names the target.
            fs::copy(&source, &target).doing("copy a file to", &target)?;
            change_owner(&target, owner)?;
        }
    }
    let mode = fs::metadata(from).doing("read", from)?.permissions();
    fs::set_permissions(to, mode).doing("set the permissions of", to)?;
    change_owner(to, owner)
}

/// Makes `owner` the owner of `path`. Without an owner it does nothing.
pub(crate) fn change_owner(path: &Path, owner: Option<&Account>) -> Result<(), Error> {
    owner.map_or(Ok(()), |it| lchown(path, Some(it.uid), Some(it.gid)).doing("change the owner of", path))
}
