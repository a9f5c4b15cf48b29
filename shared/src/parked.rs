//! Parked messages: a message that failed for good, and every later one of its key, wait here in order for an
//! operator. Other keys flow on.

use sqlx::PgConnection;

use crate::consumer::Incoming;

/// Parks a message. The caller has locked its key and claimed its id.
pub(crate) async fn park(db: &mut PgConnection, message: &Incoming, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        r#"insert into parked (key, message_id, type, topic, partition, "offset", reason, body, traceparent)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict on constraint parked_once do nothing"#,
    )
    .bind(&message.key)
    .bind(message.envelope.as_ref().map(|envelope| envelope.id))
    .bind(storable(message.kind()))
    .bind(&message.topic)
    .bind(message.partition)
    .bind(message.offset)
    .bind(storable(reason))
    .bind(&message.body)
    .bind(message.traceparent.as_deref().map(storable))
    .execute(db)
    .await?;
    Ok(())
}

/// PostgreSQL's texts can't hold a NUL; the body, which is bytes, keeps it.
fn storable(text: &str) -> String {
    text.replace('\0', "")
}
