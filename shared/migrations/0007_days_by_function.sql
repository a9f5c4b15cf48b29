-- Functions with their owner's rights create and drop the partitions of the inbox. The role of a service therefore needs
-- to own no tables.
alter function inbox_add_day(date) security definer set search_path from current;

create function inbox_drop_day(day date) returns void language plpgsql security definer set search_path from current as $$
begin
    execute format('drop table %I', 'inbox_' || to_char(day, 'YYYYMMDD'));
end
$$;
