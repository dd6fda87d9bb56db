//! Brings a store's schema up to date: embedded SQL files, the same number for both stores, forward only.
//!
//! Each file runs once, in its own transaction together with its row in `schema_migration`, under a lock that keeps two
//! nodes from migrating at once. A file that changed after it was applied is refused: history is not edited.

use sha2::{Digest, Sha256};

use super::{Store, StoreError};

/// One step of the schema, in both dialects.
pub struct Migration {
    pub number: i64,
    pub name: &'static str,
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "initial",
        sqlite: include_str!("migrations/0001_initial.sqlite.sql"),
        postgres: include_str!("migrations/0001_initial.postgres.sql"),
    },
    Migration {
        number: 2,
        name: "read_models",
        sqlite: include_str!("migrations/0002_read_models.sqlite.sql"),
        postgres: include_str!("migrations/0002_read_models.postgres.sql"),
    },
    Migration {
        number: 3,
        name: "orders",
        sqlite: include_str!("migrations/0003_orders.sqlite.sql"),
        postgres: include_str!("migrations/0003_orders.postgres.sql"),
    },
    Migration {
        number: 4,
        name: "jobs",
        sqlite: include_str!("migrations/0004_jobs.sqlite.sql"),
        postgres: include_str!("migrations/0004_jobs.postgres.sql"),
    },
    Migration {
        number: 5,
        name: "codes",
        sqlite: include_str!("migrations/0005_codes.sqlite.sql"),
        postgres: include_str!("migrations/0005_codes.postgres.sql"),
    },
    Migration {
        number: 6,
        name: "members",
        sqlite: include_str!("migrations/0006_members.sqlite.sql"),
        postgres: include_str!("migrations/0006_members.postgres.sql"),
    },
    Migration {
        number: 7,
        name: "relay",
        sqlite: include_str!("migrations/0007_relay.sqlite.sql"),
        postgres: include_str!("migrations/0007_relay.postgres.sql"),
    },
    Migration {
        number: 8,
        name: "bulk_results",
        sqlite: include_str!("migrations/0008_bulk_results.sqlite.sql"),
        postgres: include_str!("migrations/0008_bulk_results.postgres.sql"),
    },
    Migration {
        number: 10,
        name: "reminders",
        sqlite: include_str!("migrations/0010_reminders.sqlite.sql"),
        postgres: include_str!("migrations/0010_reminders.postgres.sql"),
    },
    Migration {
        number: 11,
        name: "caps_and_holders",
        sqlite: include_str!("migrations/0011_caps_and_holders.sqlite.sql"),
        postgres: include_str!("migrations/0011_caps_and_holders.postgres.sql"),
    },
    Migration {
        number: 13,
        name: "books",
        sqlite: include_str!("migrations/0013_books.sqlite.sql"),
        postgres: include_str!("migrations/0013_books.postgres.sql"),
    },
    Migration {
        number: 14,
        name: "narrow_buckets",
        sqlite: include_str!("migrations/0014_narrow_buckets.sqlite.sql"),
        postgres: include_str!("migrations/0014_narrow_buckets.postgres.sql"),
    },
    Migration {
        number: 15,
        name: "earning",
        sqlite: include_str!("migrations/0015_earning.sqlite.sql"),
        postgres: include_str!("migrations/0015_earning.postgres.sql"),
    },
    Migration {
        number: 16,
        name: "habits",
        sqlite: include_str!("migrations/0016_habits.sqlite.sql"),
        postgres: include_str!("migrations/0016_habits.postgres.sql"),
    },
    Migration {
        number: 17,
        name: "forgiven",
        sqlite: include_str!("migrations/0017_forgiven.sqlite.sql"),
        postgres: include_str!("migrations/0017_forgiven.postgres.sql"),
    },
    Migration {
        number: 18,
        name: "milestones",
        sqlite: include_str!("migrations/0018_milestones.sqlite.sql"),
        postgres: include_str!("migrations/0018_milestones.postgres.sql"),
    },
    Migration {
        number: 19,
        name: "idle_lots",
        sqlite: include_str!("migrations/0019_idle_lots.sqlite.sql"),
        postgres: include_str!("migrations/0019_idle_lots.postgres.sql"),
    },
    Migration {
        number: 20,
        name: "programs",
        sqlite: include_str!("migrations/0020_programs.sqlite.sql"),
        postgres: include_str!("migrations/0020_programs.postgres.sql"),
    },
    Migration {
        number: 21,
        name: "carried_progress",
        sqlite: include_str!("migrations/0021_carried_progress.sqlite.sql"),
        postgres: include_str!("migrations/0021_carried_progress.postgres.sql"),
    },
];

