//! Posts what time has ended: orders, locks and holds past their deadline, coupons past their validity, lots past their expiry;
//! and grants what orders have earned when that was to come later.
//!
//! Expired things are unusable without it, since expiry is a predicate of every decision; the sweep writes the fact and its
//! events. It finds what is due by partial indexes and sends one settling command for each object through the engine, in
//! bounded pages: the same rules, the same ledger. It is resumable because what is settled is no longer due, and safe on
//! many nodes at once because settling twice does nothing. It goes no faster than it must.

use std::time::Duration;

use scrip_domain::decide::Sweep;
use scrip_domain::points::ExpiryPlace;
use scrip_domain::{Answer, Command, Envelope, KeyId, Outcome, TenantId, Timestamp};
use tokio::time::Instant;

use crate::clock;
use crate::engine::{Engine, SubmitError};
use crate::store::{Store, StoreError};

/// The least time for each line of a ledger, or object that has none: a million take just under a minute. Nobody waits for them, and
/// what goes faster would only take more of the machine away from callers that do.
const EACH: Duration = Duration::from_micros(57);
/// How much of a delay the next pieces may make up for.
const MOST_BEHIND: Duration = Duration::from_millis(20);

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

/// Settles what is due of a tenant, page after page.
pub struct Sweeper<'a> {
    store: &'a Store,
    engine: &'a Engine,
    tenant: TenantId,
    actor: Option<KeyId>,
    scope: SweepScope,
    /// The last lot that was looked at.
    after: Option<ExpiryPlace>,
    /// When the next piece may go, and of how many commands it is.
    next_piece_at: Instant,
    piece: usize,
}

impl<'a> Sweeper<'a> {
    pub fn new(
        store: &'a Store,
        engine: &'a Engine,
        tenant: TenantId,
        actor: Option<KeyId>,
        scope: SweepScope,
    ) -> Sweeper<'a> {
        let piece = engine.settling_piece();
        Sweeper { store, engine, tenant, actor, scope, after: None, next_piece_at: Instant::now(), piece }
    }

    /// One page: settles at most `limit` objects of each kind that are due at `at`.
    ///
    /// # Errors
    /// The first failure; what was settled before it stays settled.
    pub async fn settle_page(&mut self, at: Timestamp, limit: i64) -> Result<Sweep, SweepError> {
        let Sweeper { store, tenant, actor, .. } = *self;
        let skip_imports = self.scope == SweepScope::SkipImports;
        let due = store.due(tenant, at, self.after, limit, skip_imports).await?;
        self.after = due.last_lot.or(self.after);
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
        let mut commands = &commands[..];
        while !commands.is_empty() {
            let (piece, later) = commands.split_at(self.piece.min(commands.len()));
            tokio::time::sleep_until(self.next_piece_at).await;
            let mut written = 0;
            for answer in self.engine.submit_all(piece.to_vec()).await {
                let mut lines = 0;
                if let Answer::Accepted { outcome: Outcome::Settled(settled), .. } = answer? {
                    report.add(settled);
                    lines = settled.ledger_lines;
                }
                written += lines.max(1);
            }
            let now = Instant::now();
            let begins_at = self.next_piece_at.max(now.checked_sub(MOST_BEHIND).unwrap_or(now));
            self.next_piece_at = begins_at + EACH * written;
            // An account has as many lines as lots that expire. The next ones are taken to have as many as these.
            self.piece = (self.engine.settling_piece() * piece.len() / written as usize).max(1);
            commands = later;
        }
        Ok(report)
    }
}
