//! The cache: one process at a time fills it, and an interruption leaves it usable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use local::{Backend, Servers, Silent};

use crate::helper::{Folder, another_process, kill, options, until};

fn unfinished(cache: &Path) -> usize {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".unfinished-")).count()
}

#[test]
fn an_interrupted_preparation_leaves_the_next_start_fine() {
    let folder = Folder::new();
    let cache = folder.0.join("cache");
    let child = another_process("prepare", &folder.0).spawn().expect("another process");
    let unpacking = || {
        let entries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().join("postgres/lib").exists())
    };
    until("it is unpacking", Duration::from_secs(180), unpacking);
    kill(child);
    assert_eq!(unfinished(&cache), 1, "the kill came too late to interrupt anything");

    // Two processes at the same time, each with its own state folder, share one cache.
    let other = Folder::new();
    std::os::unix::fs::symlink(&cache, other.0.join("cache")).expect("a link");
    let children =
        [&folder, &other].map(|it| another_process("prepare", &it.0).spawn().expect("another process"));
    for mut child in children {
        assert!(child.wait().expect("its end").success());
    }
    assert_eq!(unfinished(&cache), 0);
    a_class_archive_is_made_behind_a_start(&folder, cache);
}

fn a_class_archive_is_made_behind_a_start(folder: &Folder, cache: PathBuf) {
    let mut options = options(&folder.0.join("state"));
    options.cache = Some(cache.clone());
    let servers = Servers::start(&options, &Silent).expect("servers");
    let flags = || {
        let pid = servers.kafka().pid().expect("Kafka runs");
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a command line")
    };
    assert!(!flags().contains("-XX:SharedArchiveFile="), "the first start waits for no archive");
    servers.speed_up_later_starts();
    let made = || {
        let entries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|it| it == "jsa"))
    };
    until("there is an archive", Duration::from_secs(600), made);
    servers.kafka().restart().expect("started again");
    assert!(flags().contains("-XX:SharedArchiveFile="), "{}", flags());
}

#[test]
fn a_bare_machine_is_told_what_to_install() {
    let folder = Folder::new();
    let mut command = another_process("bare", &folder.0);
    command.env("PATH", "/nonexistent").env_remove("JAVA_HOME").env_remove(Backend::VARIABLE);
    assert!(command.status().expect("its end").success());
    let text = std::fs::read_to_string(folder.0.join("error")).expect("an error");
    assert!(
        text.contains("java") && text.contains("apt-get install maven") && text.contains("Docker"),
        "{text}"
    );
}
