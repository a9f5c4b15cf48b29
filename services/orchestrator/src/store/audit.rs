//! The consistency checks of sagas and their logs.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The consistency checks of the sagas' logs, and counts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of sagas in each status. A status without sagas is left out.
    sagas: BTreeMap<String, i64>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str = "Returns the sagas about every order as `definition=status`, ordered by order id, for comparison with other services.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self { sagas: count_by_status(db).await? })
    }
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 9,
        name: "a_log_has_no_gap",
        says: "The log of a saga counts from 1 without a gap, and its row is not ahead of it",
        sql: "select s.saga_id::text from saga s left join saga_log l using (saga_id)
         group by s.saga_id, s.sequence
         having min(l.sequence) is distinct from 1 or max(l.sequence) <> count(*) or s.sequence > max(l.sequence)
         order by s.saga_id limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "an_end_is_decided_once",
        says: "A saga that has ended has exactly one decision to end, and no other saga has one",
        sql: "select s.saga_id::text from saga s left join lateral (
             select count(*) filter (where d ->> 'decision' = 'complete') as completed,
                    count(*) filter (where d ->> 'decision' = 'compensated') as compensated
             from saga_log l, json_array_elements(l.decisions) as d where l.saga_id = s.saga_id) as decided on true
         where (decided.completed, decided.compensated) is distinct from
               ((s.status = 'completed')::integer::bigint, (s.status = 'compensated')::integer::bigint)
         order by s.saga_id limit 20",
    },
    StatementSpec {
        invariant: 4,
        name: "an_open_saga_is_woken",
        says: "Every open saga has a time for its next action, and that time is not long past",
        sql: "select saga_id::text from saga
         where status in ('running', 'compensating', 'stuck') and (due_at is null or due_at < now() - interval '5 minutes')
         order by saga_id limit 20",
    },
    StatementSpec {
        invariant: 9,
        name: "what_is_undone_was_done",
        says: "No step is undone that was not done before",
        sql: "select distinct l.saga_id::text from saga_log l, json_array_elements(l.decisions) as d
         where l.decisions::text like '%\"undo\"%'
           and d ->> 'decision' = 'ask' and d ->> 'direction' = 'undo' and not exists (
             select from saga_log e
             where e.saga_id = l.saga_id and e.sequence <= l.sequence and e.input ->> 'input' = 'done'
               and e.input ->> 'step' = d ->> 'step' and e.input ->> 'direction' = 'do')
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 9,
        name: "nothing_is_undone_past_an_open_step",
        says: "A saga turns back only when every step that it asked has answered",
        // Only sagas that have turned round are read, and each entry of theirs once.
        sql: "with turned as materialized (
             select saga_id, min(sequence) as turned_at from saga_log, json_array_elements(decisions) as d
             where decisions::text like '%\"compensate\"%' and d ->> 'decision' = 'compensate' group by saga_id),
         entry as (
             select saga_id, d ->> 'step' as step, 1 as asked, 0 as answered
             from turned join saga_log l using (saga_id), json_array_elements(l.decisions) as d
             where l.sequence < turned_at and d ->> 'decision' = 'ask'
             union all
             select saga_id, l.input ->> 'step', 0, 1
             from turned join saga_log l using (saga_id)
             where l.sequence <= turned_at and l.input ->> 'input' in ('done', 'refused'))
         select distinct saga_id::text
         from (select saga_id from entry group by saga_id, step having sum(asked) > 0 and sum(answered) = 0) as open
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 9,
        name: "undoing_goes_group_by_group",
        says: "A step is undone, and a saga closed, only when every earlier undo has its answer and no later step stands",
        // What is asked again counts once: of a group, one undo may be asked again while another is open. Only sagas that undo
        // are read, each by itself: a join of all steps with all would take minutes where the planner expects few of them.
        sql: "with turned as materialized (
             select distinct saga_id from saga_log where decisions::text like '%\"undo\"%'),
         step as (
             select saga_id, step,
                    min(sequence) filter (where what = 'ask' and direction = 'do') as asked,
                    min(sequence) filter (where what = 'ask' and direction = 'undo') as undo_asked,
                    min(sequence) filter (where what = 'done' and direction = 'do') as done,
                    min(sequence) filter (where what = 'done' and direction = 'undo') as undone
             from (select saga_id, sequence, 'done' as what, input ->> 'step' as step, input ->> 'direction' as direction
                   from turned join saga_log using (saga_id) where input ->> 'input' = 'done'
                   union all
                   select l.saga_id, l.sequence, 'ask', d ->> 'step', d ->> 'direction'
                   from turned join saga_log l using (saga_id), json_array_elements(l.decisions) as d
                   where d ->> 'decision' = 'ask') as entry
             group by saga_id, step)
         select distinct saga_id::text
         from (select saga_id, undo_asked, undone,
                      array_agg(asked) over saga || array_agg(undo_asked) over saga as asks,
                      max(coalesce(undone, 2147483647)) filter (
                          where done is not null
                            and step in ('reserve_stock', 'authorize_payment', 'book_shipment', 'stop_shipment'))
                      over (partition by saga_id order by asked range between 1 following and unbounded following) as stood_until
               from step window saga as (partition by saga_id)) as undo
         where undo_asked is not null
           and (stood_until > undo_asked
                or exists (select from unnest(asks) as later
                           where later > undo_asked and (undone is null or undone > later)))
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "a_step_is_answered_once",
        says: "The log of a saga has at most one final answer of each step, and one of each undo",
        sql: "select distinct saga_id::text
         from (select saga_id from saga_log where input ->> 'input' in ('done', 'refused')
               group by saga_id, input ->> 'step', coalesce(input ->> 'direction', 'do') having count(*) > 1) as twice
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 6,
        name: "answers_are_in_order",
        says: "The log has a step's answers in the order in which they were written, by their messages' ids",
        // What is failing is no answer: it is logged again after a crash, behind what was logged since.
        sql: "select distinct saga_id::text
         from (select saga_id, message_id,
                      lag(message_id) over (partition by saga_id, input ->> 'step' order by sequence) as before
               from saga_log where input ->> 'input' in ('done', 'refused') and message_id is not null) as entry
         where uuid_extract_timestamp(message_id) < uuid_extract_timestamp(before)
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 9,
        name: "the_pivot_is_never_undone",
        says: "The capture and the refund of money are never undone",
        sql: "select distinct l.saga_id::text from saga_log l, json_array_elements(l.decisions) as d
         where l.decisions::text like '%\"undo\"%' and d ->> 'decision' = 'ask' and d ->> 'direction' = 'undo'
           and d ->> 'step' in ('capture_payment', 'refund_payment')
         order by 1 limit 20",
    },
];

