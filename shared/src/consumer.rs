//! The batch consumer. It claims, handles and commits a batch of messages in one transaction, and stores the offsets
//! after the commit.
//!
//! A batch that fails is rolled back. A transient failure repeats the whole batch with backoff. After a permanent
//! failure the messages are handled one by one, so that a bad message affects only its own key: both are parked.
//! Topics that only have background handlers ([`crate::router::BatchHandler::is_background`]) are read by a member of a
//! group of their own, `<group>-background`, in larger batches.
//!
//! A rebalance in between does no harm. A second handling of a message finds its id already claimed, or finds its own
//! earlier result.

pub(crate) mod gaps;
mod pause_buffer;
mod positions;
mod runtime;
mod stall_detector;
mod temper;

use std::collections::HashMap;
use std::time::Duration;

use tracing::debug;
use uuid::Uuid;

pub use self::runtime::{Consumer, ConsumerError};
#[cfg(feature = "service")]
pub(crate) use self::temper::Assigned;
use crate::db::Db;
use crate::fault::Fault;
use crate::inbox::{self, ClaimRequest, Claims};
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::step_outcome::StepKey;
use crate::unit_of_work::UnitOfWork;
use crate::{metric, parked, retention};

/// Claims and handles messages in one transaction. `again` says that they have failed for good before, perhaps together
/// with others.
async fn attempt(db: &Db, router: &MessageRouter, batch: &[&Incoming], again: bool) -> Result<(), Fault> {
    // What cannot be recorded must not be prepared: an external call would leave no trace.
    let prepared = if again { HashMap::new() } else { router.prepare(db, batch).await? };
    let (mut uow, claims) = claim(db, router, batch).await?;
    uow.prepare(prepared);
    let fresh = admit(&mut uow, db.retention().inbox, router, batch, claims).await?;
    for (handler, messages) in waves(router, &fresh)? {
        uow.flush().await?;
        handler.handle(&mut uow, &messages).await?;
    }
    uow.commit().await?;
    for message in fresh {
        debug!(key = %message.key, message_id = ?message.id(), kind = message.kind(), "handled");
    }
    Ok(())
}

/// Begins the batch's transaction with its locks and claims.
async fn claim(
    db: &Db,
    router: &MessageRouter,
    batch: &[&Incoming],
) -> Result<(UnitOfWork, Claims), sqlx::Error> {
    let mut keys: Vec<String> = batch.iter().map(|message| message.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let (claiming, unclaimed_ids): (Vec<_>, Vec<_>) =
        batch.iter().copied().partition(|message| router.claims(message));
    let ids_of = |messages: &[&Incoming]| messages.iter().filter_map(|message| message.id()).collect();
    let (ids, unclaimed_ids): (Vec<Uuid>, Vec<Uuid>) = (ids_of(&claiming), ids_of(&unclaimed_ids));
    let mut steps = Vec::new();
    for message in batch.iter().filter(|message| router.takes_steps(message)) {
        // The handler refuses a message that does not name its step.
        let Ok(step) = StepKey::of(message) else { continue };
        steps.extend(step.action());
        steps.push(step);
    }
    let request = ClaimRequest { ids: &ids, unclaimed: &unclaimed_ids, steps: &steps };
    let (mut uow, claims) = UnitOfWork::claim(db.clone(), &keys, &request).await?;
    let duplicates = ids.len() - claims.new.len();
    uow.after_commit(move || metric::INBOX_DUPLICATES.counter(&[]).increment(duplicates as u64));
    Ok((uow, claims))
}

/// Returns the messages to handle, in their order. It parks messages that no handler may see and messages whose key
/// is parked. It skips messages that already had their effect.
async fn admit<'m>(
    uow: &mut UnitOfWork,
    inbox_retention: Duration,
    router: &MessageRouter,
    batch: &[&'m Incoming],
    claims: Claims,
) -> Result<Vec<&'m Incoming>, Fault> {
    let Claims { mut new, mut parked, resolved } = claims;
    let mut fresh = Vec::with_capacity(batch.len());
    for &message in batch {
        let id = message.id();
        let (claiming, unclaimed) = if router.claims(message) { (id, None) } else { (None, id) };
        // If a batch has several copies of a message, the first one takes the claim.
        if claiming.is_some_and(|id| !new.remove(&id)) {
            continue;
        }
        // An operator has already resolved this parked message.
        if unclaimed.is_some_and(|id| resolved.contains(&id)) {
            passed_over(uow, "resolved");
            continue;
        }
        // The inbox may have forgotten the id of such an old message, so a new claim proves nothing.
        let stale = claiming.is_some_and(|id| retention::stale(id, uow.now(), inbox_retention));
        let refused = if stale { Some(retention::STALE) } else { message.refused() };
        // A saga asks an open step again, in the end every minute. Its key's rows must not grow with each time.
        if parked.contains(&message.key) && parked::is_repeated(uow, message).await? {
            continue;
        }
        // A parked message is claimed too, so that it is parked only once.
        if (parked.contains(&message.key) || refused.is_some())
            && let Some(id) = unclaimed
            && !inbox::claim_one(uow.db(), id).await?
        {
            passed_over(uow, "parked_before");
            continue;
        }
        if parked.contains(&message.key) {
            parked::park_behind(uow, message).await?;
        } else if let Some(reason) = refused {
            if parked::park(uow, message, reason).await? {
                parked.insert(message.key.clone());
            }
        } else {
            fresh.push(message);
        }
    }
    Ok(fresh)
}

