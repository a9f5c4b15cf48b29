//! PostgreSQL's system identifier: a number that `initdb` draws, and that tells clusters apart.
//!
//! All data folders are copies of one template, so each copy needs a number of its own. Otherwise Amends' relay could
//! not notice that a database was moved from one of these clusters to another. PostgreSQL's own tool,
//! `pg_createsubscriber`, does the same: the number is in the control file, and in the header of each log file.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Doing, Error};

/// Where the number is in the header of a log file: behind the header that every page has.
const IN_LOG: usize = 24;

/// Gives the cluster in `data`, which must not be running, a new system identifier.
pub(crate) fn renew(data: &Path) -> Result<(), Error> {
    let control = data.join("global/pg_control");
    let mut bytes = fs::read(&control).doing("read", &control)?;
    let end = checksum_at(&bytes).ok_or_else(|| io::Error::other("no checksum was found in it"));
    let end = end.doing("change", &control)?;
    let (old, new) = (bytes[..8].to_vec(), draw().to_ne_bytes());
    bytes[..8].copy_from_slice(&new);
    let checksum = crc32c(&bytes[..end]).to_ne_bytes();
    bytes[end..end + 4].copy_from_slice(&checksum);

    let log = data.join("pg_wal");
    for entry in fs::read_dir(&log).doing("read", &log)? {
        let path = entry.doing("read", &log)?.path();
        if !path.is_file() {
            continue;
        }
        let mut segment = fs::read(&path).doing("read", &path)?;
        if segment.get(IN_LOG..IN_LOG + 8) == Some(&old) {
            segment[IN_LOG..IN_LOG + 8].copy_from_slice(&new);
            fs::write(&path, segment).doing("write", &path)?;
        }
    }
    fs::write(&control, bytes).doing("write", &control)
}

/// Draws a number as `initdb` does: from the time and the process.
fn draw() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 32 | u64::from(now.subsec_micros()) << 12 | u64::from(std::process::id() & 0xfff)
}

/// Returns where the checksum of the control file is: behind exactly those bytes that it is the checksum of. The place
/// differs between releases.
fn checksum_at(control: &[u8]) -> Option<usize> {
    // The longest known structure is shorter than 512 bytes, so that it fits into a sector.
    (8..508).step_by(4).find(|&end| {
        control.get(end..end + 4).is_some_and(|stored| *stored == crc32c(&control[..end]).to_ne_bytes())
    })
}

/// Returns the CRC-32C (Castagnoli) of some bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
