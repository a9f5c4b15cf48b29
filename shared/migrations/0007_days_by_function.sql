-- The inbox's days are made and dropped by functions with their owner's rights, so that a service can run as a role that
-- owns nothing.
alter function inbox_add_day(date) security definer set search_path from current;

create function inbox_drop_day(day date) returns void language plpgsql security definer set search_path from current as $$
begin
    execute format('drop table %I', 'inbox_' || to_char(day, 'YYYYMMDD'));
end
$$;
