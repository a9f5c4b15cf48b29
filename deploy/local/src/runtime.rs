//! The choice between child processes and containers.

use crate::cache::{Cache, Prepared};
use crate::docker;
use crate::error::{Error, Missing};
use crate::options::{Backend, Options};
use crate::prepare::prepare;
use crate::progress::Progress;

/// How the servers of this run are run.
pub(crate) enum Runtime {
    /// As child processes, from these programs.
    Native(Prepared),
    /// In containers.
    Docker,
}

impl Runtime {
    /// Follows [`Options::backend`]. `Auto` prefers child processes, which start faster and need less memory.
    ///
    /// Fails with [`Error::NothingToRunOn`] if the machine lacks what the chosen backend needs.
    pub fn choose(options: &Options, progress: &dyn Progress) -> Result<Runtime, Error> {
        if options.backend == Backend::Docker {
            return Self::docker(Missing::NotWanted("running without containers"));
        }
        let cache = Cache::open(options.cache.as_deref())?;
        match cache.missing() {
            None => Ok(Runtime::Native(prepare(&cache, progress)?)),
            Some(native) if options.backend == Backend::Local => {
                Err(Error::NothingToRunOn { native, docker: Missing::NotWanted("Docker") })
            }
            Some(native) => Self::docker(native),
        }
    }

    fn docker(native: Missing) -> Result<Runtime, Error> {
        if docker::engine_answers() {
            Ok(Runtime::Docker)
        } else {
            Err(Error::NothingToRunOn { native, docker: Missing::Docker })
        }
    }
}
