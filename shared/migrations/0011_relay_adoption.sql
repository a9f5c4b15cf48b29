-- A relay that works must not wait long for the lock. If it cannot be taken, the migration fails and can be repeated.
set local lock_timeout = '5s';

-- The number of shards that the messages of a shard's checkpoint were divided among. A row of the release before has none.
alter table relay_checkpoint add column shards smallint;

-- The acts of operators that let the relays send again, although the transaction ids of the outbox were those of another
-- database cluster.
create table relay_adoption (
    id bigint generated always as identity,
    adopted_at timestamptz not null default clock_timestamp(),
    adopted_by text not null,
    reason text not null,
    -- Why the relays had stopped.
    blocked text not null,
    -- How many messages were sent, or sent again.
    rows bigint not null,
    constraint relay_adoption_pkey primary key (id)
);

-- A number per consumer group that its members count up. The offsets that they commit to Kafka carry it. A database with a
-- lower number than the offsets was set back in time.
create table consumer_mark (
    consumer_group text not null,
    mark bigint not null,
    marked_at timestamptz not null default now(),
    constraint consumer_mark_pkey primary key (consumer_group)
);
