//! Notes visits of members. The handler keeps nothing by which it could tell a repetition.

use shared::fault::Fault;
use shared::router::{Delivery, MessageHandler};
use shared::unit_of_work::UnitOfWork;

use super::messages::{NoteVisit, VisitNoted};

pub(super) struct Visits;

impl MessageHandler<NoteVisit> for Visits {
    async fn handle(&self, uow: &mut UnitOfWork, visits: &[Delivery<NoteVisit>]) -> Result<(), Fault> {
        for Delivery { message: NoteVisit { shop }, subject, cause, .. } in visits {
            uow.publish(subject, cause, &VisitNoted { shop: shop.clone() })?;
        }
        Ok(())
    }
}
