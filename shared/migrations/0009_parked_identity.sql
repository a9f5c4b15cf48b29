-- A record is known by its place and its content. A broker that was begun anew counts its offsets from zero, so that
-- another record comes to a place in this table. By the place alone it would be taken for the old one, and dropped.
--
-- The digest is that of the key and the body as they came, because operators may replace the body. The default is for
-- replicas of the release before.
alter table parked add column digest bytea not null default '';
update parked set digest = sha256(convert_to(key, 'UTF8') || '\x00'::bytea || coalesce(
    (select edit.body from parked_edit edit where edit.parked_id = parked.id order by edit.edited_at limit 1), body));
alter table parked drop constraint parked_once;
alter table parked add constraint parked_once unique (topic, partition, "offset", digest);
