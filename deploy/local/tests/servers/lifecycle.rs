//! Starts and stops: servers end with their run, and their data stays for the next.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use local::{Error, Postgres, Servers, Silent};

use crate::helper::{Folder, another_process, is_root, kill, options, runs, sql, until};

#[test]
fn servers_stop_quickly_and_leave_their_ports() {
    let folder = Folder::new();
    let options = options(&folder.0);
    let servers = Servers::start(&options, &Silent).expect("servers");
    assert_eq!(sql(&servers.admin_url(), "select 1::bigint").expect("an answer"), Some(1));
    let begun = Instant::now();
    servers.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "stopping took {:?}", begun.elapsed());
    for port in [options.ports.postgres, options.ports.kafka, options.ports.kafka_controller] {
        local::ensure_free(port, "the test").expect("the port is free again");
    }
}

#[test]
fn a_killed_run_takes_its_servers_along_and_the_next_finds_its_data() {
    let folder = Folder::new();
    let child = another_process("serve", &folder.0).spawn().expect("another process");
    let told = folder.0.join("pids");
    until("the other process has servers", Duration::from_secs(180), || told.exists());
    let text = std::fs::read_to_string(&told).expect("pids");
    let pids: Vec<u32> = text.split(' ').map(|pid| pid.parse().expect("a pid")).collect();
    assert!(pids.iter().all(|pid| runs(*pid)));
    kill(child);
    // This test doesn't wait: the start itself must wait for the servers that are still shutting down.
    let servers = Servers::start(&options(&folder.0.join("state")), &Silent).expect("servers");
    assert!(!pids.iter().any(|pid| runs(*pid)), "servers of the killed run are still there");
    assert_eq!(sql(&servers.admin_url(), "select n from kept").expect("an answer"), Some(42));
}

#[test]
fn a_fresh_start_forgets() {
    let folder = Folder::new();
    let mut options = options(&folder.0);
    let first = Postgres::start(&options, &Silent).expect("PostgreSQL");
    sql(&first.admin_url(), "create table kept as select 42::bigint as n").expect("a table");
    first.stop();
    options.fresh = true;
    let second = Postgres::start(&options, &Silent).expect("PostgreSQL");
    assert!(sql(&second.admin_url(), "select n from kept").is_err());
}

/// A database that is moved between two clusters with one system identifier would be taken for one that stayed.
#[test]
fn each_cluster_has_a_system_identifier_of_its_own_and_keeps_it() {
    let (one, other) = (Folder::new(), Folder::new());
    let asked = "select system_identifier from pg_control_system()";
    let identifier = |folder: &Folder| {
        let server = Postgres::start(&options(&folder.0), &Silent).expect("PostgreSQL");
        sql(&server.admin_url(), asked).expect("an answer").expect("a number")
    };
    let first = identifier(&one);
    assert_ne!(first, identifier(&other));
    assert_eq!(first, identifier(&one));
}

#[test]
fn a_second_run_on_a_state_folder_is_told_who_has_it() {
    let folder = Folder::new();
    let _first = Postgres::start(&options(&folder.0), &Silent).expect("PostgreSQL");
    let error = Postgres::start(&options(&folder.0), &Silent).err().expect("it is taken");
    assert!(matches!(error, Error::StateInUse { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn root_may_keep_its_state_in_a_private_folder() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o700)).expect("private");
    let state = folder.0.join("state");
    let begin = || Postgres::start(&options(&state), &Silent).expect("PostgreSQL");
    let first = begin();
    sql(&first.admin_url(), "create table kept as select 42::bigint as n").expect("a table");
    first.stop();
    let second = begin();
    assert_eq!(sql(&second.admin_url(), "select n from kept").expect("an answer"), Some(42));
    second.stop();
    // A user who deletes the state folder wants to be rid of the data beside the cache, too.
    std::fs::remove_dir_all(&state).expect("removed");
    let third = begin();
    assert!(sql(&third.admin_url(), "select n from kept").is_err());
    third.stop();
    let mut forget = options(&state);
    forget.fresh = true;
    let elsewhere = std::fs::read_link(state.join("postgres")).expect("a link");
    Postgres::start(&forget, &Silent).expect("PostgreSQL").stop();
    std::fs::remove_dir_all(elsewhere).expect("nothing is left in the cache");
}
