//! The engine without HTTP: how many commands a second the lanes and the store take, from one process.
//!
//! `cargo run --release -p scrip-bench --example engine_only -- sqlite:/tmp/x.db` (or postgres://...)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scrip_domain::command::Movement;
use scrip_domain::coupon::{Benefit, Definition, Validity};
use scrip_domain::points::TransactionType;
use scrip_domain::tenant::Tenant;
use scrip_domain::{Answer, Command, Envelope, Idempotency, MemberId, Outcome, TenantId};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::{Store, StoreOptions};
use scrip_server::clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn envelope(tenant: TenantId, command: Command, keyed: bool) -> Envelope {
    let now = clock::now();
    let seed = clock::seed(now);
    let idempotency = keyed.then(|| Idempotency { key: seed.random.to_be_bytes(), fingerprint: [7; 16] });
    Envelope { tenant, actor: None, command, idempotency, at: now, now, seed }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).expect("a store URL");
    let store = Store::open(&StoreOptions::new(url.parse().map_err(anyhow::Error::msg)?)).await?;
    store.migrate().await?;
    let engine = Engine::start(&store, EngineOptions::default(), Metrics::new()).await?;
    let tenant = TenantId(uuid::Uuid::now_v7());
    let now = clock::now();
    let shop = Tenant { id: tenant, name: "x".into(), currency: "EUR".into(), time_zone: "UTC".into(), refund_grace_days: 7, created_at: now };
    engine.submit(envelope(tenant, Command::CreateTenant(shop), false)).await?;
    let definition = Definition {
        name: "n".into(), description: String::new(), benefit: Benefit::AmountOff { amount: 1 }, min_order_amount: 0,
        min_pay_amount: 0, scope: Default::default(), member_levels: vec![], validity: Validity::Relative { days: 30 },
        distribution: Default::default(), limit_per_member: 1, refund_extend_days: 7, metadata: Default::default(),
    };
    let create = Command::CreateTemplate { definition: Box::new(definition), total_stock: Some(1_000_000_000) };
    let Answer::Accepted { outcome: Outcome::Template(template), .. } = engine.submit(envelope(tenant, create, false)).await? else { panic!() };
    let template_id = template.id;

    for connections in [1usize, 64, 512] {
        run("hot claim", connections, engine.clone(), move |n| {
            Command::Claim { template_id, member_id: format!("{connections}-{n}").parse().unwrap(), member_level: None }
        }, tenant).await;
    }
    let accounts = 100_000u64;
    let movement = |points, kind| Movement { points, kind, reference: Some("order-123".into()), remark: None };
    let started = Instant::now();
    for chunk in 0..accounts / 5_000 {
        let all = (0..5_000).map(|n| envelope(tenant, Command::Grant {
            member_id: format!("a-{}", chunk * 5_000 + n).parse().unwrap(),
            movement: movement(1_000_000, TransactionType::EarnOrder), expires_at: None }, true)).collect();
        for answer in engine.submit_all(all).await { answer?; }
    }
    println!("seed {accounts} grants: {:.0}/s", accounts as f64 / started.elapsed().as_secs_f64());
    for connections in [64usize, 512] {
        run("uniform debit", connections, engine.clone(), move |n| Command::Debit {
            member_id: format!("a-{}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % accounts).parse::<MemberId>().unwrap(),
            movement: movement(1, TransactionType::UseOrder) }, tenant).await;
        run("hot debit", connections, engine.clone(), move |_| Command::Debit {
            member_id: "a-7".parse::<MemberId>().unwrap(), movement: movement(1, TransactionType::UseOrder) }, tenant).await;
    }
    Ok(())
}

async fn run(name: &str, connections: usize, engine: Engine, make: impl Fn(u64) -> Command + Clone + Send + 'static, tenant: TenantId) {
    let next = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(4);
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (engine, next, make) = (engine.clone(), next.clone(), make.clone());
        tasks.push(tokio::spawn(async move {
            let mut done = 0u64;
            while Instant::now() < until {
                let n = next.fetch_add(1, Ordering::Relaxed);
                match engine.submit(envelope(tenant, make(n), true)).await {
                    Ok(Answer::Accepted { .. }) => done += 1,
                    other => panic!("{other:?}"),
                }
            }
            done
        }));
    }
    let mut done = 0;
    for task in tasks { done += task.await.unwrap(); }
    println!("{name} x{connections}: {:.0}/s", done as f64 / started.elapsed().as_secs_f64());
}
