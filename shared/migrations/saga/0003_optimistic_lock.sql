-- Two replicas that extend the same log race for its next number. The name says that the loser may try again.
alter table saga_log rename constraint saga_log_pkey to saga_log_optimistic_lock;
