//! What PostgreSQL has counted itself: whether our tables are reached by their indexes, and found in memory.

use std::sync::Arc;
use std::time::Duration;

use super::value::Row;
use super::{Store, StoreError};
use crate::metrics::Metrics;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);

/// Small tables are scanned because that is faster.
const STATISTICS: &str = "SELECT \
     (SELECT CAST(coalesce(sum(idx_scan), 0) AS BIGINT) FROM pg_stat_user_tables \
     WHERE schemaname = current_schema() AND n_live_tup > 1000), \
     (SELECT CAST(coalesce(sum(seq_scan), 0) AS BIGINT) FROM pg_stat_user_tables \
     WHERE schemaname = current_schema() AND n_live_tup > 1000), \
     (SELECT CAST(coalesce(sum(heap_blks_hit + coalesce(idx_blks_hit, 0)), 0) AS BIGINT) FROM pg_statio_user_tables \
     WHERE schemaname = current_schema()), \
     (SELECT CAST(coalesce(sum(heap_blks_read + coalesce(idx_blks_read, 0)), 0) AS BIGINT) FROM pg_statio_user_tables \
     WHERE schemaname = current_schema())";

/// Counts since the database's statistics were last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseStatistics {
    pub index_scans: i64,
    /// Whole tables read, of those with more than a thousand rows.
    pub table_scans: i64,
    pub blocks_hit: i64,
    pub blocks_read: i64,
}

impl Store {
    /// # Errors
    /// When PostgreSQL cannot be asked. SQLite counts nothing: `None`.
    pub async fn database_statistics(&self) -> Result<Option<DatabaseStatistics>, StoreError> {
        if let Store::Sqlite(_) = self {
            return Ok(None);
        }
        let decode = |row: &Row| {
            let (index_scans, table_scans) = (row.int(0)?, row.int(1)?);
            Ok(DatabaseStatistics { index_scans, table_scans, blocks_hit: row.int(2)?, blocks_read: row.int(3)? })
        };
        self.first(STATISTICS, &[], decode).await
    }
}

/// Shows PostgreSQL's counts until it is dropped.
pub async fn show(store: Store, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        match store.database_statistics().await {
            Ok(None) => return,
            Ok(Some(counted)) => {
                metrics.database_scans.with_label_values(&["index"]).set(counted.index_scans);
                metrics.database_scans.with_label_values(&["table"]).set(counted.table_scans);
                metrics.database_blocks.with_label_values(&["hit"]).set(counted.blocks_hit);
                metrics.database_blocks.with_label_values(&["read"]).set(counted.blocks_read);
            }
            Err(error) => tracing::debug!(%error, "the database's statistics were not read"),
        }
    }
}
