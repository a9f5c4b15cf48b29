//! What an operator asks of a saga. It takes the way that every input takes, so the log says who it was, and why.

use std::sync::Arc;

use shared::db::Db;
use shared::envelope::Cause;
use shared::fault::Fault;
use uuid::Uuid;

use super::Change;
use super::drive::Driver;
use crate::engine::Input;

/// Acts for operators.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(super) db: Db,
    pub(super) driver: Arc<Driver>,
}

impl Operator {
    /// Has every open step of a saga asked at once.
    ///
    /// # Errors
    /// A technical failure; nothing has happened then.
    pub(crate) async fn retry(
        &self,
        saga_id: Uuid,
        subject: String,
        trace: Option<String>,
        by: String,
        why: String,
    ) -> Result<(), Fault> {
        let mut claimed = self.db.write(std::slice::from_ref(&subject)).await?;
        let change = Change {
            saga_id,
            subject,
            cause: Cause::request(saga_id, trace),
            begin: None,
            input: Input::Retry { by, why },
            reply: None,
        };
        self.driver.drive(&mut claimed, vec![change]).await?;
        claimed.commit().await?;
        Ok(())
    }
}
