-- The answers that were given under Idempotency-Keys, written in the transaction of the write that they are about.
create table idempotency_answer (
    key text not null,
    request_hash bytea not null,
    status smallint not null,
    -- It is null if a repetition gets the present state instead of the first answer.
    body text,
    created_at timestamptz not null default now(),
    constraint idempotency_answer_pkey primary key (key)
);
-- Answers are forgotten by age. They are written in the order of time, so the index grows at one edge.
create index idempotency_answer_created on idempotency_answer (created_at);
