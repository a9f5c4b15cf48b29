//! A service of another trade than the shop, written on `shared` alone. It grants points to members, out of the budgets of
//! campaigns, and prints vouchers, for which it asks a printer.
//!
//! - Consumes `loyalty.grant_points.v1` and `loyalty.revoke_points.v1`, which it carries out in its database;
//!   `loyalty.print_voucher.v1` and `loyalty.void_voucher.v1`, which it carries out by calls of the printer; and the event
//!   `shop.purchase_made.v1`.
//! - Publishes `loyalty.points_granted.v1` on `loyalty.events`.
//! - Owns the tables `campaign`, `points_grant`, `voucher`, `print_entry`, `statement_line` and `offer`, and plays the printer with
//!   `printer` and `printer_call`.

pub mod messages;
mod points;
mod statement;
mod vouchers;

use std::sync::Arc;

use shared::envelope::Message;
use shared::housekeeper::BATCH;
use shared::router::MessageRouter;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

use self::messages::{GrantPoints, PrintVoucher, PurchaseMade, RevokePoints, VoidVoucher};
use self::points::Points;
use self::statement::Statement;
use self::vouchers::Printer;

pub struct Loyalty;

#[derive(Debug, clap::Args)]
pub struct Config {}

impl App for Loyalty {
    const NAME: &'static str = "loyalty";
    const PORT: u16 = 0;
    type Config = Config;

    fn migrations() -> Option<&'static Migrator> {
        static MIGRATIONS: Migrator = sqlx::migrate!("tests/core/migrations");
        Some(&MIGRATIONS)
    }

    fn openapi() -> utoipa::openapi::OpenApi {
        utoipa::openapi::OpenApi::default()
    }

    fn run(service: &mut Service<Config>) -> anyhow::Result<()> {
        let points = Arc::new(Points);
        let printer = Arc::new(Printer { db: service.db().clone() });
        let router = MessageRouter::new()
            .command::<GrantPoints>(&points)
            .command::<RevokePoints>(&points)
            .external::<PrintVoucher>(&printer)
            .external::<VoidVoucher>(&printer)
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
