-- An entry is known by its message, so that a repeated one changes nothing and the inbox need not remember it too.
-- An order has some ten entries: they are sorted when they are read.
alter table order_timeline drop constraint order_timeline_pkey;
alter table order_timeline add constraint order_timeline_pkey primary key (order_id, message_id);
