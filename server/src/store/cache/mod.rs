//! Templates and rules as they were a moment ago, for reads that only show them (PostgreSQL).
//!
//! An entry is kept for its time to live, somewhat less by chance so that entries made together do not end together, and is
//! dropped before that by any commit that changes its rows: at once on the node that commits, before its caller has the
//! answer, and on every other node when the database tells it ([`notice`]). *The word goes by the database*, because whoever can
//! commit can also leave word there; a bus of its own may be cut from one node only. While a node does not hear even its own word,
//! it trusts an entry for [`UNHEARD_FOR`] only, and forgets all when it hears again. What a node that is killed between a commit
//! and its word leaves behind, it drops everywhere when it starts again.
//!
//! A key that is not there is looked up once, however many ask for it. A look-up that a commit overtakes answers who asked for it
//! and is not kept. What does not exist is remembered for [`ABSENT_FOR`].
//!
//! A shared store of entries ([`shared`]) may stand behind them: for nodes that start. It is asked only for keys of which no
//! change was heard for [`SETTLED_AFTER`], so what a slow node puts there is not read before that node has noticed and taken it
//! away.
//!
//! Nothing here decides: stock, money and points, limits and windows are judged by locked rows. On SQLite a read costs less than
//! a millionth of a cache's complexity is worth, and a second process may write: there is none.

pub(super) mod notice;
mod shared;

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use quick_cache::sync::Cache;
use scrip_domain::coupon::Template;
use scrip_domain::pricing::Rules;
use scrip_domain::state::Writes;
use scrip_domain::{TemplateId, TenantId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use shared::SharedUrl;

use super::StoreError;
use notice::Outbox;
use shared::Shared;

/// The most entries of each kind; a template takes about 1 KB.
const CAPACITY: usize = 10_000;
/// How long an entry is trusted while no word of changes comes.
const UNHEARD_FOR: Duration = Duration::from_secs(1);
/// A node whose own word has not come back for so long does not hear.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// How long it is remembered that something does not exist.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// Of a key's change, until the shared store may be asked for it again: longer than any request to it takes.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What to keep, for how long, and where else.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    pub templates_for: Duration,
    pub rules_for: Duration,
    pub shared: Option<SharedUrl>,
}

/// What an entry is of. Its text is how nodes tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheKey {
    Template(TenantId, TemplateId),
    Rules(TenantId),
    /// Everything of a tenant.
    Tenant(TenantId),
    Everything,
}

impl std::fmt::Display for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheKey::Template(tenant, template) => {
                write!(f, "t:{}:{}", tenant.0.as_simple(), template.0.as_simple())
            }
            CacheKey::Rules(tenant) => write!(f, "r:{}", tenant.0.as_simple()),
            CacheKey::Tenant(tenant) => write!(f, "n:{}", tenant.0.as_simple()),
            CacheKey::Everything => f.write_str("*"),
        }
    }
}

impl std::str::FromStr for CacheKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        let mut id = || parts.next().and_then(|text| uuid::Uuid::try_parse(text).ok()).ok_or(());
        let key = match kind {
            "t" => CacheKey::Template(TenantId(id()?), TemplateId(id()?)),
            "r" => CacheKey::Rules(TenantId(id()?)),
            "n" => CacheKey::Tenant(TenantId(id()?)),
            "*" => CacheKey::Everything,
            _ => return Err(()),
        };
        if parts.next().is_some() { Err(()) } else { Ok(key) }
    }
}

/// A tenant's versions of rules that hold now or will: each with the time from which it does, the latest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RulesAhead {
    /// The versions say nothing of an earlier time.
    pub known_from: Timestamp,
    pub versions: Vec<(Timestamp, Arc<Rules>)>,
}

impl RulesAhead {
    /// The rules that hold at `at`; `None` when that is too early to be known here.
    pub fn at(&self, at: Timestamp) -> Option<Arc<Rules>> {
        if at < self.known_from {
            return None;
        }
        let holding = self.versions.iter().find(|(from, _)| *from <= at);
        Some(holding.map_or_else(|| Arc::new(Rules::default()), |(_, rules)| rules.clone()))
    }
}

