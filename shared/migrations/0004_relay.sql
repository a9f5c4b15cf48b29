-- The record at which a shard is stopped, because the broker refuses it for good, and the reason.
alter table relay_checkpoint
    add column stopped_reason text,
    add column stopped_position bigint,
    add column stopped_at timestamptz;
