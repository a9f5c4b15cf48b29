-- The figures of truncated slots: the number of messages per minute and topic, and all their positions in one number.
-- Together with the remaining outbox rows they say which messages must be on the topics. The audit compares both.
create table outbox_receipt (
    -- The minute in which the transactions began, as in `timestamp` of the envelope.
    minute timestamptz not null,
    topic text not null,
    rows bigint not null,
    -- All positions, combined by exclusive or.
    positions_xor bigint not null,
    constraint outbox_receipt_pkey primary key (minute, topic)
);