/// The figures of the caches. Cheap to clone.
#[derive(Clone)]
pub struct CacheMetrics {
    /// By cache and result: hit, absent (a hit of what does not exist), shared (found in the shared store), miss.
    pub lookups: IntCounterVec,
    /// By cache and cause: own (a commit of this node), notice (of another), operator, deaf (nothing was heard).
    pub evictions: IntCounterVec,
    /// How old entries were when they were shown.
    pub age_seconds: Histogram,
    /// Entries, brought up to date when shown.
    pub entries: IntGaugeVec,
    /// Since this node's own word came back.
    pub unheard_seconds: Gauge,
    pub shared_connected: IntGauge,
    pub shared_failures: IntCounter,
}

impl CacheMetrics {
    fn new() -> CacheMetrics {
        let known = "metric names are constants of this file";
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(known);
        let age = HistogramOpts::new("scrip_cache_age_seconds", "Age of what a cache has shown")
            .buckets(vec![0.1, 1.0, 10.0, 60.0, 600.0, 1800.0]);
        CacheMetrics {
            lookups: counters("scrip_cache_lookups_total", "Reads that a cache might answer", &["cache", "result"]),
            evictions: counters("scrip_cache_evictions_total", "Entries told to go", &["cache", "cause"]),
            age_seconds: Histogram::with_opts(age).expect(known),
            entries: IntGaugeVec::new(Opts::new("scrip_cache_entries", "Entries of a cache"), &["cache"]).expect(known),
            unheard_seconds: Gauge::new("scrip_cache_unheard_seconds", "Since this node's own word came back")
                .expect(known),
            shared_connected: IntGauge::new("scrip_cache_shared_connected", "1 while the shared store answers")
                .expect(known),
            shared_failures: IntCounter::new("scrip_cache_shared_failures_total", "Requests to it that failed")
                .expect(known),
        }
    }
}

/// Why entries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Own,
    Notice,
    Operator,
    Deaf,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Cause::Own => "own",
            Cause::Notice => "notice",
            Cause::Operator => "operator",
            Cause::Deaf => "deaf",
        }
    }
}

pub struct Caches {
    templates: Area<(TenantId, TemplateId), Template>,
    rules: Area<TenantId, RulesAhead>,
    /// Keys that were dropped lately, and when.
    unsettled: Cache<CacheKey, Instant>,
    hearing: Arc<Hearing>,
    pub(super) outbox: Outbox,
    shared: Option<Shared>,
    pub metrics: CacheMetrics,
}

/// Whether words of changes arrive.
struct Hearing {
    heard_at: Mutex<Option<Instant>>,
    /// Counts the times that everything was forgotten; an entry of an earlier one counts no more.
    epoch: AtomicU64,
    was_deaf: AtomicBool,
}

impl Hearing {
    fn is_hearing(&self) -> bool {
        self.heard_at.lock().is_some_and(|at| at.elapsed() < DEAF_AFTER)
    }
}

impl Caches {
    pub(super) fn new(options: &CacheOptions) -> Caches {
        let metrics = CacheMetrics::new();
        let hearing =
            Arc::new(Hearing { heard_at: Mutex::new(None), epoch: AtomicU64::new(0), was_deaf: AtomicBool::new(true) });
        let shared = options.shared.as_ref().map(|url| Shared::start(url, metrics.clone()));
        Caches {
            templates: Area::new("templates", options.templates_for, hearing.clone(), metrics.clone()),
            rules: Area::new("rules", options.rules_for, hearing.clone(), metrics.clone()),
            unsettled: Cache::new(CAPACITY),
            hearing,
            outbox: Outbox::default(),
            shared,
            metrics,
        }
    }

    pub(super) async fn template(
        &self,
        tenant: TenantId,
        id: TemplateId,
        load: impl AsyncFnOnce() -> Result<Option<Template>, StoreError>,
    ) -> Result<Option<Arc<Template>>, StoreError> {
        let shared = self.shared_for(CacheKey::Template(tenant, id)).filter(|_| !self.templates.kept_for.is_zero());
        self.templates.get((tenant, id), shared, load).await
    }

    pub(super) async fn rules(
        &self,
        tenant: TenantId,
        load: impl AsyncFnOnce() -> Result<Option<RulesAhead>, StoreError>,
    ) -> Result<Option<Arc<RulesAhead>>, StoreError> {
        let shared = self.shared_for(CacheKey::Rules(tenant)).filter(|_| !self.rules.kept_for.is_zero());
        self.rules.get(tenant, shared, load).await
    }

