//! Processes with a clock of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::servers::folder;

/// Adds the seconds in a file to the time that a process asks for. It asks the kernel itself and allocates nothing, because
/// the allocator asks for the time too.
const SHIM: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int) syscall(SYS_clock_gettime, clock, at);
    char text[24] = {0};
    const char *path = getenv("CLOCK_OFFSET_FILE");
    int file = clock == CLOCK_REALTIME && path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
        close(file);
    }
    return failed;
}
"#;

/// A clock that differs from that of the machine.
pub struct Clock(PathBuf);

impl Clock {
    /// Creates a clock that is right, until it is set.
    pub fn new(name: &str) -> Self {
        let clock = Self(folder().join(format!("{name}.clock")));
        clock.set(0);
        clock
    }

    /// Sets how many seconds the clock is ahead.
    pub fn set(&self, ahead: i64) {
        // A rename, because the file is read at every look at the clock.
        let new = self.0.with_extension("new");
        std::fs::write(&new, ahead.to_string()).expect("a file");
        std::fs::rename(new, &self.0).expect("a file");
    }

    /// Returns the environment variables of a process that goes by this clock.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", shim().display().to_string()), ("CLOCK_OFFSET_FILE", self.0.display().to_string())]
    }
}

/// Compiles the shim. The build of the suite needs a C compiler anyway.
fn shim() -> PathBuf {
    let (source, library) = (folder().join("clock.c"), folder().join("clock.so"));
    std::fs::write(&source, SHIM).expect("a file");
    compile(&source, &library);
    library
}

fn compile(source: &Path, library: &Path) {
    let mut cc = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
    let ended = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).status();
    assert!(ended.is_ok_and(|ended| ended.success()), "cc can't compile {}", source.display());
}
