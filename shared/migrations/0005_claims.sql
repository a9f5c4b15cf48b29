-- Only open steps are found by this index. PostgreSQL also used the former index on the status to find the rows of a batch
-- by key, and read the whole index for each of them.
drop index step_outcome_open;
create index step_outcome_open on step_outcome (type, claimed_until) where claimed_until is not null;

-- Resolved messages, for repeated messages that are not in the inbox.
create index parked_resolved on parked (message_id) where status <> 'parked';
