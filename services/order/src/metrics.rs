//! The metrics of the order service's own, in one table. `docs/metrics.md` is generated from it.

shared::metrics_table! {
    ORDERS_PLACED: Counter "orders_placed_total" [],
        "How many orders were accepted.", "";
    ORDERS_REFUSED: Counter "orders_refused_total" ["backlog"],
        "How many orders were refused with 503 before anything was written, by the backlog that was too large: `outbox` or `pending`.",
        "If it goes up, the suite has too much to do; clients should honour `Retry-After`.";
    ORDERS_PENDING: Gauge "orders_pending" [],
        "How many orders are pending, counted no further than twice their limit.", "";
    OUTBOX_BACKLOG: Gauge "order_outbox_backlog_rows" [],
        "How many rows of the outbox are not acknowledged, counted no further than twice their limit.", "";
}
