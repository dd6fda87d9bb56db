//! Refusals from memory: "sold out", "ended", "budget spent" and "limit reached" stay true while the template's version does,
//! "cap reached" until its period ends, so a claim that
//! meets one need not trouble the store. At the end of a flash sale nearly all claims do.
//!
//! Two things make this safe. First, an entry is dropped when this node changes the template, and trusted for
//! [`TRUSTED_FOR`] at most, so a change made on another node shows within that time, as if the claim had come that much
//! earlier. Second, a claim may be the retry of one that succeeded, and must then get its first answer: a member that has a
//! coupon of the template is never refused from memory when its request carries an idempotency key. A sold-out or ended
//! template gains no claimers within a version, so the set of those who have is read once and stays complete.
//!
//! Bounded: [`MAX_TEMPLATES`] templates of up to [`MAX_CLAIMERS`] members (larger ones are not remembered), and
//! [`MAX_LIMITS`] members at their limit.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use scrip_domain::{Answer, Command, Envelope, MemberId, Rejection, TemplateId, TenantId, Timestamp};
use tokio::runtime::Handle;

use super::SubmitError;
use crate::store::Store;

const MAX_TEMPLATES: usize = 1_000;
const MAX_CLAIMERS: i64 = 1_000_000;
const MAX_LIMITS: usize = 100_000;
const TRUSTED_FOR: Duration = Duration::from_secs(1);

pub(super) struct RefusalMemory {
    store: Store,
    runtime: Handle,
    /// Counts the changes of templates on this node: what was being learned meanwhile is not kept.
    changes: AtomicU64,
    templates: Cache<(TenantId, TemplateId), Entry>,
    limits: Cache<(TenantId, TemplateId, MemberId), (Rejection, Instant)>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Entry {
    rejection: Rejection,
    /// Hashes of the members that hold a coupon. A collision only sends a claim the long way.
    claimers: Arc<HashSet<u64>>,
    known_at: Instant,
    /// When it ceases to hold by itself.
    until: Timestamp,
}

impl RefusalMemory {
    pub(super) fn new(store: Store) -> Self {
        RefusalMemory {
            store,
            runtime: Handle::current(),
            changes: AtomicU64::new(0),
            templates: Cache::new(MAX_TEMPLATES),
            limits: Cache::new(MAX_LIMITS),
            hasher: RandomState::new(),
        }
    }

    /// The refusal that the store would give, if it is certain.
    pub(super) fn refuse(&self, envelope: &Envelope) -> Option<Rejection> {
        let Command::Claim { template_id, member_id, .. } = &envelope.command else { return None };
        // A claim as of an earlier time may have met other stock and another window.
        if envelope.at != envelope.now {
            return None;
        }
        if let Some(entry) = self.templates.get(&(envelope.tenant, *template_id))
            && entry.known_at.elapsed() < TRUSTED_FOR
            && envelope.at < entry.until
            && !entry.claimers.contains(&self.hash(member_id))
        {
            return Some(entry.rejection);
        }
        if envelope.idempotency.is_some() || self.limits.is_empty() {
            return None;
        }
        let (rejection, known_at) = self.limits.get(&(envelope.tenant, *template_id, member_id.clone()))?;
        (known_at.elapsed() < TRUSTED_FOR).then_some(rejection)
    }

    /// Learns from what a batch was answered.
    pub(super) fn learn(self: &Arc<Self>, batch: &[Envelope], answers: &[Result<Answer, SubmitError>]) {
        for (envelope, answer) in batch.iter().zip(answers) {
            let tenant = envelope.tenant;
            match (&envelope.command, answer) {
                (Command::Claim { template_id, member_id, .. }, Ok(Answer::Refused(rejection)))
                    if envelope.at == envelope.now =>
                {
                    match rejection {
                        Rejection::SoldOut { .. }
                        | Rejection::ClaimEnded { .. }
                        | Rejection::BudgetExhausted { .. } => {
                            self.remember(tenant, *template_id, rejection, Timestamp::NEVER);
                        }
                        Rejection::CapReached { ends_at, .. } => {
                            self.remember(tenant, *template_id, rejection, *ends_at);
                        }
                        Rejection::ClaimLimitReached { .. } => {
                            let key = (tenant, *template_id, member_id.clone());
                            self.limits.insert(key, (rejection.clone(), Instant::now()));
                        }
                        _ => {}
                    }
                }
                (
                    Command::UpdateTemplate { template_id, .. }
                    | Command::EnableTemplate { template_id, .. }
                    | Command::ChangeStock { template_id, .. }
                    | Command::ArchiveTemplate(template_id)
                    | Command::DeleteTemplate(template_id),
                    Ok(Answer::Accepted { .. }),
                ) => {
                    self.changes.fetch_add(1, Ordering::SeqCst);
                    self.templates.remove(&(tenant, *template_id));
                    self.limits.clear();
                }
                _ => {}
            }
        }
    }

    fn remember(self: &Arc<Self>, tenant: TenantId, template: TemplateId, rejection: &Rejection, until: Timestamp) {
        let key = (tenant, template);
        // Equal rejections carry the same template version, within which nobody has claimed since.
        if let Some(entry) = self.templates.get(&key).filter(|entry| entry.rejection == *rejection) {
            if entry.known_at.elapsed() >= TRUSTED_FOR {
                self.templates.insert(key, Entry { known_at: Instant::now(), ..entry });
            }
            return;
        }
        let (memory, rejection, known_at) = (self.clone(), rejection.clone(), Instant::now());
        let changes = self.changes.load(Ordering::SeqCst);
        // Not on the lane: a million members take a while to read.
        self.runtime.spawn_blocking(move || {
            let members = memory.runtime.block_on(memory.store.claimers(tenant, template, MAX_CLAIMERS + 1));
            match members {
                Ok(members) if (members.len() as i64) <= MAX_CLAIMERS => {
                    let claimers = Arc::new(members.iter().map(|member| memory.hash(member)).collect());
                    memory.templates.insert(key, Entry { rejection, claimers, known_at, until });
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the claimers of a template were not read"),
            }
            if memory.changes.load(Ordering::SeqCst) != changes {
                memory.templates.remove(&key);
            }
        });
    }

    fn hash(&self, member: &MemberId) -> u64 {
        self.hasher.hash_one(member.as_str())
    }
}
