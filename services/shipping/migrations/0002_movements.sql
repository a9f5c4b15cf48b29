-- What becomes of a parcel once its order stands. Its order's confirmation releases it for pick-up; the events of its
-- way belong to that message's saga and trace. `due_at` is when the carrier is asked about it next.
alter table shipment drop constraint shipment_status;
alter table shipment add constraint shipment_status check
    (status in ('booking', 'booked', 'refused', 'stopping', 'cancelled', 'dispatched', 'delivered'));
alter table shipment
    add column released_at timestamptz,
    add column released_by uuid,
    add column correlation_id uuid,
    add column traceparent text,
    add column due_at timestamptz,
    add column dispatched_at timestamptz,
    add column delivered_at timestamptz;

-- Nothing moves, nor is asked about, that was not released; and what does not move is not asked about.
alter table shipment
    add constraint shipment_released check
        ((released_at is null) = (released_by is null) and (released_at is null) = (correlation_id is null)
         and (released_at is not null or (due_at is null and status not in ('dispatched', 'delivered')))),
    add constraint shipment_due check (due_at is null or status in ('booked', 'dispatched'));

create index shipment_due on shipment (due_at) where due_at is not null;
