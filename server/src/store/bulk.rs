//! Bulks and their chunks. Chunks are staged here, before their bulk is made by a command; what comes of them is written by
//! the commands that work them off.

use scrip_domain::bulk::{Bulk, BulkKind};
use scrip_domain::{BulkId, TenantId, Timestamp};
use uuid::Uuid;

use super::value::{Param, Row};
use super::{Store, StoreError, decode};
use crate::bulk::RowOutcome;

type Found<T> = Result<T, StoreError>;

/// A chunk as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    pub number: i64,
    /// The number of its first row.
    pub first_row: i64,
    /// A JSON array.
    pub rows: String,
    /// A JSON array, once it is worked off.
    pub outcomes: Option<String>,
}

const CHUNK: &str = "number, first_row, rows, outcomes";

fn chunk(row: &Row) -> Found<StoredChunk> {
    Ok(StoredChunk { number: row.int(0)?, first_row: row.int(1)?, rows: row.text(2)?, outcomes: row.opt_text(3)? })
}

fn find_sql() -> String {
    format!("SELECT {} FROM bulk WHERE tenant_id = $1 AND id = $2", decode::BULK)
}

fn list_sql() -> String {
    format!(
        "SELECT {} FROM bulk WHERE tenant_id = $1 AND kind = $2 AND id < $3 ORDER BY id DESC LIMIT $4",
        decode::BULK
    )
}

fn chunks_sql(outcome: Option<RowOutcome>) -> String {
    let filter = match outcome {
        None => "",
        Some(RowOutcome::Accepted) => " AND accepted > 0",
        Some(RowOutcome::Refused) => " AND refused > 0",
        Some(RowOutcome::Duplicate | RowOutcome::Invalid) => " AND skipped > 0",
        Some(RowOutcome::Pending) => " AND outcomes IS NULL",
    };
    format!(
        "SELECT {CHUNK} FROM bulk_chunk WHERE tenant_id = $1 AND bulk_id = $2 AND number >= $3{filter} \
         ORDER BY number LIMIT $4"
    )
}

/// Chunks that were staged and never became a bulk.
const STRAYS: &str = "SELECT c.tenant_id, c.bulk_id FROM bulk_chunk c WHERE c.number = 0 AND c.bulk_id < $1 \
     AND NOT EXISTS (SELECT 1 FROM bulk b WHERE b.tenant_id = c.tenant_id AND b.id = c.bulk_id) LIMIT $2";

/// A page of the last chunks, down to the place of its first one (as [`super::read::page_deletes`] says).
pub(super) const DROP_CHUNKS: &str = "DELETE FROM bulk_chunk WHERE tenant_id = $1 AND bulk_id = $2 \
     AND number >= coalesce((SELECT number FROM bulk_chunk WHERE tenant_id = $1 AND bulk_id = $2 \
     ORDER BY number DESC LIMIT 1 OFFSET $3), 0)";

/// A bulk that ended long ago and has chunks; a bulk's first chunk goes last.
const ENDED: &str = "SELECT c.tenant_id, c.bulk_id FROM bulk_chunk c \
     JOIN bulk b ON b.tenant_id = c.tenant_id AND b.id = c.bulk_id \
     WHERE c.number = 0 AND c.bulk_id < $1 AND b.finished_at < $2 ORDER BY c.bulk_id LIMIT 1";

pub(super) fn hot_queries() -> Vec<(String, String)> {
    let mut all = vec![
        ("find_bulk".to_owned(), find_sql()),
        ("list_bulks".to_owned(), list_sql()),
        ("chunks".to_owned(), chunks_sql(None)),
    ];
    all.extend(RowOutcome::ALL.map(|outcome| (format!("chunks {outcome:?}"), chunks_sql(Some(outcome)))));
    all
}

fn owned_bulk(row: &Row) -> Found<(TenantId, BulkId)> {
    Ok((row.tenant(0)?, BulkId(row.uuid(1)?)))
}

