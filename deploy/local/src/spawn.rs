//! Child processes that die with this process, even when it is killed with `kill -9`.

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

/// Starts `command` so that the kernel sends it `signal` as soon as this process is gone, however it ended.
///
/// The child leads a process group of its own: Ctrl-C in a terminal reaches only this process, which can
/// then stop its children in order. Children that must read the terminal are not for this function.
pub fn spawn_bound(command: Command, signal: Signal) -> io::Result<Child> {
    let (reply, answer) = mpsc::sync_channel(1);
    spawner()?
        .send(Job { command, signal, reply })
        .map_err(|_| io::Error::other("the spawner thread is gone"))?;
    answer.recv().map_err(|_| io::Error::other("the spawner thread is gone"))?
}

/// The kernel sends the signal when the *thread* that forked ends, so all children come from one thread
/// that lasts as long as the process.
fn spawner() -> io::Result<mpsc::Sender<Job>> {
    let mut slot = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*slot {
        return Ok(sender.clone());
    }
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::Builder::new().name("spawner".into()).spawn(move || {
        for mut job in jobs {
            bind(&mut job.command, job.signal);
            // A caller that stopped waiting would leave a child nobody reaps.
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
            // The parent may have died before the signal was set; then nobody would ever send it.
            if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}
