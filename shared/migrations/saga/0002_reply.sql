-- The row becomes a snapshot. The state between two snapshots is replayed from the log, so the log needs the replies of
-- the steps.
alter table saga_log add column reply json;
