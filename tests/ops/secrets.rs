//! Passwords in settings: they are in no error, no log and no help, however the setting is wrong; and a file may have them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::harness::{NUMBER, PATIENCE, Process};

/// The password. Its parts must not be seen either.
const SECRET: &str = "S3cr3t";

/// Runs `amends` with these settings only. Returns the exit code and what it said.
fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    for name in ["DATABASE_URL", "KAFKA_SETTINGS", "NOTIFICATION_SMTP_URL", "DATABASE_URLS"] {
        command.env_remove(name).env_remove(format!("{name}_FILE"));
    }
    let output = command.args(arguments).envs(settings.iter().copied()).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ended by itself"), String::from_utf8(said).expect("UTF-8"))
}

fn file(name: &str, text: &str) -> PathBuf {
    let count = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{count}", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path
}

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://u@127.0.0.1:1/x");
const PAYMENT: &[&str] = &["serve", "payment"];
const NOTIFICATION: &[&str] = &["serve", "notification"];
const APPLY: &[&str] = &["topics", "apply", "--kafka-brokers", "127.0.0.1:1"];

#[test]
fn a_wrong_setting_is_named_and_its_value_is_not_told() {
    for (arguments, settings, name) in [
        (PAYMENT, &[("DATABASE_URL", "postgres://u:S3cr3t#1@db/x")][..], "DATABASE_URL"),
        (PAYMENT, &[("DATABASE_URL", "postgres://u:S3cr3t/1@db/x")], "DATABASE_URL"),
        (PAYMENT, &[("DATABASE_URL", "postgres://u@db/x?pasword=S3cr3t")], "DATABASE_URL"),
        (PAYMENT, &[DATABASE, ("KAFKA_SETTINGS", "sasl.password=S3cr3t,word")], "KAFKA_SETTINGS"),
        (PAYMENT, &[DATABASE, ("KAFKA_SETTINGS", "sasl.passwort=S3cr3t")], "`sasl.passwort`"),
        (PAYMENT, &[DATABASE, ("KAFKA_SETTINGS", "security.protocol=S3cr3t")], "`security.protocol`"),
        (PAYMENT, &[("DATABASE_URL", " ")], "DATABASE_URL"),
        (NOTIFICATION, &[DATABASE, ("NOTIFICATION_SMTP_URL", "smtp://u:S3cr3t@")], "NOTIFICATION_SMTP_URL"),
        (APPLY, &[("KAFKA_SETTINGS", "sasl.password=S3cr3t,word")], "KAFKA_SETTINGS"),
        (&["migrate"], &[("DATABASE_URLS", "postgres://{service}:S3cr3t#@db/{service}")], "DATABASE_URLS"),
        (&["migrate"], &[], "DATABASE_URLS"),
        (&["load", "--rate", "1", "--kafka-settings", "sasl.password=S3cr3t,word"], &[], "KAFKA_SETTINGS"),
        (&["audit", "--kafka-settings", "sasl.passwort=S3cr3t"], &[], "`sasl.passwort`"),
    ] {
        let (code, said) = run(arguments, settings);
        assert_eq!(code, 64, "{arguments:?} {settings:?}: {said}");
        assert!(said.contains(name), "{arguments:?} {settings:?}: {said}");
        assert!(!said.contains("S3") && !said.contains("cr3t"), "{said}");
    }
}

#[test]
fn an_error_about_the_command_line_tells_no_secret() {
    for (arguments, settings) in [
        (&["serve", "payment", "--kafka-settings", "a.b=c,", "sasl.password=S3cr3t"][..], &[][..]),
        (&["audit", "--kafka-settings", "a.b=c,", "sasl.password=S3cr3t"], &[]),
        (&["order", "list", "--urls", "https://ada:S3cr3t@host"], &[]),
        (&["order", "list"], &[("AMENDS_URLS", "https://ada:S3cr3t@host")]),
        (&["audit", "--service-url", "order=https://ada:S3cr3t@host"], &[]),
    ] {
        let (code, said) = run(arguments, settings);
        assert!(code != 0 && said.contains("error: "), "{arguments:?}: {said}");
        assert!(!said.contains("S3") && !said.contains("cr3t"), "{said}");
    }
    // The address is reached or not; the credentials are not repeated.
    let (code, said) = run(&["order", "list", "--urls", "http://ada:S3cr3t@127.0.0.1:1"], &[]);
    assert!(code == 1 && said.contains("127.0.0.1:1") && !said.contains("S3cr3t"), "{said}");
    let all = [DATABASE, ("KAFKA_SETTINGS", "sasl.password=S3cr3t"), ("AMENDS_URLS", "http://u:S3cr3t@h")];
    for arguments in [&["serve", "payment", "--help"][..], &["order", "list", "--help"], &["audit", "-h"]] {
        let (code, said) = run(arguments, &all);
        assert!(code == 0 && said.contains("Usage") && !said.contains(SECRET), "{said}");
    }
}

#[test]
fn a_file_may_have_the_secret() {
    let wrong = file("database-url", "postgres://u:S3cr3t#1@db/x\n");
    let path = wrong.to_str().expect("a path");
    let (code, said) = run(PAYMENT, &[("DATABASE_URL_FILE", path)]);
    assert!(code == 64 && said.contains("DATABASE_URL_FILE can't be used: it has a #"), "{said}");
    let (code, said) = run(PAYMENT, &[DATABASE, ("DATABASE_URL_FILE", path)]);
    assert!(code == 64 && said.contains("DATABASE_URL is set too"), "{said}");
    assert!(!said.contains("S3"), "{said}");
    std::fs::remove_file(&wrong).expect("removed");
    let (code, said) = run(PAYMENT, &[("DATABASE_URL_FILE", path)]);
    assert!(code == 64 && said.contains(path) && said.contains("No such file"), "{said}");

    // A value in quotes is taken: what is wrong then is that no broker answers.
    let settings = file("kafka-settings", "client.rack=\"a,\\\"b\"\nsasl.password=\"S3cr3t,word\"\n");
    let (code, said) = run(APPLY, &[("KAFKA_SETTINGS_FILE", settings.to_str().expect("a path"))]);
    assert!(code == 1 && said.contains("did not answer") && !said.contains("S3"), "{code}: {said}");
    std::fs::remove_file(&settings).expect("removed");
}

#[test]
fn the_most_talkative_log_has_no_secret() {
    let log = file("talkative.log", "");
    let settings = [
        ("RUST_LOG", "trace".to_owned()),
        ("DATABASE_URL", format!("postgres://u:{SECRET}@127.0.0.1:1/x")),
        ("KAFKA_BROKERS", "127.0.0.1:1".to_owned()),
        (
            "KAFKA_SETTINGS",
            format!(
                "security.protocol=sasl_plaintext,sasl.mechanism=PLAIN,sasl.username=u,sasl.password={SECRET}"
            ),
        ),
        ("NOTIFICATION_SMTP_URL", format!("smtp://u:{SECRET}@127.0.0.1:1")),
    ];
    let process = Process::start("notification", None, &settings, &log);
    let deadline = Instant::now() + PATIENCE;
    let said = loop {
        let said = std::fs::read_to_string(&log).expect("a log");
        if said.contains("waiting: the database does not answer") {
            break said;
        }
        assert!(Instant::now() < deadline, "it does not begin: {said}");
        std::thread::sleep(Duration::from_millis(20));
    };
    drop(process);
    assert!(!said.contains(SECRET), "{said}");
    std::fs::remove_file(&log).expect("removed");
}
