-- What a truncated slot had: how many messages of each minute went to each topic, and all their positions in one number.
-- With what is still in the outbox it says what must be on the topics, to be held against them.
create table outbox_receipt (
    -- In which the transactions began: what `timestamp` says in the envelope.
    minute timestamptz not null,
    topic text not null,
    rows bigint not null,
    -- The positions, combined by exclusive or.
    positions_xor bigint not null,
    constraint outbox_receipt_pkey primary key (minute, topic)
);
