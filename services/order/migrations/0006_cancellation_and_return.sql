-- What a customer wanted of an order afterwards, and what became of it.
alter table orders add column cancellation text
    constraint orders_cancellation check (cancellation in ('requested', 'refused'));
alter table orders add column cancellation_reason text;
alter table orders add column return_id uuid;
alter table orders add column return_status text
    constraint orders_return_status check (return_status in ('requested', 'refused', 'done'));
alter table orders add column return_reason text;
