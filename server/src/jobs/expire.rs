//! Posts what time has ended: orders, locks and holds past their deadline, coupons past their validity, lots past their expiry;
//! and grants what orders have earned when that was to come later.
//!
//! Expired things are unusable without it, since expiry is a predicate of every decision; the sweep writes the fact and its
//! events. It finds what is due by partial indexes and sends one settling command for each object through the engine, in
//! bounded pages: the same rules, the same ledger. It is resumable because what is settled is no longer due, and safe on
//! many nodes at once because settling twice does nothing.

use scrip_domain::decide::Sweep;
use scrip_domain::{Answer, Command, Envelope, KeyId, Outcome, TenantId, Timestamp};

use crate::clock;
use crate::engine::{Engine, SubmitError};
use crate::store::{Store, StoreError};

/// Commands sent at a time: whoever needs the same writer or the same accounts waits behind so many at most, a millisecond.
const PIECE: usize = 32;

/// Whether a sweep leaves imports alone (see [`Store::due`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepScope {
    All,
    SkipImports,
}

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// One page: settles at most `limit` objects of each kind that are due at `at`.
///
/// # Errors
/// The first failure; what was settled before it stays settled.
pub async fn sweep(
    store: &Store,
    engine: &Engine,
    tenant: TenantId,
    at: Timestamp,
    limit: i64,
    actor: Option<KeyId>,
    scope: SweepScope,
) -> Result<Sweep, SweepError> {
    let due = store.due(tenant, at, limit, scope == SweepScope::SkipImports).await?;
    let mut commands = Vec::new();
    if !due.orders.is_empty() {
        let calendar = store.calendar(tenant, at).await?;
        commands.extend(due.orders.into_iter().map(|(order_id, member_id)| {
            let calendar = calendar.clone();
            Command::SettleOrder { member_id, order_id, calendar }
        }));
    }
    let coupons = due.coupons.into_iter().map(Command::SettleCoupon);
    let accounts = due.members.into_iter().map(Command::SettleAccount);
    let now = clock::now();
    let commands: Vec<Envelope> = commands
        .into_iter()
        .chain(coupons)
        .chain(accounts)
        .map(|command| Envelope { tenant, actor, command, idempotency: None, at, now, seed: clock::seed(now) })
        .collect();
    let mut report = Sweep { done: commands.is_empty(), ..Sweep::default() };
    for piece in commands.chunks(PIECE) {
        for answer in engine.submit_all(piece.to_vec()).await {
            if let Answer::Accepted { outcome: Outcome::Settled(settled), .. } = answer? {
                report.add(settled);
            }
        }
    }
    Ok(report)
}
