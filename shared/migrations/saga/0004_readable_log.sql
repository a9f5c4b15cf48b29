-- A NUL character in an operator's or a participant's words is in the JSON of the log as the escape \u0000. PostgreSQL stores it,
-- and then fails at every statement that reads a member of that row, such as the audit's. It is replaced, as for new rows.
update saga_log
set input = regexp_replace(input::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::json,
    reply = regexp_replace(reply::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::json,
    decisions = regexp_replace(decisions::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::json
where input::text like '%\\u0000%' or reply::text like '%\\u0000%' or decisions::text like '%\\u0000%';
update saga
set state = regexp_replace(state::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::json
where state::text like '%\\u0000%';
