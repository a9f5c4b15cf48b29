-- Open steps are found by this index, and nothing else is: an index on the status was also taken for finding the rows of a
-- batch by key, by reading it from end to end for each.
drop index step_outcome_open;
create index step_outcome_open on step_outcome (type, claimed_until) where claimed_until is not null;

-- Messages that an operator has resolved, for those that come again and are not in the inbox.
create index parked_resolved on parked (message_id) where status <> 'parked';
