//! The account that PostgreSQL runs as. PostgreSQL refuses to run as root, so root starts it as another account.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error};

/// An unprivileged account that root can start processes as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Account {
    /// Returns the account `postgres`, else `nobody`. Returns `None` if this process isn't root and may run PostgreSQL
    /// under its own account.
    ///
    /// Fails with [`Error::NoAccount`] if `/etc/passwd` has neither.
    pub fn for_postgres() -> Result<Option<Account>, Error> {
        if !is_root() {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).doing("read", path)?;
        let account = Self::find(&passwd, "postgres").or_else(|| Self::find(&passwd, "nobody"));
        account.map(Some).ok_or(Error::NoAccount)
    }

    /// Returns the owner of a folder, unless that is root or the folder is missing.
    pub fn owner_of(dir: &Path) -> Option<Account> {
        let meta = fs::metadata(dir).ok().filter(|meta| meta.is_dir() && meta.uid() != 0)?;
        Some(Account { name: format!("uid {}", meta.uid()), uid: meta.uid(), gid: meta.gid() })
    }

    fn find(passwd: &str, name: &str) -> Option<Account> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name: name.to_owned(), uid, gid })
        })
    }

    /// Returns whether this account may pass through `dir` and all folders above it.
    pub fn may_enter(&self, dir: &Path) -> bool {
        let Ok(dir) = dir.canonicalize() else { return false };
        dir.ancestors().all(|folder| {
            let Ok(meta) = fs::metadata(folder) else {
                return false;
            };
            let bit = if meta.uid() == self.uid {
                0o100
            } else if meta.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            meta.mode() & bit != 0
        })
    }
}

/// Makes `command` run as `account`, if one is given.
///
/// A command without a working folder gets `/`, because the account may not be allowed to use the current one.
pub(crate) fn run_as(command: &mut Command, account: Option<&Account>) {
    if command.get_current_dir().is_none() {
        command.current_dir("/");
    }
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:7::/:\npostgres:x:101:104:,,,:/var:/bin/sh\n";
        let found = Account::find(passwd, "postgres").expect("it is there");
        assert_eq!((found.uid, found.gid), (101, 104));
        assert_eq!(Account::find(passwd, "nobody"), None);
    }

    #[test]
    fn a_private_folder_stops_a_stranger() {
        let nobody = Account { name: "nobody".into(), uid: 65_534, gid: 65_534 };
        assert!(nobody.may_enter(Path::new("/usr/lib")));
        assert!(!nobody.may_enter(Path::new("/proc/1/fd")));
    }
}
