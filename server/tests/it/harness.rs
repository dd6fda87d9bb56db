//! Stores and engines for tests, each on a database of its own.

use std::time::{Duration, Instant};

use scrip_domain::coupon::{Benefit, Definition, Validity};
use scrip_domain::event::Event;
use scrip_domain::tenant::Tenant;
use scrip_domain::{Answer, Command, Envelope, MemberId, Outcome, TemplateId, TenantId, Timestamp};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::read::EventPosition;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use crate::postgres;

/// Which store a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

pub const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];

/// An empty, migrated store. The folder of a SQLite file lives as long as this.
pub struct Fixture {
    pub store: Store,
    pub url: StoreUrl,
    _folder: Option<tempfile::TempDir>,
}

impl Fixture {
    pub async fn new(kind: Kind) -> Fixture {
        let (url, folder) = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                (StoreUrl::Sqlite(folder.path().join("scrip.db")), Some(folder))
            }
            Kind::Postgres => (StoreUrl::Postgres(postgres::database().await), None),
        };
        let store = Store::open(&StoreOptions::new(url.clone())).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        Fixture { store, url, _folder: folder }
    }

    /// A tenant's events, once there are so many to see. On PostgreSQL they show when every older transaction of the whole
    /// server has ended, another test's long one among them.
    pub async fn first_events(&self, tenant: TenantId, count: usize) -> Vec<Event> {
        let start = EventPosition { tx: 0, ordinal: -1 };
        let give_up_at = Instant::now() + Duration::from_secs(60);
        loop {
            let page = self.store.list_events(tenant, start, None, 200).await.expect("a page of events");
            if page.events.len() >= count || Instant::now() > give_up_at {
                return page.events.into_iter().map(|(_, event)| event).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn engine(&self, options: EngineOptions) -> Engine {
        Engine::start(&self.store, options, Metrics::new()).await.expect("the engine starts")
    }
}

/// The store as `--store` takes it.
pub fn address_of(url: &StoreUrl) -> String {
    match url {
        StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        StoreUrl::Postgres(url) => url.clone(),
    }
}

/// A command as of now, without an idempotency key.
pub fn envelope(tenant: TenantId, command: Command) -> Envelope {
    let now = scrip_server::clock::now();
    Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed: scrip_server::clock::seed(now) }
}

pub fn member(name: impl std::fmt::Display) -> MemberId {
    name.to_string().parse().expect("a valid member id")
}

/// A tenant made by a command.
pub async fn tenant(engine: &Engine) -> TenantId {
    let id = TenantId(uuid::Uuid::now_v7());
    let tenant = Tenant {
        id,
        name: "Shop".into(),
        currency: "EUR".into(),
        time_zone: "UTC".into(),
        refund_grace_days: 7,
        created_at: Timestamp(0),
        program: None,
    };
    let answer = engine.submit(envelope(TenantId(uuid::Uuid::nil()), Command::CreateTenant(tenant))).await;
    assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
    id
}

/// A definition that anybody may claim once.
pub fn definition() -> Definition {
    let benefit = Benefit::AmountOff { amount: 2_000 };
    Definition { min_order_amount: 10_000, ..Definition::new("20 off 100", benefit, Validity::days(30)) }
}

pub async fn template(engine: &Engine, tenant: TenantId, definition: Definition, stock: Option<i64>) -> TemplateId {
    let command = Command::CreateTemplate { definition: Box::new(definition), total_stock: stock };
    match engine.submit(envelope(tenant, command)).await {
        Ok(Answer::Accepted { outcome: Outcome::Template(template), .. }) => template.id,
        other => panic!("no template: {other:?}"),
    }
}
