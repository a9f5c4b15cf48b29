-- The row becomes a snapshot: where a saga stands between two of them is replayed from the log, for which the log needs
-- what the steps replied.
alter table saga_log add column reply json;
