-- Partitions the inbox by day, so that old ids are dropped as a whole and need not be deleted.

-- Returns the smallest id of a day. A UUIDv7 begins with its time, 48 bits of milliseconds since 1970, so the ids of a day
-- are a range. The id therefore determines the partition, and is unique across the partitions.
create function inbox_floor(day date) returns uuid language sql immutable
    return (lpad(to_hex((day - date '1970-01-01')::bigint * 86400000), 12, '0') || repeat('0', 20))::uuid;

alter table inbox rename to inbox_before;
alter table inbox_before rename constraint inbox_pkey to inbox_before_pkey;

create table inbox (
    message_id uuid not null,
    received_at timestamptz not null default now(),
    constraint inbox_pkey primary key (message_id)
) partition by range (message_id);

-- Ids without a time, and ids of days without a partition. They are deleted by their time of arrival.
create table inbox_other partition of inbox default;
create index inbox_other_received on inbox_other (received_at);

-- Creates a day's partition, and moves the ids that arrived earlier into it. The partition is created separately and then
-- attached. Attaching waits for writers of the default partition only, and blocks no other transaction.
create function inbox_add_day(day date) returns void language plpgsql as $$
declare
    name text := 'inbox_' || to_char(day, 'YYYYMMDD');
    first uuid := inbox_floor(day);
    next uuid := inbox_floor(day + 1);
begin
    execute format('create table %I (like inbox including defaults including indexes)', name);
    lock table inbox_other in access exclusive mode;
    execute format(
        'with moved as (delete from inbox_other where message_id >= %L and message_id < %L
                        returning message_id, received_at)
         insert into %I (message_id, received_at) select message_id, received_at from moved', first, next, name);
    execute format('alter table inbox attach partition %I for values from (%L) to (%L)', name, first, next);
end
$$;

do $$
declare
    today date := (now() at time zone 'UTC')::date;
    day date;
begin
    for day in
        select generate_series(today, today + 3, interval '1 day')::date
        union
        select (uuid_extract_timestamp(message_id) at time zone 'UTC')::date from inbox_before
        where uuid_extract_version(message_id) = 7
          and uuid_extract_timestamp(message_id) between now() - interval '30 days' and now()
    loop
        perform inbox_add_day(day);
    end loop;
end
$$;

insert into inbox (message_id, received_at) select message_id, received_at from inbox_before;
drop table inbox_before;
