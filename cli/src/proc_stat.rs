//! The file /proc/PID/stat.

use std::fs;

/// Returns the fields behind the process's name: state, parent and so on. The name may contain spaces and brackets, so the
/// fields begin behind the last bracket.
pub fn fields(line: &str) -> Option<impl Iterator<Item = &str>> {
    Some(line.rsplit_once(')')?.1.split_whitespace())
}

/// Reads the fields of a process. Returns `None` if there is no such process.
pub fn read(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(fields(&line)?.map(str::to_owned).collect())
}
