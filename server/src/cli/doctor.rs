//! `scrip doctor`: what would lose data, slow everything down or stop a server, each finding with its remedy.
//!
//! It only looks. Everything it says of PostgreSQL comes from the database's own settings and statistics.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{StoreArgs, output};
use crate::bench::probe;
use crate::clock;
use crate::codes::key::CodeKeys;
use crate::codes::{self, KeyFile};
use crate::config::Settings;
use crate::store::{self, ReplicaStanding, Row, Store, StoreUrl};
use crate::tls;

/// Looks for settings that lose data, missing or unused indexes, clock skew, a slow or full disk. Exits 1 on a failure.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Will lose data or stop.
    Failure,
}

#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    found: String,
    remedy: String,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, what: impl Into<String>, found: impl Into<String>, remedy: &str) {
        let remedy = if level == Level::Ok { String::new() } else { remedy.to_owned() };
        self.0.push(Finding { level, what: what.into(), found: found.into(), remedy });
    }

    /// `Ok` when it holds, `otherwise` when not.
    fn expect(&mut self, holds: bool, otherwise: Level, what: &str, found: impl Into<String>, remedy: &str) {
        self.add(if holds { Level::Ok } else { otherwise }, what, found, remedy);
    }
}

/// Less free space than this is a warning, and a failure below a tenth of it.
const FREE_BYTES: u64 = 10 << 30;
/// A sync slower than this at its median makes every answer slow.
const SLOW_SYNC_MS: f64 = 10.0;
const CLOCK_SKEW_MS: i64 = 500;
/// A replica that lacks more of the log than this falls behind.
const BEHIND_BYTES: u64 = 64 << 20;
const BROKER_PATIENCE: Duration = Duration::from_secs(10);
/// The log of half a minute of a sale at full speed.
const MIN_WAL_MB: i64 = 1_024;
/// Transactions until PostgreSQL's numbers wrap; autovacuum acts at 200 million of age.
const OLD_XID_AGE: i64 = 1_000_000_000;

impl DoctorArgs {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut findings = Findings::default();
        let settings = self.store.settings()?;
        findings.add(Level::Ok, "configuration", "readable, every setting known", "");
        let options = settings.store.options()?;
        if let StoreUrl::Sqlite(path) = &options.url {
            look_at_disk(
                &mut findings,
                path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            );
        }
        let begun = Instant::now();
        match self.store.open_existing().await {
            Err(error) => {
                let remedy = "Check store.url (--store), the network and the server's log.";
                findings.add(Level::Failure, "store", format!("{error:#}"), remedy);
            }
            Ok(store) => {
                let took_ms = begun.elapsed().as_secs_f64() * 1e3;
                findings.add(Level::Ok, "store", format!("{}, opened in {took_ms:.1} ms", options.url), "");
                look_at_schema(&mut findings, &store).await?;
                look_at_code_keys(&mut findings, &store, &KeyFile::of(&settings.codes.key_file, &options.url)).await;
                match store {
                    Store::Sqlite(_) => look_at_sqlite(&mut findings, &store).await?,
                    Store::Postgres(_) => {
                        // Beside lanes and readers, the lane that settles, one that hears of changes, and one that looks after a
                        // replica.
                        let connections = settings.engine.lanes + settings.store.read_connections + 3;
                        look_at_postgres(&mut findings, &store, connections).await?;
                    }
                }
            }
        }
        look_at_replica(&mut findings, &settings).await?;
        look_at_broker(&mut findings, &settings).await?;
        look_at_shared_cache(&mut findings, &settings).await?;
        let failed = findings.0.iter().any(|finding| finding.level == Level::Failure);
        output::print(self.json, &findings.0, &["", "what", "found", "remedy"], |finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "WARNING",
                Level::Failure => "FAILURE",
            };
            vec![level.into(), finding.what.clone(), finding.found.clone(), finding.remedy.clone()]
        })?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Codes that were given out can only be claimed with the keys they were made with.
async fn look_at_code_keys(findings: &mut Findings, store: &Store, file: &KeyFile) {
    // A store without the table has no codes either.
    let known = store.code_keys().await.unwrap_or_default();
    let what = "code keys";
    let Some(path) = file.path() else {
        let level = if known.is_empty() { Level::Ok } else { Level::Failure };
        let remedy = "Set codes.key_file to the file of keys that the codes of this store were made with.";
        findings.add(level, what, format!("{} in use, no file named", known.len()), remedy);
        return;
    };
    if known.is_empty() && !path.exists() {
        findings.add(Level::Ok, what, "none needed yet", "");
        return;
    }
    let checked = CodeKeys::read(path).and_then(|keys| codes::check(&keys, path, &known));
    match checked {
        Ok(()) => findings.add(Level::Ok, what, format!("{}, {} in use", path.display(), known.len()), ""),
        Err(error) => {
            let remedy =
                "Put the file back from its backup: without it, codes already given out cannot be claimed with.";
            findings.add(Level::Failure, what, format!("{error:#}"), remedy);
        }
    }
}

