-- Records that the broker deleted before a consumer group had read them. They are noticed once, and stay a notice until the
-- housekeeper or an operator deletes the row.
create table record_gap (
    consumer_group text not null,
    topic text not null,
    partition integer not null,
    first_missing bigint not null,
    first_present bigint not null,
    reason text not null constraint record_gap_reason check (reason in ('deleted', 'late', 'shortened')),
    noticed_at timestamptz not null default now(),
    constraint record_gap_pkey primary key (consumer_group, topic, partition, first_missing)
);
