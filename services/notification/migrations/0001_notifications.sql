-- What customers were told.

create table notification (
    id uuid not null,
    order_id uuid not null,
    customer_id text not null,
    kind text not null,
    email text,
    text text not null,
    channel text not null,
    status text not null constraint notification_status check (status in ('sent', 'failed')),
    created_at timestamptz not null default now(),
    constraint notification_pkey primary key (id),
    constraint notification_once unique (order_id, kind)
);
