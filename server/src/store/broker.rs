//! How far each tenant's events have been published to the broker. What it means is in [`crate::relay::nats`].

use scrip_domain::{TenantId, Timestamp};

use super::read::EventPosition;
use super::value::{Param, Row};
use super::webhooks::LogProgress;
use super::{Store, StoreError};

type Found<T> = Result<T, StoreError>;

const PROGRESS: &str = "SELECT tx, ordinal, generation FROM broker_progress WHERE tenant_id = $1";
const TENANTS_TO_PUBLISH: &str = "SELECT tenant_id, since FROM (SELECT t.tenant_id, \
     (SELECT v.recorded_at FROM event v WHERE v.tenant_id = t.tenant_id \
     AND (v.tx, v.ordinal) > (coalesce(b.tx, 0), coalesce(b.ordinal, -1)) ORDER BY v.tx, v.ordinal LIMIT 1) AS since \
     FROM tenant t LEFT JOIN broker_progress b ON b.tenant_id = t.tenant_id) s WHERE since IS NOT NULL LIMIT $1";
/// Moves a tenant on, unless it was moved otherwise meanwhile: then no row is written.
const ADVANCE: &str = "INSERT INTO broker_progress (tenant_id, tx, ordinal, generation) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (tenant_id) DO UPDATE SET tx = excluded.tx, ordinal = excluded.ordinal \
     WHERE broker_progress.tx = $5 AND broker_progress.ordinal = $6 AND broker_progress.generation = $7";
const REWIND: &str = "INSERT INTO broker_progress (tenant_id, tx, ordinal, generation) VALUES ($1, $2, $3, 1) \
     ON CONFLICT (tenant_id) DO UPDATE SET tx = excluded.tx, ordinal = excluded.ordinal, \
     generation = broker_progress.generation + 1";

impl Store {
    /// Tenants with events beyond what is published, at most `limit`, and when the first of them was recorded.
    pub async fn tenants_to_publish(&self, limit: i64) -> Found<Vec<(TenantId, Timestamp)>> {
        self.query(TENANTS_TO_PUBLISH, &[limit.into()], |row| Ok((row.tenant(0)?, row.time(1)?))).await
    }

    pub async fn broker_progress(&self, tenant: TenantId) -> Found<LogProgress> {
        let decode = |row: &Row| {
            let position = EventPosition { tx: row.int(0)?, ordinal: row.int(1)? };
            Ok(LogProgress { position, generation: row.int(2)?, down: false })
        };
        let start = LogProgress { position: EventPosition { tx: 0, ordinal: -1 }, generation: 0, down: false };
        Ok(self.first(PROGRESS, &[tenant.into()], decode).await?.unwrap_or(start))
    }

    /// Remembers what was published and acknowledged. False when a rewind, or another node, came between.
    pub async fn move_broker(&self, tenant: TenantId, from: LogProgress, to: EventPosition) -> Found<bool> {
        let parameters: [Param<'_>; 7] = [
            tenant.into(),
            to.tx.into(),
            to.ordinal.into(),
            from.generation.into(),
            from.position.tx.into(),
            from.position.ordinal.into(),
            from.generation.into(),
        ];
        Ok(self.execute(ADVANCE, &parameters).await? == 1)
    }

    /// Lets a tenant's events be published again from a position on.
    pub async fn rewind_broker(&self, tenant: TenantId, to: EventPosition) -> Found<()> {
        self.execute(REWIND, &[tenant.into(), to.tx.into(), to.ordinal.into()]).await?;
        Ok(())
    }
}
