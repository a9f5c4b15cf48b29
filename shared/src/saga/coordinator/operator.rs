//! The actions of an operator on a saga. They are inputs like all others, so that the log records the operator and
//! the reason.

use std::sync::Arc;

use uuid::Uuid;

use super::SagaInput;
use super::driver::Driver;
use crate::db::Db;
use crate::envelope::Cause;
use crate::fault::Fault;
use crate::saga::engine::Input;

/// Applies the actions of operators to sagas.
#[derive(Clone)]
pub struct Operator {
    pub(super) db: Db,
    pub(super) driver: Arc<Driver>,
}

impl Operator {
    /// Sends the commands of all open steps of a saga again, at once. `by` and `reason` go to the saga's log.
    ///
    /// # Errors
    /// Fails on a technical failure. Nothing has changed in that case.
    pub async fn retry(
        &self,
        saga_id: Uuid,
        subject: String,
        trace: Option<String>,
        by: String,
        reason: String,
    ) -> Result<(), Fault> {
        let mut uow = self.db.write(std::slice::from_ref(&subject)).await?;
        let change = SagaInput {
            saga_id,
            subject,
            cause: Cause::request(saga_id, trace),
            begin: None,
            input: Input::Retry { by, reason },
            answer: None,
        };
        self.driver.drive(&mut uow, vec![change]).await?;
        uow.commit().await?;
        Ok(())
    }
}
