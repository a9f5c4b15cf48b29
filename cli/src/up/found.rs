//! What earlier runs have left in the state folder.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// Returns what is said of the data of earlier runs, if there is any.
pub(super) fn tell(state: &Path, fresh: bool) -> Option<String> {
    // A server in a container leaves a file that names its volume.
    let left = ["postgres", "kafka", "postgres.volume", "kafka.volume"];
    if left.iter().all(|name| !state.join(name).exists()) {
        return None;
    }
    // The log is written as long as the server runs.
    let written = std::fs::metadata(state.join("postgres.log")).and_then(|log| log.modified()).ok();
    let age = written.and_then(|written| SystemTime::now().duration_since(written).ok());
    let last = age.map(|age| format!(", last used {} ago", rounded(age))).unwrap_or_default();
    let state = state.display();
    Some(if fresh {
        format!("--fresh deletes the databases and topics in {state}{last}")
    } else {
        format!(
            "the data of earlier runs in {state}{last} is used again; `amends up --fresh` would delete it"
        )
    })
}

fn rounded(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_earlier_runs_is_told_of_and_fresh_says_what_it_deletes() {
        let state = std::env::temp_dir().join(format!("amends-found-{}", std::process::id()));
        std::fs::create_dir_all(&state).expect("a folder");
        assert_eq!(tell(&state, true), None);
        std::fs::create_dir_all(state.join("postgres")).expect("a folder");
        std::fs::write(state.join("postgres.log"), "").expect("a file");
        let kept = tell(&state, false).expect("data");
        assert!(kept.contains("is used again") && kept.contains(" s ago"), "{kept}");
        let deleted = tell(&state, true).expect("data");
        assert!(deleted.contains("--fresh deletes the databases and topics"), "{deleted}");
        std::fs::remove_dir_all(&state).expect("removed");
        assert_eq!(rounded(Duration::from_secs(7300)), "2 h");
    }
}
