//! The migrations of a service: the core's tables in their own schema, and the service's own tables in the role's
//! schema.

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::App;
use crate::migrations::{self, ApplyError, Set};

/// The migrations of a service's database.
#[derive(Clone, Copy)]
pub(super) struct Migrations {
    service: &'static str,
    schema: &'static str,
    sets: &'static [&'static Set],
    own: Option<&'static Migrator>,
}

/// Applies the migrations of a service: the core's tables in their own schema, and the service's own tables in the
/// role's schema.
///
/// # Errors
/// Fails if the database does not answer or refuses a statement, belongs to another service, or is too old a release,
/// or if an applied migration has been changed since. Close the connection then, because it may still hold the lock on the service's own migrations.
pub async fn migrate<A: App>(db: &mut PgConnection) -> Result<(), ApplyError> {
    Migrations::of::<A>().apply(db).await
}

impl Migrations {
    pub(super) fn of<A: App>() -> Self {
        static WITH_SAGAS: [&Set; 2] = [&migrations::CORE, &migrations::SAGA];
        let sets = if A::COORDINATES_SAGAS { &WITH_SAGAS[..] } else { &WITH_SAGAS[..1] };
        Self { service: A::NAME, schema: A::SCHEMA, sets, own: A::migrations() }
    }

    pub(super) async fn apply(self, db: &mut PgConnection) -> Result<(), ApplyError> {
        migrations::apply_for(self.service, &mut *db, self.schema, self.sets).await?;
        if let Some(own) = self.own {
            migrations::apply_own(own, db).await?;
        }
        Ok(())
    }

    /// Returns the migrations that are not applied: `core/0002` for the core's, `0002` for the service's own.
    pub(super) async fn missing(self, db: &mut PgConnection) -> Vec<String> {
        let mut missing = Vec::new();
        for set in self.sets {
            let of = |version| format!("{}/{version:04}", set.name);
            missing.extend(set.missing(db, self.schema).await.into_iter().map(of));
        }
        if let Some(own) = self.own {
            let versions = own.iter().map(|migration| migration.version);
            let own = migrations::missing(db, "_sqlx_migrations", versions).await;
            missing.extend(own.into_iter().map(|version| format!("{version:04}")));
        }
        missing
    }
}
