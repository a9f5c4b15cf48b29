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