/// Without its replica a node serves as well, from the primary.
async fn look_at_replica(findings: &mut Findings, settings: &Settings) -> anyhow::Result<()> {
    let Some(replica) = settings.store.replica()? else { return Ok(()) };
    let examined = store::examine_replica(&settings.store.options()?, &replica).await;
    let remedy =
        "Check store.replica_url, the network and the replica's log; until then the primary answers every read.";
    match examined {
        Ok(ReplicaStanding { behind_bytes }) => {
            let found = format!("{} behind the primary", indicatif::HumanBytes(behind_bytes));
            let remedy = "The replica falls behind: look at its disk and network, and whether its replay is paused.";
            findings.expect(behind_bytes < BEHIND_BYTES, Level::Warning, "replica", found, remedy);
        }
        Err(error) => findings.add(Level::Warning, "replica", error.to_string(), remedy),
    }
    Ok(())
}

/// Without the broker events wait in the log.
async fn look_at_broker(findings: &mut Findings, settings: &Settings) -> anyhow::Result<()> {
    let Some(broker) = settings.events.broker()? else { return Ok(()) };
    let remedy = "Check events.nats_url, events.nats_credentials, the network and NATS's log; until then events wait.";
    match tokio::time::timeout(BROKER_PATIENCE, broker.examine()).await {
        Ok(Ok(found)) => findings.add(Level::Ok, "broker", found, ""),
        Ok(Err(error)) => {
            let helps = tls::remedy(error.as_ref()).map_or_else(String::new, |helps| format!("; {helps}"));
            findings.add(Level::Warning, "broker", format!("{}: {error:#}{helps}", broker.url), remedy);
        }
        Err(_) => findings.add(Level::Warning, "broker", format!("{}: no answer", broker.url), remedy),
    }
    Ok(())
}

/// Without it nodes ask the database a little more often.
async fn look_at_shared_cache(findings: &mut Findings, settings: &Settings) -> anyhow::Result<()> {
    let Some(shared) = settings.cache.options()?.shared else { return Ok(()) };
    let remedy = "Check cache.redis_url, its password, the network and Redis's log; nodes do without it.";
    match shared.examine().await {
        Ok(()) => findings.add(Level::Ok, "shared cache", shared.to_string(), ""),
        Err(error) => findings.add(Level::Warning, "shared cache", format!("{shared}: {error}"), remedy),
    }
    Ok(())
}

fn look_at_disk(findings: &mut Findings, folder: &Path) {
    match rustix::fs::statvfs(folder) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let level = match free {
                _ if free < FREE_BYTES / 10 => Level::Failure,
                _ if free < FREE_BYTES => Level::Warning,
                _ => Level::Ok,
            };
            let found = format!("{} free in {}", indicatif::HumanBytes(free), folder.display());
            findings.add(level, "disk space", found, "Make room: a full disk stops every write.");
        }
        Err(error) => {
            let found = format!("{}: {error}", folder.display());
            findings.add(Level::Failure, "disk space", found, "Create the folder, or name another store.");
        }
    }
    match probe::sync_latency_ms(folder) {
        Ok((p50, p95)) => findings.expect(
            p50 < SLOW_SYNC_MS,
            Level::Warning,
            "disk sync",
            format!("4 KiB written and synced: P50 {p50:.2} ms, P95 {p95:.2} ms"),
            "Every answer waits for a sync: use a local disk with a write cache that survives power loss.",
        ),
        Err(error) => {
            findings.add(Level::Failure, "disk sync", format!("{error:#}"), "The server must be able to write there.");
        }
    }
}

async fn look_at_schema(findings: &mut Findings, store: &Store) -> anyhow::Result<()> {
    let pending = store.pending_migrations().await?;
    findings.expect(
        pending.is_empty(),
        Level::Failure,
        "schema",
        if pending.is_empty() { "up to date".to_owned() } else { format!("lacks {}", pending.join(", ")) },
        "Run `scrip migrate`.",
    );
    let missing = store.missing_indexes().await?;
    findings.expect(
        missing.is_empty(),
        Level::Failure,
        "indexes",
        if missing.is_empty() {
            "all there and valid".to_owned()
        } else {
            format!("missing or invalid: {}", missing.join(", "))
        },
        "Create them again from the migrations: hot queries scan whole tables without them.",
    );
    Ok(())
}

async fn look_at_sqlite(findings: &mut Findings, store: &Store) -> anyhow::Result<()> {
    let mode = store.stream("PRAGMA journal_mode", &[], |row| row.text(0)).await?.pop().unwrap_or_default();
    let remedy = "A running server turns the write-ahead log on; if it does not, the file system does not support it.";
    findings.expect(mode == "wal", Level::Warning, "journal mode", mode, remedy);
    Ok(())
}

/// A number PostgreSQL is asked for.
async fn number(store: &Store, sql: &str) -> anyhow::Result<i64> {
    let found = store.stream(sql, &[], |row| row.opt_int(0)).await?;
    Ok(found.into_iter().next().flatten().unwrap_or(0))
}

