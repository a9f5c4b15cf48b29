//! Tasks that begin once the service may work.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Service, Stage};

impl<C: Send + Sync + 'static> Service<C> {
    /// Runs a task once the service may work: its database is ready, and no other process has its name.
    pub(super) fn spawn_when_ready<F>(
        &self,
        stage: &Stage,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (intake, stop) = (self.stages.intake.stop.clone(), stage.stop.clone());
        let (ready, instance) = (self.startup.database(intake.clone()), Arc::clone(&self.instance));
        self.spawn(stage, name, async move {
            ready.await;
            if instance.held(&intake).await {
                task(stop).await
            } else {
                // A stop has come before. A task that began now could take the work of another process of this name.
                stop.cancelled().await;
                Ok(())
            }
        });
    }
}
