//! Has cups engraved and melted, by calls of the engraver. It mostly answers at once, so it is called first.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use shared::db::Db;
use shared::fault::Fault;
use shared::saga::external_call::{ExternalCall, Resolution, Resolved, Unresolved};
use shared::saga::participant::{Answer, Task};
use shared::unit_of_work::UnitOfWork;
use sqlx::Connection;
use uuid::Uuid;

use super::messages::{CupEngraved, CupMelted, EngraveCup, EngraveRefused, MeltCup, NotEngraved};

const ENGRAVER: &str = "engraver";

/// How often the engraver looks whether it may answer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Long enough for an answer on a machine that is busy with other tests.
const CALL_FIRST: Duration = Duration::from_secs(5);

/// The engraver. It notes every call, and answers as its table says. To work twice under one key is to work once.
pub(super) struct Engraver {
    pub db: Db,
}

impl Engraver {
    async fn answer(&self, key: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        // A connection of its own, since the engraver is no part of the service.
        let mut db = self.db.connect().await?;
        sqlx::query("insert into engraver_call (key) values ($1)").bind(key).execute(&mut db).await?;
        loop {
            let answers: String =
                sqlx::query_scalar("select answers from engraver").fetch_one(&mut db).await?;
            match answers.as_str() {
                "yes" => break,
                "not yet" => tokio::time::sleep(LOOK_EVERY).await,
                _ => return Err("the needle is broken".into()),
            }
        }
        Ok(db.close().await?)
    }
}

/// What an operator knows of an engraved cup.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    mark: String,
}

impl ExternalCall<EngraveCup> for Engraver {
    const TARGET: &'static str = ENGRAVER;
    /// The mark, which the engraver makes from the idempotency key. He himself refuses nothing.
    type Outcome = Result<String, NotEngraved>;
    /// A test lets the engraver answer long before.
    const TIMEOUT: Duration = Duration::from_secs(60);
    const CALL_FIRST: Option<Duration> = Some(CALL_FIRST);
    const GIVES_UP: bool = true;

    async fn record_intent(&self, uow: &mut UnitOfWork, tasks: &[Task<EngraveCup>]) -> Result<(), Fault> {
        for task in tasks {
            sqlx::query("insert into cup (member, status) values ($1, 'ordered')")
                .bind(task.command.member)
                .execute(uow.db())
                .await?;
        }
        Ok(())
    }

    async fn call(
        &self,
        key: &str,
        _: &Task<EngraveCup>,
    ) -> Result<Result<String, NotEngraved>, Box<dyn Error + Send + Sync>> {
        self.answer(key).await?;
        Ok(Ok(format!("mark {key}")))
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<EngraveCup>, Result<String, NotEngraved>)],
    ) -> Result<Vec<Answer<EngraveCup>>, Fault> {
        for (task, outcome) in answered {
            let member = task.command.member;
            let Ok(mark) = outcome else {
                turn(uow, member, ("ordered", "refused"), None).await?;
                continue;
            };
            turn(uow, member, ("ordered", "engraved"), Some(mark)).await?;
            sqlx::query("insert into engraving (member, mark) values ($1, $2)")
                .bind(member)
                .bind(mark)
                .execute(uow.db())
                .await?;
        }
        let answer = |outcome: &Result<String, NotEngraved>| match outcome {
            Ok(mark) => Answer::done(CupEngraved { mark: mark.clone() }),
            Err(why) => Answer::refused(EngraveRefused { why: *why }),
        };
        Ok(answered.iter().map(|(_, outcome)| answer(outcome)).collect())
    }

    async fn resolve(
        &self,
        _: &mut UnitOfWork,
        _: &Task<EngraveCup>,
        resolution: &Resolution,
    ) -> Result<Self::Outcome, Unresolved> {
        Ok(match resolution.read::<Seen, NotEngraved>()? {
            Resolved::Done(seen) => Ok(seen.mark),
            Resolved::Refused(why) => Err(why),
        })
    }

    async fn withdraw(&self, key: &str, _: &Task<EngraveCup>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.answer(&format!("withdraw {key}")).await
    }
}

impl ExternalCall<MeltCup> for Engraver {
    const TARGET: &'static str = ENGRAVER;
    type Outcome = ();
    const TIMEOUT: Duration = Duration::from_secs(60);
    const CALL_FIRST: Option<Duration> = Some(CALL_FIRST);

    async fn record_intent(&self, _: &mut UnitOfWork, _: &[Task<MeltCup>]) -> Result<(), Fault> {
        Ok(())
    }

    async fn call(&self, key: &str, _: &Task<MeltCup>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.answer(key).await
    }

    async fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<MeltCup>, ())],
    ) -> Result<Vec<Answer<MeltCup>>, Fault> {
        for (task, ()) in answered {
            turn(uow, task.command.member, ("engraved", "melted"), None).await?;
        }
        let melted = |(task, ()): &(Task<MeltCup>, ())| CupMelted { member: task.command.member };
        Ok(answered.iter().map(melted).map(Answer::done).collect())
    }
}

/// Gives the cup of a member its next status.
async fn turn(
    uow: &mut UnitOfWork,
    member: Uuid,
    (from, to): (&str, &str),
    mark: Option<&str>,
) -> Result<(), Fault> {
    let turned = sqlx::query("update cup set status = $3, mark = $4 where member = $1 and status = $2")
        .bind(member)
        .bind(from)
        .bind(to)
        .bind(mark)
        .execute(uow.db())
        .await?;
    if turned.rows_affected() == 1 {
        return Ok(());
    }
    Err(Fault::permanent(format!("the cup was not {from}")))
}
