-- Customers, so that one who orders without an address can be told too. Orders need no customer to be here.
create table customer (
    id text not null,
    name text,
    email text not null,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint customer_pkey primary key (id)
);