pub(super) const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migration (number BIGINT NOT NULL PRIMARY KEY, \
                                       name TEXT NOT NULL, checksum TEXT NOT NULL)";
pub(super) const SELECT_APPLIED: &str = "SELECT number, checksum FROM schema_migration ORDER BY number";
pub(super) const INSERT_APPLIED: &str = "INSERT INTO schema_migration (number, name, checksum) VALUES ($1, $2, $3)";

/// Which migrations a store lacks.
pub(super) fn pending(
    applied: &[(i64, String)],
    text: fn(&Migration) -> &'static str,
) -> Result<Vec<&'static Migration>, StoreError> {
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.number);
    if let Some((number, _)) = applied.iter().find(|(number, _)| *number > newest) {
        return Err(StoreError::Fault(format!(
            "the store has migration {number}, which this version of scrip does not know; run the newer version"
        )));
    }
    for migration in MIGRATIONS {
        let known = applied.iter().find(|(number, _)| *number == migration.number);
        if known.is_some_and(|(_, checksum)| *checksum != self::checksum(text(migration))) {
            return Err(StoreError::Fault(format!(
                "migration {} of the store differs from this version's; it was applied by a different build",
                migration.number
            )));
        }
    }
    let is_pending = |migration: &&Migration| !applied.iter().any(|(number, _)| *number == migration.number);
    Ok(MIGRATIONS.iter().filter(is_pending).collect())
}

pub(super) fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// The names of the migrations this store lacks.
    ///
    /// # Errors
    /// When it cannot be read, or has migrations that this version does not know.
    pub async fn pending_migrations(&self) -> Result<Vec<&'static str>, StoreError> {
        let applied = self.stream(SELECT_APPLIED, &[], |row| Ok((row.int(0)?, row.text(1)?))).await?;
        let text: fn(&Migration) -> &'static str = match self {
            Store::Sqlite(_) => |migration| migration.sqlite,
            Store::Postgres(_) => |migration| migration.postgres,
        };
        Ok(pending(&applied, text)?.iter().map(|migration| migration.name).collect())
    }

    /// The indexes of the migrations that this store lacks, or has but cannot use.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn missing_indexes(&self) -> Result<Vec<&'static str>, StoreError> {
        let (usable, text): (_, fn(&Migration) -> &'static str) = match self {
            Store::Sqlite(_) => ("SELECT name FROM sqlite_master WHERE type = 'index'", |migration| migration.sqlite),
            Store::Postgres(_) => (
                "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 WHERE c.relnamespace = current_schema()::regnamespace AND i.indisvalid AND i.indisready",
                |migration| migration.postgres,
            ),
        };
        let there = self.stream(usable, &[], |row| row.text(0)).await?;
        let mut missing: Vec<&str> = MIGRATIONS.iter().flat_map(|migration| indexes_in(text(migration))).collect();
        missing.retain(|name| !there.iter().any(|known| known == name));
        Ok(missing)
    }

    /// Applies what is missing and returns the names of the migrations applied now.
    ///
    /// # Errors
    /// When the store cannot be written, or knows migrations that this version does not.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        match self {
            Store::Sqlite(store) => store.migrate(),
            Store::Postgres(store) => store.migrate().await,
        }
    }
}

/// The names of the indexes that a migration creates.
fn indexes_in(sql: &'static str) -> impl Iterator<Item = &'static str> {
    let creating = sql
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE INDEX ").or_else(|| line.strip_prefix("CREATE UNIQUE INDEX ")));
    creating.filter_map(|rest| rest.split_whitespace().next())
}
