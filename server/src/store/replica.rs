//! A streaming replica of PostgreSQL that answers reads in the primary's place.
//!
//! Two questions decide whether it may, both answered by positions in the primary's write-ahead log (LSNs). *Does it have what
//! this caller has seen?* A write's answer carries the position at which it was durable ([`Position`]); a read that brings one
//! is answered by the replica only when that has replayed it, which is asked anew where what is known does not suffice.
//! *Is it fresh enough?* Every [`Replica::period`] the primary is asked how far it is, then the replica: what the replica has
//! replayed is complete as of the newest time at which the primary was seen no further than that. A read goes to the primary
//! once that time is longer ago than the limit, whatever the reason: replay paused, a slow disk, a broken connection. So no
//! clock of another machine is trusted, and an idle primary is no lag.
//!
//! A replica that stops answering, is promoted, or belongs to another cluster is lost: reads under way on it are abandoned
//! and asked of the primary at once, and so is a single read that the replica fails, for instance because replay cancelled it.
//! Nothing that decides about stock, money or points, and no credential, is read here.
//!
//! Bounded: one connection to each server beside the pools, one look a period, [`MAX_SIGHTINGS`] positions remembered.
//! Deliberately absent: several replicas behind one address (what one has replayed says nothing of another: give each node
//! its own), and service while the primary is gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Gauge, IntCounterVec, IntGauge, Opts};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::postgres::{Endpoint, Readers};
use super::{StoreError, StoreOptions, StoreUrl};

/// A replica or primary that takes longer to tell how far it is does not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A replica that has just told how far it is, is not asked again.
const JUST_ASKED: Duration = Duration::from_millis(5);
/// Positions of the primary that the replica has not reached yet. At a look every fifth of a second: three minutes; further ones
/// are not kept, and the replica is long past any limit.
const MAX_SIGHTINGS: usize = 1_000;

/// A position in the primary's log: a caller that has seen a write is answered by who has replayed up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Of a write whose position could not be learned: only the primary has surely got so far.
    const UNKNOWN: Position = Position(u64::MAX);
    const DIGITS: usize = 16;
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != Position::DIGITS || !text.bytes().all(is_digit) {
            return Err(());
        }
        u64::from_str_radix(text, 16).map(Position).map_err(|_| ())
    }
}

/// Where the replica is and when it is too old to be asked.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// `postgres://...`.
    pub url: String,
    /// What it has replayed must be complete as of so long ago at most.
    pub lag_limit: Duration,
}

/// The figures of a replica. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaMetrics {
    /// 1 while it answers and belongs to the primary.
    pub connected: IntGauge,
    /// How long ago everything that it has replayed by now was all there was.
    pub lag_seconds: Gauge,
    /// Reads that it might have answered, by who did and why: replica, or the primary because it was lagging, behind (of the
    /// caller's own writes), lost, or failed (this one read).
    pub reads: IntCounterVec,
}

impl ReplicaMetrics {
    fn new() -> ReplicaMetrics {
        let known = "metric names are constants of this file";
        let reads = Opts::new("scrip_replica_reads_total", "Reads a replica might answer, by who did and why");
        ReplicaMetrics {
            connected: IntGauge::new("scrip_replica_connected", "1 while the replica answers").expect(known),
            lag_seconds: Gauge::new("scrip_replica_lag_seconds", "How old the replica's state is at most")
                .expect(known),
            reads: IntCounterVec::new(reads, &["answered_by"]).expect(known),
        }
    }
}

pub(super) struct Replica {
    endpoint: Endpoint,
    pub(super) readers: Readers,
    primary: Endpoint,
    primary_readers: Readers,
    lag_limit: Duration,
    known: Mutex<Known>,
    /// Tells reads under way that the replica is lost.
    lost: Notify,
    /// The newest position of a write of this node.
    written: AtomicU64,
    /// A write's position could not be learned; that of a later one covers it.
    is_unsure: AtomicBool,
    pub(super) metrics: ReplicaMetrics,
}

