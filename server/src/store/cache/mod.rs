//! Templates and rules as they were a moment ago, for reads that only show them (PostgreSQL).
//!
//! An entry is kept for its time to live, somewhat less by chance so that entries made together do not end together, and is
//! dropped before that by any commit that changes its rows: at once on the node that commits, before its caller has the
//! answer, and on every other node when the database tells it ([`notice`]). While a node does not hear even its own word, it
//! trusts an entry for [`UNHEARD_FOR`] only, and forgets all when it hears again.
//!
//! A key that is not there is looked up once, however many ask for it; who has waited [`WAIT_FOR`] for another's look-up makes
//! its own. A look-up that a commit overtakes answers who asked for it and is not kept. What does not exist is remembered for
//! [`ABSENT_FOR`]. A shared store of entries ([`shared`]) may stand behind them.
//!
//! Nothing here decides: stock, money and points, limits and windows are judged by locked rows. On SQLite there is no cache: a
//! read costs as little there, and a second process may write.

pub(super) mod notice;
mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use quick_cache::sync::Cache;
use scrip_domain::coupon::Template;
use scrip_domain::pricing::Rules;
use scrip_domain::rules::RulesVersion;
use scrip_domain::state::Writes;
use scrip_domain::{TemplateId, TenantId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

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
/// How long a read waits for the look-up of another.
const WAIT_FOR: Duration = Duration::from_millis(500);

/// What to keep, for how long, and where else.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    pub templates_for: Duration,
    pub rules_for: Duration,
    pub shared: Option<SharedUrl>,
}

/// What an entry is of. Its text is how nodes tell each other, and its name in the shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheKey {
    Template(TenantId, TemplateId),
    Rules(TenantId),
    /// Everything of a tenant.
    Tenant(TenantId),
    Everything,
}

impl CacheKey {
    fn tenant(self) -> Option<TenantId> {
        match self {
            CacheKey::Template(tenant, _) | CacheKey::Rules(tenant) | CacheKey::Tenant(tenant) => Some(tenant),
            CacheKey::Everything => None,
        }
    }

    /// The key itself, and those whose change is a change of it as well.
    fn and_above(self) -> impl Iterator<Item = CacheKey> {
        [self].into_iter().chain(self.tenant().map(CacheKey::Tenant)).chain([CacheKey::Everything])
    }
}

impl std::fmt::Display for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheKey::Template(tenant, id) => write!(f, "t:{}:{}", tenant.0.as_simple(), id.0.as_simple()),
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

/// What a commit makes old.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    /// Definitions: told in the transaction itself, so the word is neither lost nor early.
    pub defined: Vec<CacheKey>,
    /// Counters, which claims and uses change all the time: told afterwards.
    pub counted: Vec<CacheKey>,
}

impl Changed {
    pub fn by(writes: &Writes<'_>) -> Changed {
        let template = |(tenant, template): &(TenantId, &Template)| CacheKey::Template(*tenant, template.id);
        let deleted = writes.template_deletes.iter().map(|(tenant, id)| CacheKey::Template(*tenant, *id));
        let rules = writes.rules_inserts.iter().map(|(tenant, _)| CacheKey::Rules(*tenant));
        // Nobody can have asked for a template that is made here: its id is new.
        let made: BTreeSet<TemplateId> = writes.template_inserts.iter().map(|(_, template)| template.id).collect();
        let edited = writes.template_versions.iter().filter(|(_, template)| !made.contains(&template.id)).map(template);
        let mut defined: Vec<CacheKey> = edited.chain(deleted).chain(rules).collect();
        let used = writes.uses.iter().map(|(tenant, id, _)| CacheKey::Template(*tenant, *id));
        let mut counted: Vec<CacheKey> = writes.template_updates.iter().map(template).chain(used).collect();
        for keys in [&mut defined, &mut counted] {
            keys.sort_unstable();
            keys.dedup();
        }
        counted.retain(|key| defined.binary_search(key).is_err());
        Changed { defined, counted }
    }

    pub fn all(&self) -> impl Iterator<Item = CacheKey> {
        self.defined.iter().chain(&self.counted).copied()
    }
}

/// All versions of a tenant's rules, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RulesHistory(pub Vec<RulesVersion>);

impl RulesHistory {
    /// The version that holds at `at`.
    pub fn at(&self, at: Timestamp) -> RulesVersion {
        let newest = self.0.first().map_or(0, |version| version.rules.version);
        let holding = self.0.iter().filter(|version| version.effective_from <= at);
        match holding.max_by_key(|version| (version.effective_from, version.rules.version)) {
            Some(version) => RulesVersion { newest, ..version.clone() },
            None => RulesVersion {
                rules: Arc::new(Rules::default()),
                effective_from: Timestamp(0),
                created_at: Timestamp(0),
                newest,
            },
        }
    }
}

