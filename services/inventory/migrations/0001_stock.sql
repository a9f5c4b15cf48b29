-- Stock: what there is of each product, who holds it, and a ledger of every move.
-- on_hand + reserved + shipped = received, for every product, at all times.

create table product (
    sku text not null,
    name text not null,
    price_amount bigint not null constraint product_price check (price_amount >= 0),
    price_currency text not null,
    on_hand bigint not null default 0 constraint product_on_hand check (on_hand >= 0),
    reserved bigint not null default 0 constraint product_reserved check (reserved >= 0),
    shipped bigint not null default 0 constraint product_shipped check (shipped >= 0),
    received bigint not null default 0,
    low_threshold bigint not null default 10,
    version bigint not null default 1,
    updated_at timestamptz not null default now(),
    constraint product_pkey primary key (sku),
    constraint product_adds_up check (on_hand + reserved + shipped = received)
) with (fillfactor = 50);

create table reservation (
    order_id uuid not null,
    status text not null constraint reservation_status check (status in ('held', 'released', 'committed')),
    items json not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint reservation_pkey primary key (order_id)
) with (fillfactor = 80);

-- The move of one order's line can happen once: reserved, then released or committed.
create table stock_entry (
    id bigint generated always as identity,
    sku text not null,
    kind text not null constraint stock_entry_kind check (kind in ('received', 'reserved', 'released', 'committed')),
    quantity bigint not null constraint stock_entry_quantity check (quantity > 0),
    order_id uuid,
    at timestamptz not null default now(),
    constraint stock_entry_pkey primary key (id),
    constraint stock_entry_once unique (order_id, sku, kind)
);
