//! The statements of the services, and a change that breaks each of them.

const MEND_LOG: &str = "update saga_log l set input = kept.input, message_id = kept.message_id from kept
     where l.saga_id = kept.saga_id and l.sequence = kept.sequence; drop table kept";

const MEND_DECISIONS: &str = "delete from saga_log where sequence = 0;
     update saga_log l set decisions = kept.decisions, input = kept.input from kept
     where l.saga_id = kept.saga_id and l.sequence = kept.sequence; drop table kept";

/// Changes that break a statement: the service, the statement's name, the change, and the change back. Every statement is here,
/// some more than once. There is one confirmed order and one rejected order.
pub const STATEMENTS: [(&str, &str, &str, &str); 37] = [
    (
        "order",
        "total_is_the_sum_of_the_lines",
        "update orders set total_amount = total_amount + 1",
        "update orders set total_amount = total_amount - 1",
    ),
    (
        "order",
        "an_outcome_is_told_once",
        "update order_timeline set type = 'lost' where type = 'order.confirmed.v1'",
        "update order_timeline set type = 'order.confirmed.v1' where type = 'lost'",
    ),
    (
        "order",
        "a_rejection_has_a_reason",
        "update orders set reason = 'none' where status = 'confirmed'",
        "update orders set reason = null where status = 'confirmed'",
    ),
    (
        "order",
        "an_answer_has_its_order",
        "update idempotency_key set order_id = gen_random_uuid() where key = 'one'",
        "update idempotency_key set order_id = (answer::json ->> 'id')::uuid where key = 'one'",
    ),
    (
        "order",
        "an_order_has_one_key",
        "insert into idempotency_key (key, request_hash, order_id, answer)
         select 'two', request_hash, order_id, answer from idempotency_key where key = 'one'",
        "delete from idempotency_key where key = 'two'",
    ),
    (
        "order",
        "a_timeline_is_in_order",
        "create table kept as select order_id, message_id from order_timeline where type = 'order.confirmed.v1';
         update order_timeline set message_id = ('00000000' || substr(message_id::text, 9))::uuid
         where type = 'order.confirmed.v1'",
        "update order_timeline t set message_id = kept.message_id from kept
         where t.order_id = kept.order_id and t.type = 'order.confirmed.v1'; drop table kept",
    ),
    (
        "payment",
        "the_ledger_tells_the_status",
        "update payment set status = 'voided' where status = 'captured'",
        "update payment set status = 'captured' where status = 'voided'",
    ),
    (
        "payment",
        "an_entry_has_its_payment",
        "update ledger_entry set amount = amount + 1",
        "update ledger_entry set amount = amount - 1",
    ),
    (
        "payment",
        "captured_was_authorized",
        "update ledger_entry set kind = 'refund' where kind = 'authorize'",
        "update ledger_entry set kind = 'authorize' where kind = 'refund'",
    ),
    (
        "payment",
        "nothing_is_negative",
        "update ledger_entry set debit = 'nobody' where kind = 'authorize'",
        "update ledger_entry set debit = 'holds' where kind = 'authorize'",
    ),
    (
        "payment",
        "what_is_held_is_authorized",
        "update payment set status = 'authorized' where status = 'captured'",
        "update payment set status = 'captured' where status = 'authorized'",
    ),
    (
        "payment",
        "an_entry_is_the_effect_of_a_step",
        "update step_outcome set status = 'tombstoned' where step = 'capture_payment'",
        "update step_outcome set status = 'done' where step = 'capture_payment'",
    ),
    (
        "inventory",
        "stock_adds_up",
        "alter table product drop constraint product_adds_up; update product set received = received + 1",
        "update product set received = received - 1",
    ),
    (
        "inventory",
        "nothing_is_negative",
        "alter table product drop constraint product_on_hand; update product set on_hand = -on_hand",
        "update product set on_hand = -on_hand",
    ),
    (
        "inventory",
        "reserved_is_what_orders_hold",
        "update reservation set status = 'held' where status = 'committed'",
        "update reservation set status = 'committed' where status = 'held'",
    ),
    (
        "inventory",
        "shipped_is_what_orders_took",
        "update reservation set status = 'released' where status = 'committed'",
        "update reservation set status = 'committed'",
    ),
    (
        "inventory",
        "the_ledger_tells_the_stock",
        "update stock_entry set quantity = quantity + 1 where kind = 'received'",
        "update stock_entry set quantity = quantity - 1 where kind = 'received'",
    ),
    (
        "inventory",
        "the_ledger_tells_the_reservation",
        "update stock_entry set kind = 'released' where kind = 'committed'",
        "update stock_entry set kind = 'committed' where kind = 'released'",
    ),
    (
        "inventory",
        "an_entry_is_the_effect_of_a_step",
        "update step_outcome set status = 'tombstoned' where step = 'commit_stock'",
        "update step_outcome set status = 'done' where step = 'commit_stock'",
    ),
    (
        "shipping",
        "a_booked_shipment_has_a_number",
        "update shipment set tracking_number = null",
        "update shipment set tracking_number = 'one'",
    ),
    (
        "shipping",
        "nothing_leaves_before_its_order_stands",
        "update shipment set dispatched_at = released_at - interval '1 second'",
        "update shipment set dispatched_at = null",
    ),
    (
        "shipping",
        "a_released_shipment_is_asked_about",
        "update shipment set due_at = null",
        "update shipment set due_at = now() + interval '1 hour'",
    ),
    (
        "shipping",
        "a_shipment_is_the_effect_of_a_step",
        "update step_outcome set status = 'refused' where step = 'book_shipment'",
        "update step_outcome set status = 'done' where step = 'book_shipment'",
    ),
    (
        "notification",
        "a_customer_is_told_once",
        "alter table notification drop constraint notification_once;
         insert into notification (id, order_id, customer_id, kind, text, channel, status)
         select gen_random_uuid(), order_id, customer_id, kind, 'again', channel, status from notification",
        "delete from notification where text = 'again'",
    ),
    (
        "notification",
        "a_failure_has_a_reason",
        "update notification set reason = 'none'",
        "update notification set reason = null",
    ),
    (
        "notification",
        "a_notice_is_the_effect_of_a_step",
        "update step_outcome set status = 'tombstoned' where step = 'notify_customer'",
        "update step_outcome set status = 'done' where step = 'notify_customer'",
    ),
    (
        "orchestrator",
        "a_log_has_no_gap",
        "update saga_log set sequence = 99 where sequence = 2",
        "update saga_log set sequence = 2 where sequence = 99",
    ),
    (
        "orchestrator",
        "an_end_is_decided_once",
        "update saga set status = 'completed' where status = 'compensated'",
        "update saga set status = 'compensated' where reason is not null",
    ),
    (
        "orchestrator",
        "an_open_saga_is_woken",
        "update saga set status = 'running' where status = 'completed'",
        "update saga set status = 'completed' where status = 'running'",
    ),
    (
        "orchestrator",
        "what_is_undone_was_done",
        r#"update saga_log set input = replace(input::text, '"done"', '"lost"')::json"#,
        r#"update saga_log set input = replace(input::text, '"lost"', '"done"')::json"#,
    ),
    (
        "orchestrator",
        "nothing_is_undone_past_an_open_step",
        r#"update saga_log set input = replace(input::text, '"refused"', '"lost"')::json"#,
        r#"update saga_log set input = replace(input::text, '"lost"', '"refused"')::json"#,
    ),
    (
        // An undo command is sent while another one is open.
        "orchestrator",
        "undoing_goes_group_by_group",
        r#"create table kept as select * from saga_log;
           update saga_log set decisions =
               (decisions::jsonb || '[{"decision": "ask", "step": "book_shipment", "direction": "undo"}]')::json
           where sequence = 1 and saga_id in (select saga_id from saga where status = 'compensated')"#,
        MEND_DECISIONS,
    ),
    (
        // A step is undone before a later one that was done.
        "orchestrator",
        "undoing_goes_group_by_group",
        r#"create table kept as select * from saga_log;
           update saga_log set decisions =
               (decisions::jsonb || '[{"decision": "ask", "step": "book_shipment", "direction": "do"}]')::json
           where sequence = 2 and saga_id in (select saga_id from saga where status = 'compensated');
           insert into saga_log (saga_id, sequence, at, input, decisions)
           select saga_id, 0, now(), '{"input": "done", "step": "book_shipment", "direction": "do"}', '[]'
           from saga where status = 'compensated'"#,
        MEND_DECISIONS,
    ),
    (
        // The saga is closed while an undo is open.
        "orchestrator",
        "undoing_goes_group_by_group",
        r#"create table kept as select * from saga_log;
           update saga_log set input = replace(input::text, '"done"', '"failing"')::json
           where input ->> 'direction' = 'undo'"#,
        MEND_DECISIONS,
    ),
    (
        "orchestrator",
        "the_pivot_is_never_undone",
        "update saga_log set decisions = replace(decisions::text, 'authorize_payment', 'capture_payment')::json
         where decisions::text like '%undo%'",
        "update saga_log set decisions = replace(decisions::text, 'capture_payment', 'authorize_payment')::json
         where decisions::text like '%undo%'",
    ),
    (
        "orchestrator",
        "a_step_is_answered_once",
        r#"create table kept as select * from saga_log;
           update saga_log set input = replace(input::text, '"undo"', '"do"')::json"#,
        MEND_LOG,
    ),
    (
        "orchestrator",
        "answers_are_in_order",
        "create table kept as select * from saga_log;
         update saga_log set message_id = ('00000000' || substr(message_id::text, 9))::uuid
         where input ->> 'step' = 'authorize_payment' and input ->> 'direction' = 'undo'",
        MEND_LOG,
    ),
];

/// Changes that do not break a statement: the service, the statement's name, the change, and the change back.
pub const HARMLESS: [(&str, &str, &str, &str); 1] = [(
    // A participant that said twice that a step is failing, and said it again after a crash.
    "orchestrator",
    "answers_are_in_order",
    "insert into saga_log (saga_id, sequence, at, message_id, input, decisions)
     select saga_id, 100 + n, at, case n % 2 when 0 then message_id else ('00000000' || substr(message_id::text, 9))::uuid end,
            json_build_object('input', 'failing', 'step', input ->> 'step', 'direction', 'do', 'error', n % 2), '[]'
     from saga_log, generate_series(1, 4) as n where input ->> 'step' = 'capture_payment'",
    "delete from saga_log where sequence > 100",
)];
