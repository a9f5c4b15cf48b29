//! CPU time and memory of the suite's processes, from /proc.

use std::collections::HashMap;
use std::fs;

use rustix::param::clock_ticks_per_second;

use crate::proc_stat;
use crate::run::Where;
use crate::suite::SERVICES;

/// How often a reading is repeated if a process ended during it.
const READINGS: usize = 5;

/// The fields of /proc/PID/stat that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// When it began, in ticks. A later process with the same id began at another time.
    began: u64,
    /// Its own CPU time.
    own: u64,
    /// The CPU time of its children, and their children, that have ended and were waited for.
    ended: u64,
}

/// The root processes of the suite's parts, each with its id and the time at which it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    services: Option<Vec<(u32, u64)>>,
    kafka: Option<Vec<(u32, u64)>>,
    postgres: Option<Vec<(u32, u64)>>,
    /// Processes of PostgreSQL that do not count, as they were when they were found.
    apart: Vec<Stat>,
}

/// A figure for each part of the suite; `None` if its processes were not found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage<T> {
    pub services: Option<T>,
    pub kafka: Option<T>,
    pub postgres: Option<T>,
    /// This process.
    pub generator: Option<T>,
}

impl Processes {
    /// Finds the processes of the suite, if it runs on this machine and they are visible.
    pub fn find(place: &Where) -> Self {
        let stats = all();
        let root = |pid: u32| stats.get(&pid).map(|stat| (pid, stat.began));
        let services = place.find().and_then(|run| {
            let pids = run.services.iter().map(|service| root(service.pid)).collect::<Option<Vec<_>>>()?;
            (pids.len() == SERVICES.len()).then_some(pids)
        });
        let ports = place.suite.server_ports();
        Self {
            services,
            kafka: server(&stats, ports.kafka, "java"),
            postgres: server(&stats, ports.postgres, "postgres"),
            apart: Vec::new(),
        }
    }

    /// Finds PostgreSQL without the processes that serve others, and takes the place of the services by one child of this
    /// process. There is no Kafka.
    pub fn with_program(place: &Where, program: u32, others: &[u32]) -> Self {
        let stats = all();
        let services = stats.get(&program).map(|stat| vec![(program, stat.began)]);
        let postgres = server(&stats, place.suite.server_ports().postgres, "postgres");
        let apart = others.iter().filter_map(|pid| stats.get(pid).copied()).collect();
        Self { services, kafka: Some(Vec::new()), postgres, apart }
    }

    /// Returns the CPU time used so far, in ticks. A part has none if one of its root processes has ended.
    pub fn ticks(&self) -> Usage<u64> {
        let stats = steady();
        let of = |roots: &Option<Vec<(u32, u64)>>| sum(roots.as_deref()?, &stats);
        let me = std::process::id();
        Usage {
            services: of(&self.services),
            kafka: of(&self.kafka),
            postgres: of(&self.postgres).map(|ticks| ticks.saturating_sub(spent(&self.apart, &stats))),
            generator: stats.get(&me).map(|stat| stat.own + stat.ended),
        }
    }

    /// Returns the memory in use, in megabytes. Memory that PostgreSQL's processes share is counted once, if the system
    /// reports it.
    pub fn memory_mb(&self) -> Usage<f64> {
        let stats = all();
        let of = |roots: &Option<Vec<(u32, u64)>>, kilobytes: fn(u32) -> Option<u64>| {
            let roots: Vec<u32> = roots.as_ref()?.iter().map(|(pid, _)| *pid).collect();
            let pids = stats.keys().filter(|pid| roots.iter().any(|root| is_below(**pid, *root, &stats)));
            // A process that has ended meanwhile uses no memory.
            Some(pids.filter_map(|pid| kilobytes(*pid)).sum::<u64>() as f64 / 1024.0)
        };
        Usage {
            services: of(&self.services, resident),
            kafka: of(&self.kafka, resident),
            postgres: of(&self.postgres, |pid| proportional(pid).or_else(|| resident(pid))),
            generator: resident(std::process::id()).map(|kilobytes| kilobytes as f64 / 1024.0),
        }
    }
}

/// Converts ticks to milliseconds.
pub fn milliseconds(ticks: u64) -> f64 {
    ticks as f64 * 1000.0 / clock_ticks_per_second() as f64
}

/// Finds a server by its port, if its program has this name. The port of a container is held by a proxy, which is not the
/// server.
fn server(stats: &HashMap<u32, Stat>, port: u16, program: &str) -> Option<Vec<(u32, u64)>> {
    let named =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program);
    let mut pid = local::port_holder(port)?.process?.pid;
    if !named(pid) {
        return None;
    }
    // Any process of the server may hold the port. The root is the topmost one with this name.
    while let Some(stat) = stats.get(&pid)
        && named(stat.parent)
    {
        pid = stat.parent;
    }
    Some(vec![(pid, stats.get(&pid)?.began)])
}

/// Reads all processes. A process whose file can't be read has ended.
fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let stats = pids.filter_map(|pid| parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?));
    stats.map(|stat: Stat| (stat.pid, stat)).collect()
}

/// Reads all processes while no child ends. Otherwise that child could be counted twice, or not at all.
fn steady() -> HashMap<u32, Stat> {
    let mut stats = all();
    for _ in 1..READINGS {
        let again = all();
        let moved = again.values().any(|now| {
            stats.get(&now.pid).is_some_and(|before| before.began == now.began && before.ended != now.ended)
        });
        stats = again;
        if !moved {
            break;
        }
    }
    stats
}