/// Selects each order's sagas as `definition=status`, with the order's id. A saga's subject is an id as text. Text sorts as the
/// ids do.
const STANDINGS: &str = "select subject::uuid as id, array_agg(definition || '=' || status order by started_at) as states, null::bigint as amount,
            null::text as currency,
            max(extract(epoch from now() - started_at)::bigint) filter (where due_at is not null) as age
     from saga where subject > $1::uuid::text group by subject order by subject limit $2";

/// Returns the number of sagas in each status. A status without sagas is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from saga group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::STATEMENTS;
    use crate::sagas::all;
    use shared::saga::engine::{Kind, StepShape};

    /// Asserts that a statement names these steps of every plan.
    fn names(statement: &str, wanted: impl Fn(&StepShape) -> bool) {
        let spec = STATEMENTS.iter().find(|spec| spec.name == statement).expect("the statement");
        let registry = all(None);
        for (plan, version) in registry.versions() {
            let shape = registry.find(&plan, version).expect("it is here").shape();
            assert!(shape.steps.iter().any(&wanted), "{plan}@{version}");
            for step in shape.steps.iter().filter(|step| wanted(step)) {
                assert!(spec.sql.contains(&format!("'{}'", step.name)), "{} of {plan}@{version}", step.name);
            }
        }
    }

    #[test]
    fn the_statement_about_the_pivot_names_that_of_every_plan() {
        names("the_pivot_is_never_undone", |step| step.kind == Kind::Pivot);
    }

    #[test]
    fn the_statement_about_undoing_names_what_every_plan_undoes() {
        names("undoing_goes_group_by_group", |step| step.undo);
    }
}
