-- Answers are forgotten by age. They are written in the order of time, so the index grows at one edge.
create index idempotency_key_created on idempotency_key (created_at);
