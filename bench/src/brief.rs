//! The algorithms of the brief, behind Scrip's own HTTP layer, schema and durability: the baseline that Scrip is measured
//! against. Fairly tuned, and in doubt in its favour.
//!
//! - **Claim**: a Redis lock on the template (`SET NX PX 10000` with a random token), read the template, count the member's
//!   coupons, then one transaction {conditional decrement of the stock; insert of the coupon}, unlock by compare-and-delete
//!   of the token. Where the brief answers "busy" at once when the lock is taken, this waits for it in short jittered steps,
//!   which gives it the highest rate of successes.
//! - **Debit**: read the account, one transaction {update on the version read; insert of the ledger line}; at most 3 tries,
//!   0 and 100 ms apart. After the third conflict it answers 503, where the brief returned as if it had succeeded.
//! - A pool of 20 connections unless asked for another, statements prepared.
//!
//! It does less than Scrip: no idempotency record, no event, no lots. So its store is not one that `scrip verify` accepts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use redis::aio::ConnectionManager;
use scrip_domain::coupon::{Coupon, CouponSource, CouponStatus, Definition, Validity};
use scrip_domain::points::{Transaction, TransactionType};
use scrip_domain::{
    Answer, Command, CouponId, Envelope, MemberId, Outcome, Rejection, TemplateId, Timestamp, TransactionId,
};
use scrip_server::engine::{Decider, SubmitError};
use tokio_postgres::NoTls;

const POOL_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_TTL_MS: u64 = 10_000;
/// How long a claim waits for the lock before it answers busy.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const DEBIT_TRIES: u32 = 3;
const DEBIT_BACKOFF: Duration = Duration::from_millis(100);

const UNLOCK: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

#[derive(Clone)]
struct Brief {
    pool: Pool,
    redis: ConnectionManager,
    unlock: Arc<redis::Script>,
}

