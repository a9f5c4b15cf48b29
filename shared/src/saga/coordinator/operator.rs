//! What an operator asks of a saga. It takes the way that every input takes, so the log says who it was, and why.

use std::sync::Arc;

use uuid::Uuid;

use super::SagaInput;
use super::driver::Driver;
use crate::db::Db;
use crate::envelope::Cause;
use crate::fault::Fault;
use crate::saga::engine::Input;

/// Acts for operators.
#[derive(Clone)]
pub struct Operator {
    pub(super) db: Db,
    pub(super) driver: Arc<Driver>,
}

impl Operator {
    /// Has every open step of a saga asked at once.
    ///
    /// # Errors
    /// A technical failure; nothing has happened then.
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
            reply: None,
        };
        self.driver.drive(&mut uow, vec![change]).await?;
        uow.commit().await?;
        Ok(())
    }
}
