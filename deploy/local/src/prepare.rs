//! Fills the cache: fetches the servers, unpacks them, and makes the data folders that each state folder copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::account::Account;
use crate::cache::{Cache, Prepared};
use crate::error::{Doing, Error, Missing};
use crate::java::Java;
use crate::progress::{Progress, Step};
use crate::{broker, files, initdb, maven, unpack};

/// Returns the programs and templates in the cache, and makes them first if need be.
///
/// Several processes may call this at the same time; one of them makes the files and the others wait for it.
pub(crate) fn prepare(cache: &Cache, progress: &dyn Progress) -> Result<Prepared, Error> {
    let none = |native| Error::NothingToRunOn { native, docker: Missing::NotWanted("Docker") };
    let java = Java::find().map_err(none)?;
    let platform = maven::platform()?;
    let servers = cache.servers(platform);
    if !servers.is_dir() {
        let _lock = cache.lock(progress)?;
        // Another process may have made them while this one waited.
        if !servers.is_dir() {
            make(&servers, platform, &java, progress)?;
        }
    }
    Ok(Prepared {
        postgres: servers.join("postgres"),
        cluster: servers.join("cluster"),
        classpath: classpath(&servers.join("jars"))?,
        formatted: servers.join("formatted"),
        java,
        cache: cache.clone(),
    })
}

fn make(servers: &Path, platform: &str, java: &Java, progress: &dyn Progress) -> Result<(), Error> {
    let work = files::unfinished_sibling(servers);
    files::make_dir(&work)?;
    let jars = work.join("jars");
    maven::fetch(&work, &jars, platform, progress)?;

    let step = Step::begin(progress, "unpacking PostgreSQL and Kafka");
    let classpath = classpath(&jars)?;
    // Kafka is not packed, and formatting its storage takes a second.
    let (postgres, kafka) = thread::scope(|scope| {
        let kafka = scope.spawn(|| broker::format(&work, &classpath, java));
        (postgres(&work, &jars), kafka.join())
    });
    kafka.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    postgres?;
    fs::rename(&work, servers).doing("move into place", servers)?;
    step.done("PostgreSQL and Kafka unpacked");
    Ok(())
}

fn postgres(work: &Path, jars: &Path) -> Result<(), Error> {
    unpack::postgres(jars, &work.join("postgres"))?;
    initdb::make_cluster(work, Account::for_postgres()?.as_ref())
}

/// Joins the paths of all jars in alphabetical order.
fn classpath(jars: &Path) -> Result<String, Error> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(jars).doing("read", jars)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| name.extension().is_some_and(|it| it == "jar"));
    names.sort();
    Ok(names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(":"))
}