/// Counts a message that is not handled, once that is committed.
fn passed_over(uow: &mut UnitOfWork, reason: &'static str) {
    uow.after_commit(move || metric::MESSAGES_PASSED_OVER.counter(&[reason]).increment(1));
}

type Wave<'t, 'm> = (&'t dyn BatchHandler, Vec<&'m Incoming>);

/// Groups messages by handler and keeps the order within each key. If an earlier message of the same key has another
/// handler, a message goes into a later wave.
fn waves<'t, 'm>(router: &'t MessageRouter, messages: &[&'m Incoming]) -> Result<Vec<Wave<'t, 'm>>, Fault> {
    let mut last: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut groups: Vec<HashMap<usize, Vec<&'m Incoming>>> = Vec::new();
    for message in messages {
        let mut handlers = router.route(message).peekable();
        if handlers.peek().is_none() {
            return Err(Fault::permanent(format!("no handler for {}", message.kind())));
        }
        for handler in handlers {
            let wave = match last.get(message.key.as_str()) {
                Some(&(wave, same)) if same == handler => wave,
                Some(&(wave, _)) => wave + 1,
                None => 0,
            };
            last.insert(&message.key, (wave, handler));
            if groups.len() <= wave {
                groups.resize_with(wave + 1, HashMap::new);
            }
            groups[wave].entry(handler).or_default().push(message);
        }
    }
    let mut ordered = Vec::new();
    for group in groups {
        let mut handlers: Vec<_> = group.into_iter().collect();
        handlers.sort_unstable_by_key(|(handler, _)| *handler);
        ordered.extend(handlers.into_iter().map(|(handler, messages)| (router.handler(handler), messages)));
    }
    Ok(ordered)
}

/// Parks one message that failed permanently, in its own transaction.
async fn park(db: &Db, message: &Incoming, reason: &str) -> Result<(), Fault> {
    let mut uow = db.write(std::slice::from_ref(&message.key)).await?;
    // Another replica may have handled or parked the message in the meantime.
    if let Some(id) = message.id()
        && !inbox::claim_one(uow.db(), id).await?
    {
        metric::MESSAGES_PASSED_OVER.counter(&["handled_elsewhere"]).increment(1);
        return Ok(uow.abandon().await?);
    }
    parked::park(&mut uow, message, reason).await?;
    uow.commit().await?;
    Ok(())
}
