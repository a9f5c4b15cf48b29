//! Programs that do one job and end, such as `initdb` or `docker pull`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::account::{Account, run_as};
use crate::error::{Doing, Error, LogTail};
use crate::spawn::spawn_bound;

/// Runs a program to its end, as `account` if one is given. Its output goes to the file `log`.
///
/// `what` is the program's purpose, for the error message. Fails with [`Error::Tool`], which quotes the log, if the
/// program reports a failure.
pub(crate) fn run_tool(
    what: &'static str,
    mut command: Command,
    account: Option<&Account>,
    log: &Path,
) -> Result<(), Error> {
    let file = File::create(log).doing("create", log)?;
    let copy = file.try_clone().doing("open", log)?;
    run_as(&mut command, account);
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let program = PathBuf::from(command.get_program());
    let status =
        spawn_bound(command, Signal::KILL).and_then(|mut child| child.wait()).doing("run", &program)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Tool { what, status, hint: "", log: LogTail::of(log, |_| true) })
}

/// Looks for an executable file on the PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// Returns 12 hexadecimal digits of a SHA-256 over `parts`: enough to name a folder.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        // Without a separator `["ab", "c"]` and `["a", "bc"]` would get the same name.
        hash.update([0]);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
