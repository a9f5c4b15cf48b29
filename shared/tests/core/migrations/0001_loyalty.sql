-- The tables of the loyalty service, and two campaigns.

create table campaign (
    name text not null,
    points_left bigint not null constraint campaign_budget check (points_left >= 0),
    points_granted bigint not null default 0,
    constraint campaign_pkey primary key (name)
);
insert into campaign (name, points_left) values ('spring', 1000), ('leap_day', 3);

create table points_grant (
    member uuid not null,
    campaign text not null references campaign,
    points bigint not null,
    constraint points_grant_pkey primary key (member)
);

create table voucher (
    member uuid not null,
    status text not null constraint voucher_status check (status in ('ordered', 'printed', 'voided')),
    page text,
    constraint voucher_pkey primary key (member)
);

-- The printer: whether it answers, and what it was called for.
create table printer (answers boolean not null);
insert into printer values (true);
create table printer_call (
    id bigint generated always as identity,
    key text not null,
    constraint printer_call_pkey primary key (id)
);

-- What the printer has answered. Nothing but the core keeps an outcome from being written twice.
create table print_entry (
    id bigint generated always as identity,
    member uuid not null,
    page text not null,
    constraint print_entry_pkey primary key (id)
);

create table cup (
    member uuid not null,
    status text not null constraint cup_status check (status in ('ordered', 'engraved', 'refused', 'melted')),
    mark text,
    -- The transaction that recorded the intent.
    ordered_in xid8 not null default pg_current_xact_id(),
    constraint cup_pkey primary key (member)
);

-- The engraver: whether it answers, does not answer yet, or fails, and what it was called for.
create table engraver (
    answers text not null constraint engraver_answers check (answers in ('yes', 'not yet', 'with an error'))
);
insert into engraver values ('yes');
create table engraver_call (
    id bigint generated always as identity,
    key text not null,
    constraint engraver_call_pkey primary key (id)
);

-- What the engraver has answered. Nothing but the core keeps an outcome from being written twice.
create table engraving (
    id bigint generated always as identity,
    member uuid not null,
    mark text not null,
    constraint engraving_pkey primary key (id)
);

create table statement_line (
    position bigint generated always as identity,
    member text not null,
    message_id uuid not null,
    constraint statement_line_pkey primary key (position),
    constraint statement_line_once unique (message_id)
);

-- Offers end after a day.
create table offer (
    name text not null,
    created_at timestamptz not null default now(),
    constraint offer_pkey primary key (name)
);