    fn shared_for(&self, key: CacheKey) -> Option<(&Shared, String)> {
        let shared = self.shared.as_ref()?;
        let all = [key, CacheKey::Tenant(key.tenant()?), CacheKey::Everything];
        let is_settled =
            |key: &CacheKey| self.unsettled.get(key).is_none_or(|at: Instant| at.elapsed() >= SETTLED_AFTER);
        (self.hearing.is_hearing() && all.iter().all(is_settled)).then(|| (shared, key.to_string()))
    }

    /// The keys whose entries a batch has made old.
    pub(super) fn changed_by(writes: &Writes<'_>) -> Vec<CacheKey> {
        let updated = writes.template_updates.iter().chain(&writes.template_inserts);
        let updated = updated.map(|(tenant, template)| CacheKey::Template(*tenant, template.id));
        let deleted = writes.template_deletes.iter().map(|(tenant, id)| CacheKey::Template(*tenant, *id));
        let used = writes.uses.iter().map(|(tenant, id, _)| CacheKey::Template(*tenant, *id));
        let rules = writes.rules_inserts.iter().map(|(tenant, _)| CacheKey::Rules(*tenant));
        let mut keys: Vec<CacheKey> = updated.chain(deleted).chain(used).chain(rules).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Drops what a commit of this node has made old, and has the other nodes told.
    pub(super) fn has_committed(&self, keys: &[CacheKey]) {
        for key in keys {
            self.evict(*key, Cause::Own);
        }
        self.outbox.tell(keys);
    }

    /// Drops entries at the word of an operator, here and on every node.
    pub fn evict_everywhere(&self, key: CacheKey) {
        self.evict(key, Cause::Operator);
        self.outbox.tell(&[key]);
    }

    pub(super) fn evict(&self, key: CacheKey, cause: Cause) {
        self.unsettled.insert(key, Instant::now());
        match key {
            CacheKey::Template(tenant, id) => self.templates.evict(&(tenant, id), cause),
            CacheKey::Rules(tenant) => self.rules.evict(&tenant, cause),
            CacheKey::Tenant(tenant) => {
                self.templates.evict_where(|(owner, _)| *owner == tenant, cause);
                self.rules.evict_where(|owner| *owner == tenant, cause);
            }
            CacheKey::Everything => self.forget(cause),
        }
        if let Some(shared) = &self.shared {
            shared.remove(key);
        }
    }

    /// Forgets everything, also what is being looked up.
    fn forget(&self, cause: Cause) {
        self.hearing.epoch.fetch_add(1, Ordering::SeqCst);
        self.templates.evict_where(|_| true, cause);
        self.rules.evict_where(|_| true, cause);
    }

    /// This node's own word came back.
    pub(super) fn heard(&self) {
        if self.hearing.was_deaf.swap(false, Ordering::SeqCst) {
            // Whatever was said meanwhile is lost.
            self.forget(Cause::Deaf);
            tracing::info!("the caches hear of changes");
        }
        *self.hearing.heard_at.lock() = Some(Instant::now());
    }

    /// No word can come any more, until it is heard again.
    pub(super) fn deafened(&self) {
        *self.hearing.heard_at.lock() = None;
        self.hearing.was_deaf.store(true, Ordering::SeqCst);
    }

    /// Brings the figures up to date, to be shown.
    pub(super) fn show(&self) {
        for (name, entries) in [("templates", self.templates.entries.len()), ("rules", self.rules.entries.len())] {
            self.metrics.entries.with_label_values(&[name]).set(entries as i64);
        }
        let unheard = self.hearing.heard_at.lock().map_or(f64::INFINITY, |at| at.elapsed().as_secs_f64());
        self.metrics.unheard_seconds.set(unheard);
    }
}

impl CacheKey {
    fn tenant(&self) -> Option<TenantId> {
        match self {
            CacheKey::Template(tenant, _) | CacheKey::Rules(tenant) | CacheKey::Tenant(tenant) => Some(*tenant),
            CacheKey::Everything => None,
        }
    }
}

/// Entries of one kind.
struct Area<K, V> {
    name: &'static str,
    entries: Cache<K, Entry<V>>,
    kept_for: Duration,
    hearing: Arc<Hearing>,
    metrics: CacheMetrics,
    hits: IntCounter,
}

struct Entry<V> {
    value: Option<Arc<V>>,
    known_at: Instant,
    until: Instant,
    epoch: u64,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Entry { value: self.value.clone(), ..*self }
    }
}