/// Parses a line of /proc/PID/stat.
fn parse(pid: u32, line: &str) -> Option<Stat> {
    let fields: Vec<&str> = proc_stat::fields(line)?.collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        parent: u32::try_from(field(1)?).ok()?,
        own: field(11)? + field(12)?,
        ended: field(13)? + field(14)?,
        began: field(19)?,
    })
}

fn is_below(pid: u32, root: u32, stats: &HashMap<u32, Stat>) -> bool {
    let mut pid = pid;
    loop {
        if pid == root {
            return true;
        }
        match stats.get(&pid) {
            Some(stat) if stat.parent != 0 && stat.parent != pid => pid = stat.parent,
            _ => return false,
        }
    }
}

/// Returns the CPU time of the roots and all their descendants, ended ones included, or `None` if a root has ended.
///
/// The time of a child is in its own entry while it exists, even as a zombie. Once its parent has waited for it, the time is
/// in the parent's `ended`. So the sum over all existing processes counts each child once.
fn sum(roots: &[(u32, u64)], stats: &HashMap<u32, Stat>) -> Option<u64> {
    let lives = |(pid, began): &(u32, u64)| stats.get(pid).is_some_and(|stat| stat.began == *began);
    if !roots.iter().all(lives) {
        return None;
    }
    let below = stats.values().filter(|stat| roots.iter().any(|(root, _)| is_below(stat.pid, *root, stats)));
    Some(below.map(|stat| stat.own + stat.ended).sum())
}

/// Returns the CPU time of processes. An ended one counts with the time that it had used when it was found, because its
/// parent's `ended` has that time now.
fn spent(processes: &[Stat], stats: &HashMap<u32, Stat>) -> u64 {
    let now =
        |found: &Stat| stats.get(&found.pid).filter(|now| now.began == found.began).unwrap_or(found).own;
    processes.iter().map(now).sum()
}

fn resident(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// Returns the resident memory; memory that several processes share counts in equal parts for each of them.
fn proportional(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, parent: u32, times: [u64; 4], began: u64) -> String {
        let [user, system, child_user, child_system] = times;
        format!(
            "1 ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {user} {system} {child_user} {child_system} 20 0 1 0 {began} 9 9"
        )
    }

    fn suite(processes: &[(u32, u32, [u64; 4])]) -> HashMap<u32, Stat> {
        let stat =
            |(pid, parent, times): &(u32, u32, [u64; 4])| parse(*pid, &line("postgres", *parent, *times, 5));
        processes.iter().filter_map(stat).map(|stat| (stat.pid, stat)).collect()
    }

    #[test]
    fn a_line_is_read_whatever_the_process_is_called() {
        let stat = parse(7, &line("a) S (b 1 2", 3, [10, 20, 30, 40], 99)).expect("a line");
        assert_eq!(stat, Stat { pid: 7, parent: 3, began: 99, own: 30, ended: 70 });
        assert_eq!(parse(7, "7 (cut"), None);
    }

    #[test]
    fn a_child_counts_once_before_and_after_it_has_ended() {
        let before = suite(&[
            (1, 0, [9, 9, 9, 9]),
            (10, 1, [100, 50, 0, 0]),
            (11, 10, [7, 3, 0, 0]),
            (12, 10, [1, 1, 0, 0]),
        ]);
        assert_eq!(sum(&[(10, 5)], &before), Some(162));
        // Process 11 has ended, and its parent has waited for it.
        let after = suite(&[(1, 0, [9, 9, 9, 9]), (10, 1, [100, 50, 7, 3]), (12, 10, [1, 1, 0, 0])]);
        assert_eq!(sum(&[(10, 5)], &after), Some(162));
        // A child of a child.
        let deeper = suite(&[(10, 1, [100, 50, 0, 0]), (11, 10, [7, 3, 2, 2]), (13, 11, [5, 0, 0, 0])]);
        assert_eq!(sum(&[(10, 5)], &deeper), Some(169));
    }

    #[test]
    fn a_process_that_is_apart_counts_neither_before_nor_after_it_has_ended() {
        let before = suite(&[(10, 1, [100, 50, 0, 0]), (11, 10, [7, 3, 0, 0]), (12, 10, [1, 1, 0, 0])]);
        let apart = [before[&11]];
        let rest = |stats| sum(&[(10, 5)], stats).map(|ticks| ticks - spent(&apart, stats));
        assert_eq!(rest(&before), Some(152));
        let busier = suite(&[(10, 1, [100, 50, 0, 0]), (11, 10, [9, 9, 0, 0]), (12, 10, [1, 1, 0, 0])]);
        assert_eq!(rest(&busier), Some(152));
        let ended = suite(&[(10, 1, [100, 50, 7, 3]), (12, 10, [1, 1, 0, 0])]);
        assert_eq!(rest(&ended), Some(152));
    }

    #[test]
    fn a_part_that_was_started_again_has_no_sum() {
        let stats = suite(&[(10, 1, [100, 50, 0, 0])]);
        assert_eq!(sum(&[(10, 4)], &stats), None, "another process has its id now");
        assert_eq!(sum(&[(10, 5), (11, 5)], &stats), None, "one of them is gone");
    }

    #[test]
    fn this_process_is_found_and_uses_something() {
        let usage = Processes::default().ticks();
        assert!(usage.generator.is_some());
        assert!(usage.services.is_none(), "none was looked for");
        assert!(Processes::default().memory_mb().generator.is_some_and(|megabytes| megabytes > 1.0));
        assert_eq!(kilobytes("Rss: 9 kB\nPss:   123 kB\n", "Pss:"), Some(123));
    }
}
