//! Grants points and takes them back, in the database.

use shared::fault::Fault;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;

use super::messages::{GrantPoints, GrantRefusal, GrantRefused, PointsGranted, PointsRevoked, RevokePoints};

pub(super) struct Points;

impl CommandHandler<GrantPoints> for Points {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<GrantPoints>],
    ) -> Result<Vec<Answer<GrantPoints>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let GrantPoints { member, campaign, points } = &task.command;
            let left: i64 =
                sqlx::query_scalar("select points_left from campaign where name = $1 for no key update")
                    .bind(campaign)
                    .fetch_one(uow.db())
                    .await?;
            if left < *points {
                let reason = GrantRefusal::BudgetSpent { left };
                answers.push(Answer::refused(GrantRefused { member: *member, reason }));
                continue;
            }
            sqlx::query(
                "update campaign set points_left = points_left - $2, points_granted = points_granted + $2
                 where name = $1",
            )
            .bind(campaign)
            .bind(points)
            .execute(uow.db())
            .await?;
            sqlx::query("insert into points_grant (member, campaign, points) values ($1, $2, $3)")
                .bind(member)
                .bind(campaign)
                .bind(points)
                .execute(uow.db())
                .await?;
            answers.push(Answer::done(PointsGranted { member: *member, points: *points }));
        }
        Ok(answers)
    }
}

impl CommandHandler<RevokePoints> for Points {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<RevokePoints>],
    ) -> Result<Vec<Answer<RevokePoints>>, Fault> {
        for task in tasks {
            let given_back = sqlx::query(
                "with revoked as (delete from points_grant where member = $1 returning campaign, points)
                 update campaign set points_left = points_left + points, points_granted = points_granted - points
                 from revoked where name = campaign",
            )
            .bind(task.command.member)
            .execute(uow.db())
            .await?;
            if given_back.rows_affected() != 1 {
                return Err(Fault::permanent("there are no points to revoke"));
            }
        }
        Ok(tasks.iter().map(|task| Answer::done(PointsRevoked { member: task.command.member })).collect())
    }
}
