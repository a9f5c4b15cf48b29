//! Child processes that end with this process, even if `kill -9` ends it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

struct Job {
    command: Command,
    signal: Signal,
    reply: mpsc::SyncSender<io::Result<Child>>,
}

static SPAWNER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Starts `command` as a child process. The kernel sends `signal` to it when this process ends for any reason.
///
/// The child gets its own process group. So Ctrl-C in a terminal reaches only this process, which can then stop its
/// children in order. For the same reason the child can't read from the terminal.
pub fn spawn_bound(command: Command, signal: Signal) -> io::Result<Child> {
    let (reply, answer) = mpsc::sync_channel(1);
    spawner()?
        .send(Job { command, signal, reply })
        .map_err(|_| io::Error::other("the spawner thread is gone"))?;
    answer.recv().map_err(|_| io::Error::other("the spawner thread is gone"))?
}

/// Returns the thread that starts all children, and starts it if need be.
///
/// The kernel sends the signal when the *thread* that forked ends. So this thread lasts as long as the process.
fn spawner() -> io::Result<mpsc::Sender<Job>> {
    let mut slot = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*slot {
        return Ok(sender.clone());
    }
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::Builder::new().name("spawner".into()).spawn(move || {
        for mut job in jobs {
            bind(&mut job.command, job.signal);
            // If the caller no longer waits, nothing else would end and reap the child.
            if let Err(mpsc::SendError(Ok(mut orphan))) = job.reply.send(job.command.spawn()) {
                let _ = orphan.kill();
                let _ = orphan.wait();
            }
        }
    })?;
    *slot = Some(sender.clone());
    Ok(sender)
}

#[expect(unsafe_code, reason = "`pre_exec` is the only way to set the death signal of a child")]
fn bind(command: &mut Command, signal: Signal) {
    let parent = getpid();
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two plain
    // system calls (prctl and getppid), takes no lock, allocates nothing, and captures only two integers.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // If the parent died before the signal was set, the kernel will never send it.
            if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}
