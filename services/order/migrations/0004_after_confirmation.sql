-- What can become of an order beside being confirmed or rejected: cancelled while it is pending, shipped and delivered
-- while it stands confirmed (the carrier's word, kept beside the saga's), and returned.
alter table orders drop constraint orders_status;
alter table orders add constraint orders_status
    check (status in ('pending', 'confirmed', 'rejected', 'cancelled', 'returned'));
alter table orders add column delivery text constraint orders_delivery check (delivery in ('shipped', 'delivered'));
