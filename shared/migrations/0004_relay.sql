-- Why the relay of a shard stands still: the record that the broker refuses for good, until it takes it.
alter table relay_checkpoint
    add column stopped_reason text,
    add column stopped_position bigint,
    add column stopped_at timestamptz;
