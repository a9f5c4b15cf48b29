-- The message that each copy is from, so that a copy follows its owner when the owner's database was set back to older versions.
-- Copies that are there already are right as of now. The default is also for replicas of the release before.
set local lock_timeout = '5s';
alter table customer_contact
    add column message_id uuid,
    add column message_at timestamptz not null default now();