/// No bulk made from then on has a lesser id.
fn first_id_at(at: Timestamp) -> Uuid {
    let unix_ms = (at.0 / 1000).max(0) as u64;
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &[0; 10]).into_uuid()
}

impl Store {
    /// Keeps the rows of a chunk for a bulk that is still to be made.
    pub async fn stage_chunk(
        &self,
        tenant: TenantId,
        id: BulkId,
        number: i64,
        first_row: i64,
        rows: &str,
        skipped: i64,
    ) -> Found<()> {
        let sql = "INSERT INTO bulk_chunk (tenant_id, bulk_id, number, first_row, rows, skipped, accepted, refused) \
                   VALUES ($1, $2, $3, $4, $5, $6, 0, 0)";
        let parameters = [tenant.into(), id.0.into(), number.into(), first_row.into(), rows.into(), skipped.into()];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Forgets what was staged for a bulk that is not made after all.
    pub async fn drop_staged(&self, tenant: TenantId, id: BulkId) -> Found<()> {
        let sql = "DELETE FROM bulk_chunk WHERE tenant_id = $1 AND bulk_id = $2 \
                   AND NOT EXISTS (SELECT 1 FROM bulk b WHERE b.tenant_id = $3 AND b.id = $4)";
        self.execute(sql, &[tenant.into(), id.0.into(), tenant.into(), id.0.into()]).await?;
        Ok(())
    }

    /// Forgets what was staged before `before` and never became a bulk, of at most `limit` files; of how many.
    pub async fn drop_strays(&self, before: Timestamp, limit: i64) -> Found<u64> {
        let strays = self.query(STRAYS, &[first_id_at(before).into(), limit.into()], owned_bulk).await?;
        for (tenant, id) in &strays {
            self.drop_staged(*tenant, *id).await?;
        }
        Ok(strays.len() as u64)
    }

    /// Deletes the rows and results of one bulk that ended before `before`, at most `limit` chunks of it; how many. The first time
    /// it is noted with the bulk.
    pub async fn drop_results(&self, before: Timestamp, now: Timestamp, limit: i64) -> Found<u64> {
        let found = self.first(ENDED, &[first_id_at(before).into(), before.into()], owned_bulk).await?;
        let Some((tenant, id)) = found else { return Ok(0) };
        let sql =
            "UPDATE bulk SET results_dropped_at = $1 WHERE tenant_id = $2 AND id = $3 AND results_dropped_at IS NULL";
        self.execute(sql, &[now.into(), tenant.into(), id.0.into()]).await?;
        self.execute(DROP_CHUNKS, &[tenant.into(), id.0.into(), (limit - 1).into()]).await
    }

    pub async fn find_bulk(&self, tenant: TenantId, id: BulkId) -> Found<Option<Bulk>> {
        self.first(&find_sql(), &[tenant.into(), id.0.into()], decode::bulk).await
    }

    /// A tenant's bulks of a kind, newest first.
    pub async fn list_bulks(
        &self,
        tenant: TenantId,
        kind: BulkKind,
        after: Option<BulkId>,
        limit: i64,
    ) -> Found<Vec<Bulk>> {
        let after = after.map_or(Uuid::max(), |id| id.0);
        let parameters = [tenant.into(), Param::Text(kind.as_str()), after.into(), limit.into()];
        self.query(&list_sql(), &parameters, decode::bulk).await
    }

    /// Chunks from `number` on; with `outcome`, only those that may have rows of it.
    pub async fn chunks(
        &self,
        tenant: TenantId,
        id: BulkId,
        number: i64,
        outcome: Option<RowOutcome>,
        limit: i64,
    ) -> Found<Vec<StoredChunk>> {
        let parameters = [tenant.into(), id.0.into(), number.into(), limit.into()];
        self.query(&chunks_sql(outcome), &parameters, chunk).await
    }
}
