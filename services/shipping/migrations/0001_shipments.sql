-- Shipments, as booked with the carrier.

create table shipment (
    order_id uuid not null,
    status text not null constraint shipment_status check (status in ('booking', 'booked', 'refused', 'cancelled')),
    address json not null,
    items json not null,
    tracking_number text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint shipment_pkey primary key (order_id)
) with (fillfactor = 70);