async fn look_at_postgres(findings: &mut Findings, store: &Store, connections: usize) -> anyhow::Result<()> {
    let pair = |row: &Row| Ok((row.text(0)?, row.text(1)?));
    let names = "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', \
                 'autovacuum', 'server_version_num', 'data_checksums', 'min_wal_size')";
    let settings = store.stream(names, &[], pair).await?;
    let setting = |name: &str| settings.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    for (name, wanted, level, remedy) in [
        ("fsync", "on", Level::Failure, "Turn it on: without it a power cut loses or corrupts acknowledged work."),
        ("full_page_writes", "on", Level::Failure, "Turn it on: without it a power cut can corrupt pages."),
        ("autovacuum", "on", Level::Failure, "Turn it on: tables bloat and transaction numbers run out without it."),
        ("data_checksums", "on", Level::Warning, "Enable checksums (pg_checksums): they show a failing disk early."),
    ] {
        findings.expect(setting(name) == wanted, level, name, setting(name), remedy);
    }
    let commit = setting("synchronous_commit");
    let remedy = "Lanes set it to on for themselves; keep the server's default on for everything else.";
    findings.expect(commit != "off", Level::Warning, "synchronous_commit", commit, remedy);
    // In megabytes.
    let kept = setting("min_wal_size");
    let remedy = "Set it to 1GB or more: files of the log that are kept are written over, where a new one stops all commits while \
                  it is made.";
    findings.expect(
        kept.parse().unwrap_or(0) >= MIN_WAL_MB,
        Level::Warning,
        "min_wal_size",
        format!("{kept} MB"),
        remedy,
    );
    let version = setting("server_version_num").parse::<i64>().unwrap_or(0) / 10_000;
    findings.expect(version >= 13, Level::Failure, "version", version.to_string(), "Use PostgreSQL 13 or later.");

    let allowed = number(store, "SELECT current_setting('max_connections')::bigint").await?;
    let used = number(store, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").await?;
    findings.expect(
        allowed - used >= connections as i64,
        Level::Warning,
        "connections",
        format!("{used} of {allowed} in use; one node takes up to {connections}"),
        "Raise max_connections, or lower store.read_connections.",
    );

    let before = clock::now();
    let database_us = number(store, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await?;
    let middle_us = (before.0 + clock::now().0) / 2;
    let skew_ms = (database_us - middle_us) / 1_000;
    findings.expect(
        skew_ms.abs() <= CLOCK_SKEW_MS,
        Level::Warning,
        "clock",
        format!("the database's is {skew_ms} ms ahead of this machine's"),
        "Synchronise the clocks (NTP): times of claims and expiries come from the nodes.",
    );

    let age = number(store, "SELECT max(age(datfrozenxid))::bigint FROM pg_database").await?;
    let remedy = "Find out why vacuum does not freeze: a long transaction, a forgotten replication slot.";
    findings.expect(age < OLD_XID_AGE, Level::Failure, "transaction numbers", format!("oldest is {age} old"), remedy);
    let idle = number(
        store,
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
         AND state_change < now() - interval '1 minute'",
    )
    .await?;
    let remedy = "End them: events become visible, and dead rows are removed, only behind the oldest transaction.";
    findings.expect(idle == 0, Level::Warning, "idle transactions", format!("{idle} older than a minute"), remedy);
    let hits = number(
        store,
        "SELECT (10000 * sum(blks_hit) / nullif(sum(blks_hit) + sum(blks_read), 0))::bigint FROM pg_stat_database \
         WHERE datname = current_database()",
    )
    .await?;
    let found = format!("{}.{:02} % of block reads", hits / 100, hits % 100);
    let remedy = "Give shared_buffers more memory: the working set does not fit.";
    findings.expect(hits >= 9_900 || hits == 0, Level::Warning, "buffer hits", found, remedy);
    let lag =
        number(store, "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::bigint FROM pg_stat_replication")
            .await
            .unwrap_or(0);
    let remedy = "The standby falls behind: look at its disk and network.";
    findings.expect(lag < 64 << 20, Level::Warning, "replication lag", format!("{lag} bytes"), remedy);

    let unused = "SELECT indexrelname::text, pg_size_pretty(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes s \
                  JOIN pg_index i USING (indexrelid) WHERE s.idx_scan = 0 AND NOT i.indisunique \
                  AND pg_relation_size(indexrelid) > 10485760 ORDER BY pg_relation_size(indexrelid) DESC LIMIT 10";
    let unused = store.stream(unused, &[], pair).await?;
    let found = unused.iter().map(|(name, size)| format!("{name} ({size})")).collect::<Vec<_>>().join(", ");
    let remedy = "Not used since statistics began: fine on a young store, otherwise look whether you need them.";
    findings.expect(
        unused.is_empty(),
        Level::Warning,
        "unused indexes",
        if unused.is_empty() { "none above 10 MB".to_owned() } else { found },
        remedy,
    );
    Ok(())
}