/// What was learned of the replica last.
#[derive(Debug)]
struct Known {
    is_connected: bool,
    replayed: u64,
    asked_at: Instant,
    /// Everything committed by then is there.
    complete_as_of: Option<Instant>,
    /// How far the primary was when, oldest first, beyond what the replica has replayed.
    sightings: VecDeque<(Instant, u64)>,
}

impl Known {
    fn saw_primary(&mut self, at: Instant, position: u64) {
        if self.sightings.len() < MAX_SIGHTINGS {
            self.sightings.push_back((at, position));
        }
    }

    fn has_replayed(&mut self, position: u64, asked_at: Instant) {
        // Of two answers that overtook each other the lower one is safe as well.
        self.replayed = position;
        self.asked_at = asked_at;
        while let Some((at, _)) = self.sightings.pop_front_if(|(_, seen)| *seen <= self.replayed) {
            self.complete_as_of = Some(at);
        }
    }

    fn lag(&self) -> Duration {
        self.complete_as_of.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// Forgets everything: what comes back may be another server.
    fn lose(&mut self) {
        *self = Known::nothing();
    }

    fn nothing() -> Known {
        Known {
            is_connected: false,
            replayed: 0,
            asked_at: Instant::now(),
            complete_as_of: None,
            sightings: VecDeque::new(),
        }
    }
}

/// Which cluster and database a server has.
#[derive(Debug, PartialEq, Eq)]
struct Identity(String);

const IDENTITY: &str = "SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || current_database()";
/// What is durable there: nothing later has been acknowledged.
const WRITTEN: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint";
const REPLAYED: &str = "SELECT CASE WHEN pg_is_in_recovery() \
                        THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END";

impl Replica {
    /// Begins to look at the replica, which need not be there yet.
    pub(super) fn start(
        (endpoint, readers): (Endpoint, Readers),
        (primary, primary_readers): (Endpoint, Readers),
        lag_limit: Duration,
    ) -> Arc<Replica> {
        let replica = Arc::new(Replica {
            endpoint,
            readers,
            primary,
            primary_readers,
            lag_limit,
            known: Mutex::new(Known::nothing()),
            lost: Notify::new(),
            written: AtomicU64::new(0),
            is_unsure: AtomicBool::new(false),
            metrics: ReplicaMetrics::new(),
        });
        tokio::spawn(keep_looking(Arc::downgrade(&replica)));
        replica
    }

    fn count(&self, answered_by: &str) {
        if self.readers.traffic.is_counting {
            self.metrics.reads.with_label_values(&[answered_by]).inc();
        }
    }

    /// Often enough that a replica which keeps up stays well within the limit.
    fn period(&self) -> Duration {
        (self.lag_limit / 5).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Whether the replica may answer a caller that has seen up to `seen`.
    pub(super) async fn may_answer(&self, seen: Option<Position>) -> bool {
        let answered_by = self.who_answers(seen).await;
        if answered_by != "replica" {
            self.count(answered_by);
        }
        answered_by == "replica"
    }

    async fn who_answers(&self, seen: Option<Position>) -> &'static str {
        let (is_connected, lag, replayed, asked_at) = {
            let known = self.known.lock();
            (known.is_connected, known.lag(), known.replayed, known.asked_at)
        };
        match seen {
            _ if !is_connected => "primary_lost",
            _ if lag > self.lag_limit => "primary_lagging",
            Some(Position(seen)) if seen > replayed => {
                if Position(seen) == Position::UNKNOWN || asked_at.elapsed() < JUST_ASKED {
                    return "primary_behind";
                }
                let asked_at = Instant::now();
                match timeout(PATIENCE, self.readers.number(REPLAYED)).await {
                    Ok(Ok(Some(position))) => self.known.lock().has_replayed(position, asked_at),
                    _ => return "primary_lost",
                }
                if self.known.lock().replayed >= seen { "replica" } else { "primary_behind" }
            }
            _ => "replica",
        }
    }