/// Decides claims and debits the brief's way and leaves everything else to the lanes.
///
/// # Errors
/// When a server cannot be reached.
pub async fn decider(store_url: &str, redis_url: &str, connections: usize) -> anyhow::Result<Decider> {
    let config = store_url.parse().context("the store URL")?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(connections)
        .wait_timeout(Some(POOL_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()?;
    let redis = ConnectionManager::new(redis::Client::open(redis_url)?).await.context("the Redis server")?;
    let brief = Brief { pool, redis, unlock: Arc::new(redis::Script::new(UNLOCK)) };
    Ok(Arc::new(move |envelope: &Envelope| {
        let (brief, envelope) = (brief.clone(), envelope.clone());
        match &envelope.command {
            Command::Claim { template_id, member_id, .. } => {
                let (template_id, member_id) = (*template_id, member_id.clone());
                Some(Box::pin(async move { answer(brief.claim(&envelope, template_id, &member_id).await) }))
            }
            Command::Debit { member_id, movement } => {
                let (member_id, points) = (member_id.clone(), movement.points);
                Some(Box::pin(async move { answer(brief.debit(&envelope, &member_id, points).await) }))
            }
            _ => None,
        }
    }))
}

/// Why the brief's way gave no outcome.
enum Failure {
    Refused(Rejection),
    Busy,
    Fault(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Fault(error.into())
    }
}

fn answer(result: Result<Outcome, Failure>) -> Result<Answer, SubmitError> {
    match result {
        Ok(outcome) => Ok(Answer::Accepted { outcome, replayed: false }),
        Err(Failure::Refused(rejection)) => Ok(Answer::Refused(rejection)),
        Err(Failure::Busy) => Err(SubmitError::Busy),
        Err(Failure::Fault(error)) => Err(SubmitError::Fault(format!("{error:#}"))),
    }
}

impl Brief {
    async fn claim(&self, envelope: &Envelope, template: TemplateId, member: &MemberId) -> Result<Outcome, Failure> {
        let mut redis = self.redis.clone();
        let key = format!("coupon:claim:{template}");
        let token = uuid::Uuid::now_v7().simple().to_string();
        let give_up_at = Instant::now() + LOCK_PATIENCE;
        loop {
            let taken: Option<String> = redis::cmd("SET")
                .arg(&key)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(LOCK_TTL_MS)
                .query_async(&mut redis)
                .await?;
            if taken.is_some() {
                break;
            }
            if Instant::now() >= give_up_at {
                return Err(Failure::Busy);
            }
            tokio::time::sleep(Duration::from_micros(rand::random_range(500..2_000))).await;
        }
        let result = self.claim_under_lock(envelope, template, member).await;
        let _: i64 = self.unlock.key(&key).arg(&token).invoke_async(&mut redis).await?;
        result
    }

    async fn claim_under_lock(
        &self,
        envelope: &Envelope,
        template: TemplateId,
        member: &MemberId,
    ) -> Result<Outcome, Failure> {
        let tenant = envelope.tenant.0;
        let mut client = self.pool.get().await?;
        let find = client
            .prepare_cached(
                "SELECT t.enabled, t.remaining_stock, t.version, v.definition FROM mkt_coupon_template t \
                 JOIN mkt_coupon_template_version v ON v.tenant_id = t.tenant_id AND v.template_id = t.id \
                 AND v.version = t.version WHERE t.tenant_id = $1 AND t.id = $2",
            )
            .await?;
        let Some(row) = client.query_opt(&find, &[&tenant, &template.0]).await? else {
            return Err(Failure::Refused(Rejection::TemplateNotFound));
        };
        let (enabled, remaining, version): (bool, Option<i64>, i64) = (row.get(0), row.get(1), row.get(2));
        let definition: Definition = serde_json::from_str(row.get(3))?;
        if !enabled {
            return Err(Failure::Refused(Rejection::TemplateDisabled));
        }
        if remaining == Some(0) {
            return Err(Failure::Refused(Rejection::SoldOut { total: 0, version }));
        }
        let count = client
            .prepare_cached(
                "SELECT count(*) FROM mkt_user_coupon WHERE tenant_id = $1 AND template_id = $2 AND member_id = $3",
            )
            .await?;
        let claimed: i64 = client.query_one(&count, &[&tenant, &template.0, &member.as_str()]).await?.get(0);
        let limit = definition.limit_per_member;
        if claimed >= limit {
            return Err(Failure::Refused(Rejection::ClaimLimitReached { limit, version }));
        }
        let (valid_from, valid_until) = match definition.validity {
            Validity::Fixed { starts_at, ends_at } => (starts_at, ends_at),
            relative @ Validity::Relative { .. } => relative.of_claim(envelope.at),
        };
        let coupon = Coupon {
            id: CouponId(uuid::Uuid::now_v7()),
            template_id: template,
            template_version: version,
            member_id: member.clone(),
            status: CouponStatus::Available,
            sequence: claimed + 1,
            source: CouponSource::Claim,
            valid_from,
            valid_until,
            order_id: None,
            by_order: false,
            locked_until: None,
            discount_amount: None,
            claimed_at: envelope.at,
            used_at: None,
        };
        let transaction = client.transaction().await?;
        let take = transaction
            .prepare_cached(
                "UPDATE mkt_coupon_template SET remaining_stock = remaining_stock - 1, \
                 claimed_count = claimed_count + 1 WHERE tenant_id = $1 AND id = $2 AND remaining_stock > 0",
            )
            .await?;
        if transaction.execute(&take, &[&tenant, &template.0]).await? == 0 {
            return Err(Failure::Refused(Rejection::SoldOut { total: 0, version }));
        }
        let insert = transaction
            .prepare_cached(
                "INSERT INTO mkt_user_coupon (tenant_id, id, template_id, template_version, member_id, status, \
                 sequence, source, valid_from, valid_until, claimed_at) \
                 VALUES ($1, $2, $3, $4, $5, 'AVAILABLE', $6, 'CLAIM', $7, $8, $9)",
            )
            .await?;
        transaction
            .execute(
                &insert,
                &[
                    &tenant,
                    &coupon.id.0,
                    &template.0,
                    &version,
                    &member.as_str(),
                    &coupon.sequence,
                    &valid_from.0,
                    &valid_until.0,
                    &envelope.at.0,
                ],
            )
            .await?;
        transaction.commit().await?;
        Ok(Outcome::Coupon(Box::new(coupon)))
    }

    async fn debit(&self, envelope: &Envelope, member: &MemberId, points: i64) -> Result<Outcome, Failure> {
        for attempt in 0..DEBIT_TRIES {
            if attempt > 0 {
                tokio::time::sleep(DEBIT_BACKOFF * (attempt - 1)).await;
            }
            if let Some(outcome) = self.try_debit(envelope, member, points).await? {
                return Ok(outcome);
            }
        }
        Err(Failure::Busy)
    }

    /// `None` when somebody else has changed the account meanwhile.
    async fn try_debit(&self, envelope: &Envelope, member: &MemberId, points: i64) -> Result<Option<Outcome>, Failure> {
        let tenant = envelope.tenant.0;
        let mut client = self.pool.get().await?;
        let find = client
            .prepare_cached(
                "SELECT available, sequence FROM mkt_points_account WHERE tenant_id = $1 AND member_id = $2",
            )
            .await?;
        let row = client.query_opt(&find, &[&tenant, &member.as_str()]).await?;
        let (available, version): (i64, i64) = row.map_or((0, 0), |row| (row.get(0), row.get(1)));
        if available < points {
            return Err(Failure::Refused(Rejection::PointsInsufficient { available, requested: points }));
        }
        let transaction = client.transaction().await?;
        // The account's sequence is its version: it grows with each change.
        let update = transaction
            .prepare_cached(
                "UPDATE mkt_points_account SET available = $4, used = used + $5, sequence = sequence + 1 \
                 WHERE tenant_id = $1 AND member_id = $2 AND sequence = $3",
            )
            .await?;
        let left = available - points;
        if transaction.execute(&update, &[&tenant, &member.as_str(), &version, &left, &points]).await? == 0 {
            return Ok(None);
        }
        let line = Transaction {
            id: TransactionId(uuid::Uuid::now_v7()),
            member_id: member.clone(),
            sequence: version + 1,
            kind: TransactionType::UseOrder,
            points: -points,
            balance_before: available,
            balance_after: left,
            frozen_after: 0,
            debt_after: 0,
            points_forgiven: 0,
            reference: None,
            remark: None,
            hold_id: None,
            reverses_id: None,
            lot_id: None,
            counterpart_id: None,
            allocations: Vec::new(),
            by_order: false,
            rules_version: None,
            expires_at: None,
            occurred_at: envelope.at,
            recorded_at: envelope.now,
            totals: None,
        };
        insert_line(&transaction, tenant, &line).await?;
        transaction.commit().await?;
        Ok(Some(Outcome::Transaction(Box::new(line))))
    }
}

async fn insert_line(
    transaction: &deadpool_postgres::Transaction<'_>,
    tenant: uuid::Uuid,
    line: &Transaction,
) -> Result<(), Failure> {
    let insert = transaction
        .prepare_cached(
            "INSERT INTO mkt_points_transaction (tenant_id, id, member_id, sequence, type, points, balance_before, \
             balance_after, frozen_after, debt_after, allocations, occurred_at, recorded_at) \
             VALUES ($1, $2, $3, $4, 'USE_ORDER', $5, $6, $7, 0, 0, '[]', $8, $9)",
        )
        .await?;
    let Timestamp(occurred_at) = line.occurred_at;
    transaction
        .execute(
            &insert,
            &[
                &tenant,
                &line.id.0,
                &line.member_id.as_str(),
                &line.sequence,
                &line.points,
                &line.balance_before,
                &line.balance_after,
                &occurred_at,
                &line.recorded_at.0,
            ],
        )
        .await?;
    Ok(())
}
