//! Reserves stock for orders, releases or commits it, and takes committed stock back.

use schemas::common::Line;
use schemas::inventory::{
    CommitStock, Committed, ReleaseStock, Released, ReservationRefused, ReserveStock, Reserved, RestockOrder,
    Restocked, StockLow,
};
use shared::envelope::{Cause, Command};
use shared::fault::Fault;
use shared::saga::participant::{Answer, AnyAnswer, CommandBatchHandler, Task};
use shared::unit_of_work::UnitOfWork;
use uuid::Uuid;

use super::{StockCommand, StockHandler};
use crate::domain::{End, Shelf, merged};
use crate::store::{self, Entry, Moves};

impl CommandBatchHandler<StockCommand> for StockHandler {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<StockCommand>],
    ) -> Result<Vec<AnyAnswer>, Fault> {
        let (skus, ending) = touched(tasks);
        let (mut shelf, mut held, mut taken) = store::lock_stock(uow.db(), &skus, &ending).await?;
        let mut moves = Moves::default();
        let mut answers = Vec::with_capacity(tasks.len());
        // In the order of the messages, so that the first order gets the last piece.
        for task in tasks {
            answers.push(match &task.command {
                StockCommand::Reserve(ReserveStock { order_id, items }) => {
                    let order_id = *order_id;
                    match shelf.hold(items) {
                        Ok(()) => {
                            moves.held.push((order_id, items));
                            moves.entries.extend(entries(order_id, "reserved", items));
                            done::<ReserveStock>(Reserved { order_id, items: items.clone() })
                        }
                        Err(refusal) => {
                            Answer::<ReserveStock>::refused(ReservationRefused { order_id, refusal }).into()
                        }
                    }
                }
                StockCommand::Release(ReleaseStock { order_id }) => {
                    let items = held.remove(order_id).ok_or_else(|| nothing_held(*order_id))?;
                    shelf.release(&items);
                    moves.ended.push((*order_id, End::Released));
                    moves.entries.extend(entries(*order_id, "released", &items));
                    done::<ReleaseStock>(Released { order_id: *order_id, items })
                }
                StockCommand::Commit(CommitStock { order_id }) => {
                    let items = held.remove(order_id).ok_or_else(|| nothing_held(*order_id))?;
                    shelf.ship(&items);
                    moves.ended.push((*order_id, End::Committed));
                    moves.entries.extend(entries(*order_id, "committed", &items));
                    done::<CommitStock>(Committed { order_id: *order_id, items })
                }
                StockCommand::Restock(RestockOrder { order_id }) => {
                    let nothing = || Fault::permanent(format!("the order {order_id} has taken nothing"));
                    let items = taken.remove(order_id).ok_or_else(nothing)?;
                    shelf.take_back(&items);
                    moves.ended.push((*order_id, End::Restocked));
                    moves.entries.extend(entries(*order_id, "restocked", &items));
                    done::<RestockOrder>(Restocked { order_id: *order_id, items })
                }
            });
        }
        if !moves.entries.is_empty() {
            store::save_moves(uow, &shelf, &moves);
            tell_low(uow, &shelf, &tasks[0].cause).await?;
        }
        Ok(answers)
    }
}

/// Returns the products that commands name, and the orders whose reservations name further products.
fn touched(tasks: &[Task<StockCommand>]) -> (Vec<&str>, Vec<Uuid>) {
    let (mut skus, mut ending) = (Vec::new(), Vec::new());
    for task in tasks {
        match &task.command {
            StockCommand::Reserve(reserve) => skus.extend(reserve.items.iter().map(|line| line.sku.as_str())),
            StockCommand::Release(ReleaseStock { order_id })
            | StockCommand::Commit(CommitStock { order_id })
            | StockCommand::Restock(RestockOrder { order_id }) => {
                ending.push(*order_id);
            }
        }
    }
    skus.sort_unstable();
    skus.dedup();
    (skus, ending)
}

/// Returns the ledger's rows of an order's lines.
fn entries(order_id: Uuid, kind: &'static str, lines: &[Line]) -> impl Iterator<Item = Entry> + use<> {
    merged(lines).into_iter().map(move |(sku, quantity)| Entry { order_id, kind, sku, quantity })
}

fn done<C: Command>(reply: C::Reply) -> AnyAnswer {
    Answer::<C>::done(reply).into()
}

/// The saga knows that the stock is held. If it is not, an operator has to find out why.
fn nothing_held(order: Uuid) -> Fault {
    Fault::permanent(format!("nothing is held for the order {order}"))
}

async fn tell_low(uow: &mut UnitOfWork, shelf: &Shelf, cause: &Cause) -> Result<(), Fault> {
    // Every writer of a product takes this lock behind the row's lock.
    uow.lock(shelf.fallen_low().map(|(sku, _)| sku.to_owned())).await?;
    for (sku, stock) in shelf.fallen_low() {
        let event = StockLow { sku: sku.to_owned(), on_hand: stock.on_hand, threshold: stock.low_threshold };
        uow.publish(sku, cause, &event)?;
    }
    Ok(())
}
