-- The results of operators' actions on parked messages: failed replays, and skipped messages with the operator.
alter table parked
    add column attempts integer not null default 0,
    add column last_attempt_at timestamptz,
    add column resolved_at timestamptz,
    add column resolved_by text,
    -- The reason for skipping the message.
    add column skip_reason text;

-- The index has the order of replay. With the index of 0001, each replay would sort all messages of the key.
create index parked_open on parked (key, id) where status = 'parked';
drop index parked_by_key;
create index parked_of_key on parked (key, id);

-- The bodies that operators have replaced.
create table parked_edit (
    parked_id bigint not null,
    edited_at timestamptz not null default clock_timestamp(),
    edited_by text not null,
    body bytea not null,
    constraint parked_edit_pkey primary key (parked_id, edited_at),
    constraint parked_edit_message foreign key (parked_id) references parked (id) on delete cascade
);