impl<K: Copy + Eq + Hash, V: Serialize + DeserializeOwned> Area<K, V> {
    fn new(name: &'static str, kept_for: Duration, hearing: Arc<Hearing>, metrics: CacheMetrics) -> Self {
        let hits = metrics.lookups.with_label_values(&[name, "hit"]);
        Area { name, entries: Cache::new(CAPACITY), kept_for, hearing, metrics, hits }
    }

    fn is_usable(&self, entry: &Entry<V>) -> bool {
        let now = Instant::now();
        now < entry.until
            && entry.epoch == self.hearing.epoch.load(Ordering::SeqCst)
            && (now.duration_since(entry.known_at) < UNHEARD_FOR || self.hearing.is_hearing())
    }

    async fn get(
        &self,
        key: K,
        shared: Option<(&Shared, String)>,
        load: impl AsyncFnOnce() -> Result<Option<V>, StoreError>,
    ) -> Result<Option<Arc<V>>, StoreError> {
        let entry = match self.entries.get(&key) {
            Some(entry) if self.is_usable(&entry) => entry,
            _ => {
                self.entries.remove_if(&key, |entry| !self.is_usable(entry));
                match self.entries.get_value_or_guard_async(&key).await {
                    Ok(entry) => entry,
                    // Rare and large, so apart.
                    Err(guard) => {
                        let keep = |entry| guard.insert(entry).is_ok();
                        return Box::pin(self.look_up(key, shared, load, keep)).await;
                    }
                }
            }
        };
        match &entry.value {
            Some(_) => self.hits.inc(),
            None => self.count("absent"),
        }
        self.metrics.age_seconds.observe(entry.known_at.elapsed().as_secs_f64());
        Ok(entry.value)
    }

    /// Finds what is not in memory. `keep` refuses when the key was dropped meanwhile; who asked before that gets what there was.
    async fn look_up(
        &self,
        key: K,
        shared: Option<(&Shared, String)>,
        load: impl AsyncFnOnce() -> Result<Option<V>, StoreError>,
        keep: impl FnOnce(Entry<V>) -> bool,
    ) -> Result<Option<Arc<V>>, StoreError> {
        // Before anything is read: what changes from here on makes it old.
        let (known_at, epoch) = (Instant::now(), self.hearing.epoch.load(Ordering::SeqCst));
        if let Some((shared, name)) = &shared
            && let Some(value) = shared.get::<V>(name).await
        {
            let value = Some(Arc::new(value));
            self.count("shared");
            keep(self.entry(value.clone(), known_at, epoch));
            return Ok(value);
        }
        let value = load().await?.map(Arc::new);
        self.count("miss");
        let is_kept = keep(self.entry(value.clone(), known_at, epoch));
        if let (Some((shared, name)), Some(value), true) = (&shared, &value, is_kept) {
            shared.put(name, &**value, self.kept_for).await;
            // Dropped between the two: so must be what was put.
            let is_same = |entry: Entry<V>| entry.value.is_some_and(|kept| Arc::ptr_eq(&kept, value));
            if !self.entries.peek(&key).is_some_and(is_same) {
                shared.take_back(name);
            }
        }
        Ok(value)
    }

    fn entry(&self, value: Option<Arc<V>>, known_at: Instant, epoch: u64) -> Entry<V> {
        let kept_for = if value.is_some() { self.kept_for } else { ABSENT_FOR.min(self.kept_for) };
        Entry { value, known_at, until: known_at + kept_for.mul_f64(rand::random_range(0.9..=1.0)), epoch }
    }

    fn count(&self, result: &str) {
        self.metrics.lookups.with_label_values(&[self.name, result]).inc();
    }

    fn evict(&self, key: &K, cause: Cause) {
        // Also ends a look-up under way: its result will not be kept.
        if self.entries.remove(key).is_some() {
            self.metrics.evictions.with_label_values(&[self.name, cause.as_str()]).inc();
        }
    }

    fn evict_where(&self, goes: impl Fn(&K) -> bool, cause: Cause) {
        let gone = self.metrics.evictions.with_label_values(&[self.name, cause.as_str()]);
        self.entries.retain(|key, _| {
            let stays = !goes(key);
            if !stays {
                gone.inc();
            }
            stays
        });
    }
}
