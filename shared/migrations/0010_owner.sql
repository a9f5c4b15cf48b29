-- Whose tables these are. The first service that comes takes them, and another one is refused at its start: two services
-- would take each other's messages for their own, and answer commands that they never had.
--
-- `database_id` names these tables for ever, also after a restore. The owner of the topics on Kafka is known by it.
create table owner (
    only_row boolean primary key default true constraint owner_only_row check (only_row),
    service text not null,
    database_id uuid not null default gen_random_uuid(),
    since timestamptz not null default now()
);