    /// Runs a read on the replica; `None` when that failed or is lost, so that the primary must be asked.
    pub(super) async fn try_read<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        let lost = self.lost.notified();
        if !self.known.lock().is_connected {
            self.count("primary_lost");
            return None;
        }
        let answered = tokio::select! {
            answered = read => answered,
            () = lost => Err(StoreError::Unavailable("the replica was lost".to_owned())),
        };
        let answered_by = match &answered {
            Ok(_) => "replica",
            Err(error) => {
                tracing::debug!(%error, "a read failed on the replica; the primary is asked");
                "primary_failed"
            }
        };
        self.count(answered_by);
        answered.ok()
    }

    /// The position that a write of this node made known last, for its caller.
    pub(super) fn written(&self) -> Position {
        // In this order: who clears the doubt has raised the position before.
        if self.is_unsure.load(Ordering::SeqCst) {
            return Position::UNKNOWN;
        }
        Position(self.written.load(Ordering::SeqCst))
    }

    /// Learns how far the primary is after a write, on the connection that wrote if that is left.
    pub(super) async fn has_written(&self, on: Option<&Client>) {
        let asked = match on {
            Some(client) => number(client, WRITTEN).await.ok().flatten(),
            None => None,
        };
        let position = match asked {
            Some(position) => Some(position),
            None => match timeout(PATIENCE, self.primary_readers.number(WRITTEN)).await {
                Ok(Ok(position)) => position,
                _ => None,
            },
        };
        match position {
            Some(position) => {
                self.written.fetch_max(position, Ordering::SeqCst);
                self.is_unsure.store(false, Ordering::SeqCst);
            }
            None => self.is_unsure.store(true, Ordering::SeqCst),
        }
    }

    fn lose(&self, why: &str) {
        let was_connected = {
            let mut known = self.known.lock();
            let was_connected = known.is_connected;
            known.lose();
            was_connected
        };
        self.metrics.connected.set(0);
        if was_connected {
            tracing::warn!(url = %self.endpoint, error = why, "the replica is lost; reads go to the primary");
        }
        self.lost.notify_waiters();
    }

    /// One look at both servers.
    async fn look(&self, servers: &mut Servers) -> Result<(), StoreError> {
        if servers.replica.is_gone() {
            // It may have started anew, and replay from further back.
            self.lose("its connection was closed");
        }
        let seen_at = Instant::now();
        match timeout(PATIENCE, servers.primary.number(&self.primary, WRITTEN)).await {
            Ok(Ok(Some(position))) => self.known.lock().saw_primary(seen_at, position),
            // Without sightings the replica grows old by itself.
            _ => servers.primary = Server::default(),
        }
        let late = |_| StoreError::Unavailable("it does not answer".to_owned());
        if !self.known.lock().is_connected {
            let ours = timeout(PATIENCE, servers.primary.identity(&self.primary)).await.map_err(late)??;
            let its = timeout(PATIENCE, servers.replica.identity(&self.endpoint)).await.map_err(late)??;
            if ours != its {
                return Err(StoreError::Fault(STRANGER.to_owned()));
            }
        }
        let asked_at = Instant::now();
        let replayed = timeout(PATIENCE, servers.replica.number(&self.endpoint, REPLAYED)).await.map_err(late)??;
        let replayed = replayed.ok_or_else(|| StoreError::Fault(PROMOTED.to_owned()))?;
        let mut known = self.known.lock();
        known.has_replayed(replayed, asked_at);
        if !known.is_connected {
            known.is_connected = true;
            tracing::info!(url = %self.endpoint, "the replica answers reads");
        }
        self.metrics.connected.set(1);
        if known.complete_as_of.is_some() {
            self.metrics.lag_seconds.set(known.lag().as_secs_f64());
        }
        Ok(())
    }
}

/// How a replica does, for the doctor.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaStanding {
    /// Of the primary's log, what it has not replayed.
    pub behind_bytes: u64,
}

