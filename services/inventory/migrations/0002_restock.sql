-- What an order took may come back.
alter table reservation drop constraint reservation_status;
alter table reservation add constraint reservation_status
    check (status in ('held', 'released', 'committed', 'restocked'));
alter table stock_entry drop constraint stock_entry_kind;
alter table stock_entry add constraint stock_entry_kind
    check (kind in ('received', 'reserved', 'released', 'committed', 'restocked'));
