//! The actions of an operator on a saga. They are inputs like all others, so that the log records the operator and
//! the reason.

use std::sync::Arc;

use uuid::Uuid;

use super::SagaInput;
use super::driver::Driver;
use crate::envelope::Cause;
use crate::fault::Fault;
use crate::saga::engine::Input;
use crate::unit_of_work::UnitOfWork;

/// Applies the actions of operators to sagas.
#[derive(Clone)]
pub struct Operator {
    pub(super) driver: Arc<Driver>,
}

impl Operator {
    /// Sends the commands of all open steps of a saga again, when the unit of work commits. It holds the lock of the
    /// subject. `by` and `reason` go to the saga's log.
    ///
    /// # Errors
    /// Fails on a technical failure. The unit of work must not be committed then.
    pub async fn retry(
        &self,
        uow: &mut UnitOfWork,
        saga_id: Uuid,
        subject: String,
        trace: Option<String>,
        by: String,
        reason: String,
    ) -> Result<(), Fault> {
        let change = SagaInput {
            saga_id,
            subject,
            cause: Cause::request(saga_id, trace),
            begin: None,
            input: Input::Retry { by, reason },
            answer: None,
        };
        self.driver.drive(uow, vec![change]).await
    }
}
