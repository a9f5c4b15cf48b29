//! Cleaning up after this process has ended, however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Starts a shell that waits until its standard input is closed, and then runs a script with the argument as `$0`. The kernel
/// closes the input even if this process is killed.
pub fn when_this_has_ended(script: &str, argument: &str) -> Child {
    let mut command = Command::new("sh");
    // A process group of its own, because Ctrl-C must end the tests and not the shell.
    command.args(["-c", &format!("cat; {script}"), argument]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell")
}
