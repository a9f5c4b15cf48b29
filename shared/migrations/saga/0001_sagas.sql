-- The sagas: an append-only log of inputs and decisions, and a row with the state of each saga, projected from the log.

create table saga (
    saga_id uuid not null,
    definition text not null,
    version integer not null,
    plan_hash text not null,
    subject text not null,
    status text not null constraint saga_status
        check (status in ('running', 'compensating', 'completed', 'compensated', 'stuck')),
    reason text,
    state json not null,
    data json not null,
    sequence integer not null,
    traceparent text,
    -- The time of the next wake-up. It is not later than the next deadline, and null if the saga has ended.
    due_at timestamptz,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint saga_pkey primary key (saga_id)
) with (fillfactor = 70);

create index saga_due on saga (due_at) where due_at is not null;
create index saga_by_status on saga (status, saga_id);
create index saga_by_subject on saga (subject);

create table saga_log (
    saga_id uuid not null,
    sequence integer not null,
    at timestamptz not null,
    message_id uuid,
    input json not null,
    decisions json not null,
    constraint saga_log_pkey primary key (saga_id, sequence)
);
