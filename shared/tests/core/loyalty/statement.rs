//! A member's statement: a read model of the shop's events, in the order in which they came.

use shared::fault::Fault;
use shared::incoming::Incoming;
use shared::router::{BatchHandler, BoxFuture};
use shared::unit_of_work::UnitOfWork;

pub(super) struct Statement;

impl BatchHandler for Statement {
    /// A line is known by its message.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn is_background(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            for message in messages {
                let envelope = message.envelope()?;
                sqlx::query(
                    "insert into statement_line (member, message_id) values ($1, $2) on conflict do nothing",
                )
                .bind(&envelope.subject)
                .bind(envelope.id)
                .execute(uow.db())
                .await?;
            }
            Ok(())
        })
    }
}
