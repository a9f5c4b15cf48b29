//! A service of another trade than the shop, written on `shared` alone. It grants points to members, out of the budgets of
//! campaigns, prints vouchers, for which it asks a printer, has cups engraved, and notes visits.
//!
//! - Consumes `loyalty.grant_points.v1` and `loyalty.revoke_points.v1`, which it carries out in its database;
//!   `loyalty.print_voucher.v1` and `loyalty.void_voucher.v1`, which it carries out by calls of the printer;
//!   `loyalty.engrave_cup.v1` and `loyalty.melt_cup.v1`, for which it calls the engraver first; the message
//!   `loyalty.note_visit.v1`, which is no command of a saga; and the event `shop.purchase_made.v1`.
//! - Answers each command with an event on `loyalty.events`: `loyalty.points_granted.v1` or `loyalty.grant_refused.v1`,
//!   `loyalty.points_revoked.v1`, `loyalty.voucher_printed.v1`, `loyalty.voucher_voided.v1`, `loyalty.cup_engraved.v1` or
//!   `loyalty.engrave_refused.v1`, and `loyalty.cup_melted.v1`. Publishes `loyalty.visit_noted.v1` there too.
//! - Owns the tables `campaign`, `points_grant`, `voucher`, `print_entry`, `cup`, `engraving`, `statement_line` and `offer`, and
//!   plays the printer with `printer` and `printer_call`, and the engraver with `engraver` and `engraver_call`.

mod cups;
pub mod messages;
mod points;
mod statement;
mod visits;
mod vouchers;

use std::sync::{Arc, LazyLock};

use shared::envelope::Message;
use shared::housekeeper::BATCH;
use shared::router::MessageRouter;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

use self::cups::Engraver;
use self::messages::{
    EngraveCup, GrantPoints, MeltCup, NoteVisit, PrintVoucher, PurchaseMade, RevokePoints, VoidVoucher,
};
use self::points::Points;
use self::statement::Statement;
use self::visits::Visits;
use self::vouchers::Printer;

pub struct Loyalty;

#[derive(Debug, clap::Args)]
pub struct Config {}

impl App for Loyalty {
    const NAME: &'static str = "loyalty";
    const PORT: u16 = 0;
    type Config = Config;

    fn migrations() -> Option<&'static Migrator> {
        static MIGRATIONS: LazyLock<Migrator> = shared::migrations!("tests/core/migrations": "0001_loyalty");
        Some(&MIGRATIONS)
    }

    fn openapi() -> utoipa::openapi::OpenApi {
        utoipa::openapi::OpenApi::default()
    }

    fn run(service: &mut Service<Config>) -> anyhow::Result<()> {
        let points = Arc::new(Points);
        let printer = Arc::new(Printer { db: service.db().clone() });
        let engraver = Arc::new(Engraver { db: service.db().clone() });
        let router = MessageRouter::new()
            .command::<GrantPoints>(&points)
            .command::<RevokePoints>(&points)
            .external::<PrintVoucher>(&printer)
            .external::<VoidVoucher>(&printer)
            .external::<EngraveCup>(&engraver)
            .external::<MeltCup>(&engraver)
            .message::<NoteVisit>(&Arc::new(Visits))
            .events(&[(PurchaseMade::TYPE, PurchaseMade::TOPIC)], Arc::new(Statement));
        service.consume(router);
        service.prune("offer", |db| {
            Box::pin(async move {
                let deleted = sqlx::query(
                    "delete from offer where name = any (array (select name from offer
                         where created_at < now() - interval '24 hours' limit $1))",
                )
                .bind(BATCH)
                .execute(db)
                .await?;
                Ok(deleted.rows_affected())
            })
        });
        Ok(())
    }
}