/// Looks at a replica once.
///
/// # Errors
/// When it does not answer, or is none of this primary.
pub async fn examine_replica(options: &StoreOptions, its: &ReplicaOptions) -> Result<ReplicaStanding, StoreError> {
    let StoreUrl::Postgres(url) = &options.url else {
        return Err(StoreError::Fault("store.url is a SQLite file, which has no replicas".to_owned()));
    };
    let (primary, replica) = (Endpoint::new(url, options)?, Endpoint::new(&its.url, options)?);
    let mut servers = Servers::default();
    if servers.primary.identity(&primary).await? != servers.replica.identity(&replica).await? {
        return Err(StoreError::Fault(STRANGER.to_owned()));
    }
    let written = servers.primary.number(&primary, WRITTEN).await?.unwrap_or(0);
    let replayed = servers.replica.number(&replica, REPLAYED).await?;
    let replayed = replayed.ok_or_else(|| StoreError::Fault(PROMOTED.to_owned()))?;
    Ok(ReplicaStanding { behind_bytes: written.saturating_sub(replayed) })
}

const STRANGER: &str = "it is no replica of the primary that store.url names";
const PROMOTED: &str = "it has been promoted, and is no replica any more";

/// Connections of the looks, kept from one to the next.
#[derive(Default)]
struct Servers {
    primary: Server,
    replica: Server,
}

#[derive(Default)]
struct Server(Option<Client>);

impl Server {
    fn is_gone(&self) -> bool {
        self.0.as_ref().is_some_and(Client::is_closed)
    }

    async fn client(&mut self, endpoint: &Endpoint) -> Result<&Client, StoreError> {
        if self.0.as_ref().is_none_or(Client::is_closed) {
            self.0 = Some(endpoint.connect().await?);
        }
        self.0.as_ref().ok_or_else(|| StoreError::Unavailable("no connection".to_owned()))
    }

    async fn number(&mut self, endpoint: &Endpoint, sql: &str) -> Result<Option<u64>, StoreError> {
        number(self.client(endpoint).await?, sql).await
    }

    async fn identity(&mut self, endpoint: &Endpoint) -> Result<Identity, StoreError> {
        let found = text(self.client(endpoint).await?, IDENTITY).await?;
        found.map(Identity).ok_or_else(|| StoreError::Fault("it does not say which cluster it is".to_owned()))
    }
}

/// The only value of the only row, which needs no statement prepared.
async fn text(client: &Client, sql: &str) -> Result<Option<String>, StoreError> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.and_then(|row| row.get(0)).map(str::to_owned))
}

pub(super) async fn number(client: &Client, sql: &str) -> Result<Option<u64>, StoreError> {
    Ok(text(client, sql).await?.and_then(|text| text.parse().ok()))
}

/// Looks again and again, until the store is dropped.
async fn keep_looking(replica: Weak<Replica>) {
    let mut servers = Servers::default();
    loop {
        let period = {
            let Some(replica) = replica.upgrade() else { return };
            if let Err(error) = replica.look(&mut servers).await {
                servers.replica = Server::default();
                replica.lose(&error.to_string());
            }
            replica.period()
        };
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for position in [Position(0), Position(0x16B_3748), Position::UNKNOWN] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for bad in ["", "0", "0/16B3748", "000000000000000G", "+00000000000000f", "00000000000000000"] {
            assert_eq!(bad.parse::<Position>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn a_replica_is_as_old_as_the_newest_sighting_it_has_reached() {
        let mut known = Known::nothing();
        assert_eq!(known.lag(), Duration::MAX, "nothing is known of it");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for (second, position) in [(1, 100), (2, 200), (3, 200), (4, 300)] {
            known.saw_primary(after(second), position);
        }
        known.has_replayed(99, start);
        assert_eq!(known.complete_as_of, None);
        known.has_replayed(250, start);
        assert_eq!(known.complete_as_of, Some(after(3)), "an idle primary is no lag");
        known.has_replayed(250, start);
        assert_eq!(known.complete_as_of, Some(after(3)), "and a replica that stands still grows older");
        known.has_replayed(300, start);
        assert_eq!(known.complete_as_of, Some(after(4)));
    }

    #[test]
    fn sightings_are_bounded() {
        let mut known = Known::nothing();
        for number in 0..2 * MAX_SIGHTINGS as u64 {
            known.saw_primary(Instant::now(), number);
        }
        assert_eq!(known.sightings.len(), MAX_SIGHTINGS);
        known.has_replayed(u64::MAX, Instant::now());
        assert!(known.sightings.is_empty());
    }
}
