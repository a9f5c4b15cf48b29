-- The tables of every service: inbox, outbox, the relay's checkpoint, step outcomes and parked messages.

-- One row per message that took effect in this service. UUIDv7 ids arrive roughly in order, so the index grows at one end.
create table inbox (
    message_id uuid not null,
    received_at timestamptz not null default now(),
    constraint inbox_pkey primary key (message_id)
);

-- The sequence has no cache. With one, a session could draw a low position after another session drew a high one.
create sequence outbox_position as bigint cache 1;

-- Writers use three slots in turn, one minute each. A slot is truncated when the relay has sent all its rows.
create table outbox (
    slot smallint not null default ((extract(epoch from now())::bigint / 60) % 3)::smallint,
    position bigint not null default nextval('outbox_position'),
    xid xid8 not null default pg_current_xact_id(),
    shard smallint not null,
    topic text not null,
    key text not null,
    traceparent text,
    body bytea not null,
    created_at timestamptz not null default now()
) partition by list (slot);

create table outbox_0 partition of outbox for values in (0) with (autovacuum_enabled = false);
create table outbox_1 partition of outbox for values in (1) with (autovacuum_enabled = false);
create table outbox_2 partition of outbox for values in (2) with (autovacuum_enabled = false);
alter table outbox alter column body set storage external;

create index outbox_xid on outbox (xid);
create index outbox_by_position on outbox (position);

-- The progress of a shard's relay. All rows visible in `acked_snapshot` are on Kafka. If `window_snapshot` is set, the rows
-- visible in it up to `position` are on Kafka too.
create table relay_checkpoint (
    shard smallint not null,
    epoch bigint not null default 0,
    owner text,
    owner_pid integer,
    lease_until timestamptz not null default '-infinity',
    acked_snapshot pg_snapshot not null default '3:3:',
    window_snapshot pg_snapshot,
    position bigint not null default 0,
    system_identifier bigint,
    updated_at timestamptz not null default now(),
    constraint relay_checkpoint_pkey primary key (shard)
);

-- The second idempotency key of a command: the outcome of a saga step. A repeated command gets the recorded answer.
create table step_outcome (
    saga_id uuid not null,
    step text not null,
    direction text not null constraint step_outcome_direction check (direction in ('do', 'undo')),
    type text not null,
    message_id uuid not null,
    status text not null constraint step_outcome_status check (status in ('pending', 'done', 'refused', 'tombstoned')),
    outcome jsonb,
    -- The command and its trace are kept while an external call is open, so that the call can be resumed.
    command bytea,
    traceparent text,
    attempts integer not null default 0,
    claimed_by text,
    claimed_until timestamptz,
    recorded_at timestamptz not null default now(),
    constraint step_outcome_pkey primary key (saga_id, step, direction)
);
create index step_outcome_open on step_outcome (type, claimed_until) where status = 'pending';

-- Messages that failed permanently, and the later messages of their keys, in order.
create table parked (
    id bigint generated always as identity,
    key text not null,
    message_id uuid,
    type text,
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    reason text not null,
    body bytea not null,
    traceparent text,
    status text not null default 'parked' constraint parked_status check (status in ('parked', 'replayed', 'skipped')),
    parked_at timestamptz not null default now(),
    constraint parked_pkey primary key (id),
    constraint parked_once unique (topic, partition, "offset")
);
create index parked_by_key on parked (key) where status = 'parked';
