//! Prints vouchers and voids them, by calls of the printer.

use std::error::Error;
use std::time::Duration;

use shared::db::Db;
use shared::fault::Fault;
use shared::saga::external_call::ExternalCall;
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use sqlx::Connection;
use uuid::Uuid;

use super::messages::{PrintVoucher, VoidVoucher, VoucherPrinted, VoucherVoided};

const PRINTER: &str = "printer";

/// How often the printer looks whether it may answer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The printer. It notes every call, and answers when its table says that it does.
pub(super) struct Printer {
    pub db: Db,
}

impl Printer {
    async fn answer(&self, key: &str) -> Result<(), sqlx::Error> {
        // A connection of its own, since the printer is no part of the service.
        let mut db = self.db.connect().await?;
        sqlx::query("insert into printer_call (key) values ($1)").bind(key).execute(&mut db).await?;
        while !sqlx::query_scalar("select answers from printer").fetch_one(&mut db).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        db.close().await
    }
}

impl ExternalCall<PrintVoucher> for Printer {
    const TARGET: &'static str = PRINTER;
    /// The page, which the printer names by the idempotency key.
    type Outcome = String;
    /// A test lets the printer answer long before.
    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn record_intent(&self, uow: &mut UnitOfWork, tasks: &[Task<PrintVoucher>]) -> Result<(), Fault> {
        for task in tasks {
            sqlx::query("insert into voucher (member, status) values ($1, 'ordered')")
                .bind(task.command.member)
                .execute(uow.db())
                .await?;
        }
        Ok(())
    }

    async fn call(&self, key: &str, _: &Task<PrintVoucher>) -> Result<String, Box<dyn Error + Send + Sync>> {
        self.answer(key).await?;
        Ok(format!("page {key}"))
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<PrintVoucher>, String)],
    ) -> Result<Vec<Answer<PrintVoucher>>, Fault> {
        for (task, page) in answered {
            turn(uow, task, ("ordered", "printed"), page).await?;
            sqlx::query("insert into print_entry (member, page) values ($1, $2)")
                .bind(task.command.member)
                .bind(page)
                .execute(uow.db())
                .await?;
        }
        Ok(answered.iter().map(|(_, page)| Answer::done(VoucherPrinted { page: page.clone() })).collect())
    }
}

impl ExternalCall<VoidVoucher> for Printer {
    const TARGET: &'static str = PRINTER;
    type Outcome = ();
    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn record_intent(&self, _: &mut UnitOfWork, _: &[Task<VoidVoucher>]) -> Result<(), Fault> {
        // The voucher is on record. The step's own row says that it is being voided.
        Ok(())
    }

    async fn call(&self, key: &str, _: &Task<VoidVoucher>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.answer(key).await?)
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<VoidVoucher>, ())],
    ) -> Result<Vec<Answer<VoidVoucher>>, Fault> {
        for (task, ()) in answered {
            turn(uow, task, ("printed", "voided"), &task.command.page).await?;
        }
        let voided = |(task, ()): &(Task<VoidVoucher>, ())| VoucherVoided { page: task.command.page.clone() };
        Ok(answered.iter().map(voided).map(Answer::done).collect())
    }
}

/// Gives the voucher of a task's member its next status.
async fn turn<C: Of>(
    uow: &mut UnitOfWork,
    task: &Task<C>,
    (from, to): (&str, &str),
    page: &str,
) -> Result<(), Fault> {
    let turned = sqlx::query("update voucher set status = $3, page = $4 where member = $1 and status = $2")
        .bind(task.command.member())
        .bind(from)
        .bind(to)
        .bind(page)
        .execute(uow.db())
        .await?;
    if turned.rows_affected() == 1 {
        return Ok(());
    }
    Err(Fault::permanent(format!("the voucher was not {from}")))
}

/// Whose voucher a command is about.
trait Of {
    fn member(&self) -> uuid::Uuid;
}

impl Of for PrintVoucher {
    fn member(&self) -> Uuid {
        self.member
    }
}

impl Of for VoidVoucher {
    fn member(&self) -> Uuid {
        self.member
    }
}
