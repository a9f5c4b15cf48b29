//! What is done when this process has ended, however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A shell that waits until its standard input is closed, which the kernel does where this process is killed, and then
/// runs a script with `$0` for the argument.
pub fn when_this_has_ended(script: &str, argument: &str) -> Child {
    let mut command = Command::new("sh");
    // A group of its own: Ctrl-C is for the tests, and it has to outlive them.
    command.args(["-c", &format!("cat; {script}"), argument]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell")
}
