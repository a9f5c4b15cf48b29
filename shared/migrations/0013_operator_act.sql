-- What operators have done: who, why, and to what. The ids are UUIDv7, so that they are ordered by time.
create table operator_act (
    id uuid not null,
    at timestamptz not null default now(),
    act text not null,
    by text not null,
    reason text not null,
    detail jsonb not null,
    constraint operator_act_pkey primary key (id)
);
