-- Functions with their owner's rights create and drop the partitions of the inbox. The role of a service therefore needs
-- to own no tables. Temporary objects come last in their search path, and nobody may call them without a grant.

create function inbox_drop_day(day date) returns void language plpgsql as $$
begin
    execute format('drop table %I', 'inbox_' || to_char(day, 'YYYYMMDD'));
end
$$;

do $$
declare
    name text;
begin
    foreach name in array array['inbox_add_day', 'inbox_drop_day'] loop
        execute format('alter function %I(date) security definer set search_path = %I, pg_temp',
                       name, current_schema());
        execute format('revoke execute on function %I(date) from public', name);
    end loop;
end
$$;
