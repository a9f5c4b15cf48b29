//! Withdrawals: a call that was given up may have had its effect, or may have it later. The dependency is told to take it
//! back until it answers. The row of the refused step keeps the command and a claim until then.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use super::{Caller, Ended, UnansweredCall, answer};
use crate::circuit_breaker::Call;
use crate::deadline::limited;
use crate::envelope::Command;
use crate::saga::external_call::ExternalCall;
use crate::saga::external_call::resolution::store;
use crate::saga::participant::Task;
use crate::step_outcome::StepKey;

/// Has the dependency withdraw a call. It holds its slot until it ends.
pub(super) async fn withdraw<C: Command, E: ExternalCall<C>>(
    handler: Arc<E>,
    task: Task<C>,
    permit: Call,
    _slot: Option<OwnedSemaphorePermit>,
) -> Ended<C, E::Outcome> {
    let key = task.step.idempotency_key();
    match answer(E::TIMEOUT, handler.withdraw(&key, &task), permit).await {
        Ok(()) => Ended::Withdrawn(task.step),
        Err(reason) => Ended::Unanswered(UnansweredCall { task, reason }),
    }
}

impl<C: Command, E: ExternalCall<C>> Caller<C, E> {
    /// Records that the dependency has withdrawn these calls. If that fails, they are withdrawn again when their claims
    /// expire, which changes nothing at the dependency.
    pub(super) async fn record_withdrawn(&self, steps: &[StepKey]) {
        if steps.is_empty() {
            return;
        }
        let write = async {
            let mut uow = self.db.write(&[]).await?;
            store::end_withdrawals(uow.db(), steps).await?;
            uow.commit().await
        };
        match limited(write).await {
            Ok(()) => {
                info!(command = C::TYPE, steps = steps.len(), "the dependency has withdrawn refused calls")
            }
            Err(error) => warn!(%error, command = C::TYPE, "withdrawals could not be recorded"),
        }
    }
}