/// The figures of the caches. Cheap to clone.
#[derive(Clone)]
pub struct CacheMetrics {
    is_counting: bool,
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
    fn new(is_counting: bool) -> CacheMetrics {
        let known = "metric names are constants of this file";
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(known);
        let age = HistogramOpts::new("scrip_cache_age_seconds", "Age of what a cache has shown")
            .buckets(vec![0.1, 1.0, 10.0, 60.0, 600.0, 1800.0]);
        CacheMetrics {
            is_counting,
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
    templates: Area<Template>,
    rules: Area<RulesHistory>,
    trust: Arc<Trust>,
    outbox: Outbox,
    shared: Option<Shared>,
    pub metrics: CacheMetrics,
}

/// Which entries may be shown.
struct Trust {
    /// When this node's own word last came back; `None` while none can.
    heard_at: RwLock<Option<Instant>>,
    /// When all entries were dropped; what was read before counts no more.
    forgotten_at: RwLock<Instant>,
    /// The same for those of a tenant.
    tenants_forgotten: Cache<TenantId, Instant>,
}

impl Trust {
    fn is_hearing(&self) -> bool {
        self.heard_at.read().is_some_and(|at| at.elapsed() < DEAF_AFTER)
    }

    fn is_usable<V>(&self, entry: &Entry<V>) -> bool {
        let now = Instant::now();
        now < entry.until
            && entry.asked_at > *self.forgotten_at.read()
            && (now.duration_since(entry.asked_at) < UNHEARD_FOR || self.is_hearing())
    }

    /// Whether all of its tenant was dropped since then.
    fn is_overtaken(&self, key: CacheKey, asked_at: Instant) -> bool {
        key.tenant().and_then(|tenant| self.tenants_forgotten.get(&tenant)).is_some_and(|at| at >= asked_at)
    }
}

impl Caches {
    pub(super) fn new(options: &CacheOptions, is_counting: bool) -> Caches {
        let metrics = CacheMetrics::new(is_counting);
        let trust = Arc::new(Trust {
            heard_at: RwLock::new(None),
            forgotten_at: RwLock::new(Instant::now()),
            tenants_forgotten: Cache::new(CAPACITY),
        });
        Caches {
            templates: Area::new("templates", options.templates_for, trust.clone(), metrics.clone()),
            rules: Area::new("rules", options.rules_for, trust.clone(), metrics.clone()),
            trust,
            outbox: Outbox::default(),
            shared: options.shared.as_ref().map(|url| Shared::start(url, metrics.clone())),
            metrics,
        }
    }

    pub(super) async fn template(
        &self,
        tenant: TenantId,
        id: TemplateId,
        load: impl AsyncFnOnce() -> Result<Option<Template>, StoreError>,
    ) -> Result<Option<Arc<Template>>, StoreError> {
        self.templates.get(CacheKey::Template(tenant, id), self.shared(), load).await
    }

    pub(super) async fn rules(
        &self,
        tenant: TenantId,
        load: impl AsyncFnOnce() -> Result<Option<RulesHistory>, StoreError>,
    ) -> Result<Option<Arc<RulesHistory>>, StoreError> {
        self.rules.get(CacheKey::Rules(tenant), self.shared(), load).await
    }

    fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref().filter(|_| self.trust.is_hearing())
    }

    /// The word that belongs into the transaction of such a commit.
    pub(super) fn notices(&self, changed: &Changed) -> Vec<String> {
        notice::notices(self.outbox.node(), &changed.defined)
    }

    /// Drops what a commit of this node has made old, and has the other nodes told of its counters.
    pub(super) fn has_committed(&self, changed: &Changed) {
        for key in changed.all() {
            self.evict(key, Cause::Own);
        }
        self.outbox.tell(&changed.counted);
    }

    /// Drops entries at the word of an operator, here and on every node.
    pub(super) fn evict_everywhere(&self, key: CacheKey) {
        self.evict(key, Cause::Operator);
        self.outbox.tell(&[key]);
    }

    fn evict(&self, key: CacheKey, cause: Cause) {
        match key {
            CacheKey::Template(..) => self.templates.evict(&key, cause),
            CacheKey::Rules(_) => self.rules.evict(&key, cause),
            CacheKey::Tenant(tenant) => {
                // Before the entries go: what is being looked up goes as well.
                self.trust.tenants_forgotten.insert(tenant, Instant::now());
                self.templates.evict_where(|key| key.tenant() == Some(tenant), cause);
                self.rules.evict_where(|key| key.tenant() == Some(tenant), cause);
            }
            CacheKey::Everything => self.forget(cause),
        }
        if let Some(shared) = &self.shared {
            shared.bury(key);
        }
    }

    fn forget(&self, cause: Cause) {
        *self.trust.forgotten_at.write() = Instant::now();
        self.templates.evict_where(|_| true, cause);
        self.rules.evict_where(|_| true, cause);
    }

    /// This node begins to hear; `is_alone` when no other node does.
    fn begins_to_hear(&self, is_alone: bool) {
        // What was said before is lost on this node, and, if nobody else heard it, on the shared store.
        self.forget(Cause::Deaf);
        if let Some(shared) = self.shared.as_ref().filter(|_| is_alone) {
            shared.bury(CacheKey::Everything);
        }
    }

    fn heard(&self) {
        *self.trust.heard_at.write() = Some(Instant::now());
    }

    /// No word can come any more, until it is heard again.
    fn deafened(&self) {
        *self.trust.heard_at.write() = None;
    }

    /// Brings the figures up to date, to be shown.
    pub(super) fn show(&self) {
        for (name, entries) in [("templates", self.templates.entries.len()), ("rules", self.rules.entries.len())] {
            self.metrics.entries.with_label_values(&[name]).set(entries as i64);
        }
        let unheard = self.trust.heard_at.read().map_or(f64::INFINITY, |at| at.elapsed().as_secs_f64());
        self.metrics.unheard_seconds.set(unheard);
    }
}

/// Entries of one kind.
struct Area<V> {
    name: &'static str,
    entries: Cache<CacheKey, Entry<V>>,
    kept_for: Duration,
    trust: Arc<Trust>,
    metrics: CacheMetrics,
    hits: IntCounter,
}

struct Entry<V> {
    value: Option<Arc<V>>,
    /// When it was read from the database, by whichever node.
    known_at: Instant,
    /// When this node began to look it up.
    asked_at: Instant,
    until: Instant,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Entry { value: self.value.clone(), ..*self }
    }
}

