-- Orders, their timeline (what every service did for them), the products as inventory tells of them, and the answers
-- that were given under an Idempotency-Key.

create table orders (
    id uuid not null,
    customer_id text not null,
    status text not null constraint orders_status check (status in ('pending', 'confirmed', 'rejected')),
    items json not null,
    total_amount bigint not null,
    currency text not null,
    shipping_address json not null,
    email text,
    reason text,
    detail json,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint orders_pkey primary key (id)
) with (fillfactor = 80);
create index orders_by_status on orders (status, id);
create index orders_by_customer on orders (customer_id, id);

-- Positions are drawn under the order's lock, so within an order they are in commit order and a reader that has seen
-- one has seen all before it.
create table order_timeline (
    order_id uuid not null,
    position bigint generated always as identity,
    message_id uuid not null,
    at timestamptz not null,
    service text not null,
    type text not null,
    constraint order_timeline_pkey primary key (order_id, position)
);

create table product (
    sku text not null,
    name text not null,
    price_amount bigint not null,
    price_currency text not null,
    version bigint not null,
    constraint product_pkey primary key (sku)
);

create table idempotency_key (
    key text not null,
    request_hash bytea not null,
    order_id uuid not null,
    answer text not null,
    created_at timestamptz not null default now(),
    constraint idempotency_key_pkey primary key (key)
);
