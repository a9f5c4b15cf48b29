//! The limit of open files, which also bounds connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside HTTP connections: connections to the database and the brokers, and the log.
const OTHERS: u64 = 256;

/// Raises the soft limit of open files to the hard one, and returns how many connections it leaves. The soft limit is for old
/// programs that cannot handle many files.
pub(super) fn connections() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // Where that is forbidden, the soft limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    left(getrlimit(Resource::Nofile).current)
}

/// Returns how many connections a limit of files leaves; at least half of the files.
fn left(files: Option<u64>) -> u32 {
    let files = files.unwrap_or(u64::MAX);
    u32::try_from(files.saturating_sub(OTHERS).max(files / 2)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_left_for_other_things() {
        assert_eq!(left(Some(1024)), 768);
        assert_eq!(left(Some(300)), 150);
        assert_eq!(left(None), u32::MAX);
    }
}
