//! CPU time and memory of processes, from /proc.

use std::fs;

use crate::proc_stat;

/// The unit of CPU time in /proc. Linux reports hundredths of a second on every machine that we support.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the CPU seconds of a process, including threads that have ended.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = proc_stat::read(pid)?;
    Some(seconds(&fields, &[11, 12]))
}

/// Returns the CPU seconds of a process and of its children, including those that have ended.
pub fn family_cpu_seconds(pid: u32) -> Option<f64> {
    let children = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let child: u32 = entry.file_name().to_str()?.parse().ok()?;
        let fields = proc_stat::read(child)?;
        (fields.get(1)?.parse() == Ok(pid)).then(|| seconds(&fields, &[11, 12]))
    });
    Some(seconds(&proc_stat::read(pid)?, &[11, 12, 13, 14]) + children.sum::<f64>())
}

/// Returns the resident memory of a process in megabytes.
pub fn rss_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

fn seconds(fields: &[String], which: &[usize]) -> f64 {
    let ticks = which.iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum::<u64>();
    ticks as f64 / TICKS_PER_SECOND
}
