-- Mail: a notice is `sending` from its intent until the mail server has taken it or refused it for good.
alter table notification drop constraint notification_status;
alter table notification add constraint notification_status check (status in ('sending', 'sent', 'failed'));
alter table notification add column reason text;

-- Where customers can be reached, as order tells of them.
create table customer_contact (
    customer_id text not null,
    email text not null,
    version bigint not null,
    updated_at timestamptz not null default now(),
    constraint customer_contact_pkey primary key (customer_id)
);