impl<V: Serialize + DeserializeOwned> Area<V> {
    fn new(name: &'static str, kept_for: Duration, trust: Arc<Trust>, metrics: CacheMetrics) -> Self {
        let hits = metrics.lookups.with_label_values(&[name, "hit"]);
        Area { name, entries: Cache::new(CAPACITY), kept_for, trust, metrics, hits }
    }

    async fn get(
        &self,
        key: CacheKey,
        shared: Option<&Shared>,
        load: impl AsyncFnOnce() -> Result<Option<V>, StoreError>,
    ) -> Result<Option<Arc<V>>, StoreError> {
        if self.kept_for.is_zero() {
            return Ok(load().await?.map(Arc::new));
        }
        let entry = match self.entries.get(&key) {
            Some(entry) if self.trust.is_usable(&entry) => entry,
            _ => {
                self.entries.remove_if(&key, |entry| !self.trust.is_usable(entry));
                match timeout(WAIT_FOR, self.entries.get_value_or_guard_async(&key)).await {
                    Ok(Ok(entry)) => entry,
                    Ok(Err(guard)) => {
                        let keep = |entry| {
                            let _ = guard.insert(entry);
                        };
                        // Rare and large, so apart.
                        return Box::pin(self.look_up(key, shared, load, keep)).await;
                    }
                    Err(_) => {
                        self.count("miss");
                        return Ok(load().await?.map(Arc::new));
                    }
                }
            }
        };
        if self.metrics.is_counting {
            match &entry.value {
                Some(_) => self.hits.inc(),
                None => self.count("absent"),
            }
            self.metrics.age_seconds.observe(entry.known_at.elapsed().as_secs_f64());
        }
        Ok(entry.value)
    }

    /// Finds what is not in memory, and keeps it unless the key was dropped meanwhile.
    async fn look_up(
        &self,
        key: CacheKey,
        shared: Option<&Shared>,
        load: impl AsyncFnOnce() -> Result<Option<V>, StoreError>,
        keep: impl FnOnce(Entry<V>),
    ) -> Result<Option<Arc<V>>, StoreError> {
        // Before anything is read: what changes from here on makes it old.
        let asked_at = Instant::now();
        let shown = match shared {
            Some(shared) => shared.get::<V>(key).await.filter(|(_, age)| *age < self.kept_for),
            None => None,
        };
        let (is_shared, found, age) = match shown {
            Some((value, age)) => (true, Some(Arc::new(value)), age),
            None => (false, load().await?.map(Arc::new), Duration::ZERO),
        };
        self.count(if is_shared { "shared" } else { "miss" });
        let known_at = asked_at.checked_sub(age).unwrap_or(asked_at);
        let kept_for = if found.is_some() { self.kept_for } else { ABSENT_FOR.min(self.kept_for) };
        let until = known_at + kept_for.mul_f64(rand::random_range(0.9..=1.0));
        keep(Entry { value: found.clone(), known_at, asked_at, until });
        if self.trust.is_overtaken(key, asked_at) {
            self.entries.remove(&key);
        }
        if let (Some(shared), Some(value), false) = (shared, &found, is_shared) {
            shared.put(key, &**value, self.kept_for, asked_at).await;
        }
        Ok(found)
    }

    fn count(&self, result: &str) {
        if self.metrics.is_counting {
            self.metrics.lookups.with_label_values(&[self.name, result]).inc();
        }
    }

    fn evict(&self, key: &CacheKey, cause: Cause) {
        // Also ends a look-up under way: its result will not be kept.
        if self.entries.remove(key).is_some() && self.metrics.is_counting {
            self.metrics.evictions.with_label_values(&[self.name, cause.as_str()]).inc();
        }
    }

    fn evict_where(&self, goes: impl Fn(&CacheKey) -> bool, cause: Cause) {
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
