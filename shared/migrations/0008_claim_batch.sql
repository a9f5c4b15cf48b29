-- Begins a batch of messages in one round trip: takes the locks of its keys, claims the ids of its messages, and looks up
-- what is on record about its keys and steps. Each statement of a volatile function has a snapshot of its own. The
-- claims therefore see the commits of the locks' former holders.
--
-- The locks come in one global order, and the ids too, so that two batches cannot deadlock. `unclaimed` are ids that the
-- inbox need not remember, because their handler detects repetitions by its own data.
--
-- Most batches at an ordinary load are one message. Starting a statement costs more than executing it then, so what has
-- nothing to ask for is left out.
create function claim_batch(
    locks bigint[], keys text[], ids uuid[], unclaimed uuid[], sagas uuid[], steps text[], directions text[]
) returns json language plpgsql as $$
declare
    lock bigint;
    held text;
    new_ids uuid[];
    resolved uuid[];
    outcomes json;
begin
    foreach lock in array locks loop
        -- An assignment is an expression, and costs less than a statement.
        held := pg_advisory_xact_lock(lock);
    end loop;
    if cardinality(ids) = 1 then
        insert into inbox (message_id) values (ids[1]) on conflict do nothing;
        if found then
            new_ids := ids;
        end if;
    elsif cardinality(ids) > 1 then
        with claimed as (
            insert into inbox (message_id) select * from unnest(ids) on conflict do nothing returning message_id)
        select array_agg(message_id) into new_ids from claimed;
    end if;
    if cardinality(unclaimed) > 0 then
        select array_agg(p.message_id) into resolved
        from parked p where p.status <> 'parked' and p.message_id = any(unclaimed);
    end if;
    if cardinality(sagas) > 0 then
        select json_agg(recorded) into outcomes
        from (select o.saga_id, o.step, o.direction, o.message_id, o.status, o.outcome::text
              from unnest(sagas, steps, directions) as asked (saga_id, step, direction)
              join step_outcome o using (saga_id, step, direction)) as recorded;
    end if;
    return json_build_object(
        'now', (extract(epoch from now()) * 1000000)::bigint,
        'new', new_ids,
        'parked', (select array_agg(distinct p.key) from parked p where p.status = 'parked' and p.key = any(keys)),
        'resolved', resolved,
        'outcomes', outcomes);
end
$$;
