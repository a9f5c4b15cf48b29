-- Payments, and the double-entry ledger of what was moved for them.

create table payment (
    order_id uuid not null,
    token text not null,
    amount bigint not null constraint payment_amount check (amount >= 0),
    currency text not null,
    status text not null constraint payment_status
        check (status in ('authorizing', 'authorized', 'declined', 'voided', 'captured', 'refunded')),
    authorization_id text,
    reason text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint payment_pkey primary key (order_id)
) with (fillfactor = 70);

-- Each row moves an amount from one account to another, so the books balance by construction. An order moves once in
-- each kind.
create table ledger_entry (
    id bigint generated always as identity,
    order_id uuid not null,
    kind text not null constraint ledger_entry_kind check (kind in ('authorize', 'void', 'capture', 'refund')),
    debit text not null,
    credit text not null,
    amount bigint not null constraint ledger_entry_amount check (amount >= 0),
    currency text not null,
    at timestamptz not null default now(),
    constraint ledger_entry_pkey primary key (id),
    constraint ledger_entry_once unique (order_id, kind),
    constraint ledger_entry_moves check (debit <> credit)
);
