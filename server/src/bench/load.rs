//! The two ways to put load on a server, and what is measured while it lasts.
//!
//! [`closed_loop`]: each connection sends its next request when the last one is answered. It finds the highest rate, but
//! when the server stalls it stops asking, so its latencies leave out what callers arriving meanwhile would have seen.
//!
//! [`open_loop`]: requests are due at times fixed beforehand, whatever the server does, and latency counts from the time a
//! request was due. A thread of its own sleeps until each arrival and writes the request, because the runtime's timers
//! are a millisecond coarse; the runtime only reads the answers. Requests outstanding are bounded by the connections: when
//! none is free the arrival waits, and its wait is part of its latency.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::{ResponseReader, connect, excerpt};
use super::probe::Usage;
use super::report::new_histogram;
use super::scenario::{Expectation, Maker, Tally};

/// How long answers may take once no more requests are sent.
const DRAIN: Duration = Duration::from_secs(10);
/// An arrival is given up when it is still unsent this long after the end, so that a run has an end.
const GRACE: Duration = Duration::from_millis(10);
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// How arrivals of an open loop are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly spaced.
    Constant,
    /// Independent of each other, as those of many callers are: gaps are exponentially distributed.
    Poisson,
}

/// Where load goes and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    pub addr: SocketAddr,
    /// Connections; at once the most requests that are under way.
    pub connections: usize,
    /// Load before the measured window, whose answers count only towards the tally.
    pub warmup: Duration,
    pub duration: Duration,
    /// Whose CPU time is measured.
    pub server_pid: Option<u32>,
    /// Statuses that are failures of the server under test but no reason to refuse the run.
    pub tolerated_statuses: Vec<u16>,
    /// Every success is added here, also those outside of the window.
    pub tally: Arc<Tally>,
}

/// What came of it. Counts and latencies are those of the window, unless they say otherwise.
#[derive(Debug, Clone)]
pub struct Measured {
    pub window: Duration,
    /// Arrivals due in the window; `None` in a closed loop.
    pub offered: Option<u64>,
    /// Arrivals of the window that were never sent, as no connection became free.
    pub unsent: u64,
    /// Arrivals of the window that had to wait for a connection.
    pub waited: u64,
    /// Answers of any status.
    pub answered: u64,
    /// Operations of expected answers: one a request, or the lines of a batch.
    pub operations: u64,
    /// Successes only. Open loop: from the time the request was due. Closed loop: from sending.
    pub latency_us: Histogram<u64>,
    /// Successes only, from sending.
    pub service_us: Histogram<u64>,
    /// Open loop: how late the generator sent what it could have sent.
    pub lag_us: Option<Histogram<u64>>,
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that are neither expected nor tolerated, warm-up included.
    pub unexpected: u64,
    pub first_unexpected: Option<String>,
    /// Broken connections, warm-up included. Each ends its connection.
    pub transport_errors: u64,
    pub first_transport_error: Option<String>,
    pub usage: Usage,
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    due: Instant,
    sent: Instant,
    expectation: Expectation,
    in_window: bool,
}

/// What all connections write to. On a single-threaded runtime its lock is never contended.
struct Recorder {
    answered: u64,
    operations: u64,
    latency_us: Histogram<u64>,
    service_us: Histogram<u64>,
    statuses: Vec<(u16, u64)>,
    unexpected: u64,
    first_unexpected: Option<String>,
    transport_errors: u64,
    first_transport_error: Option<String>,
}

impl Recorder {
    fn new() -> Recorder {
        Recorder {
            answered: 0,
            operations: 0,
            latency_us: new_histogram(),
            service_us: new_histogram(),
            statuses: vec![],
            unexpected: 0,
            first_unexpected: None,
            transport_errors: 0,
            first_transport_error: None,
        }
    }

    fn answer(&mut self, plan: &Plan, request: &InFlight, status: u16, body: &[u8], now: Instant) {
        let success = request.expectation.is_met(status, body);
        if success {
            plan.tally.add(request.expectation.effect);
        } else if !plan.tolerated_statuses.contains(&status) {
            self.unexpected += 1;
            self.first_unexpected.get_or_insert_with(|| format!("status {status}: {}", excerpt(body)));
        }
        if !request.in_window {
            return;
        }
        self.answered += 1;
        match self.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.statuses.push((status, 1)),
        }
        if success {
            self.operations += request.expectation.effect.operations();
            self.latency_us.saturating_record(micros(now - request.due));
            self.service_us.saturating_record(micros(now - request.sent));
        }
    }

    fn transport_error(&mut self, count: u64, error: impl FnOnce() -> String) {
        if count > 0 {
            self.transport_errors += count;
            self.first_transport_error.get_or_insert_with(error);
        }
    }

    fn into_measured(self, window: Duration, usage: Usage) -> Measured {
        Measured {
            window,
            offered: None,
            unsent: 0,
            waited: 0,
            answered: self.answered,
            operations: self.operations,
            latency_us: self.latency_us,
            service_us: self.service_us,
            lag_us: None,
            statuses: self.statuses.into_iter().collect(),
            unexpected: self.unexpected,
            first_unexpected: self.first_unexpected,
            transport_errors: self.transport_errors,
            first_transport_error: self.first_transport_error,
            usage,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Runs `plan.connections` callers that each wait for their answers. `maker` gives each one its requests.
///
/// The window holds the answers that arrive in it.
pub async fn closed_loop(plan: Plan, maker: impl Fn(u64) -> Maker) -> Result<Measured> {
    ensure!(plan.connections > 0, "a closed loop needs connections");
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        connections.push(connect(plan.addr).await?);
    }
    let plan = Arc::new(plan);
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let begin = Instant::now() + plan.warmup;
    let end = begin + plan.duration;
    let mut callers = JoinSet::new();
    for (index, (reading, writing)) in connections.into_iter().enumerate() {
        let (plan, recorder, maker) = (plan.clone(), recorder.clone(), maker(index as u64));
        callers.spawn(async move {
            if let Err(error) = caller(&plan, &recorder, begin, end, reading, writing, maker).await {
                recorder.lock().transport_error(1, || format!("{error:#}"));
            }
        });
    }
    let usage = window_usage(&plan, begin, end).await;
    let unfinished = drain(&mut callers, end).await;
    let mut recorder = std::mem::replace(&mut *recorder.lock(), Recorder::new());
    recorder.transport_error(unfinished, || format!("no answer within {DRAIN:?} after the end"));
    Ok(recorder.into_measured(plan.duration, usage))
}

async fn caller(
    plan: &Plan,
    recorder: &Mutex<Recorder>,
    begin: Instant,
    end: Instant,
    mut reading: ResponseReader,
    mut writing: OwnedWriteHalf,
    mut maker: Maker,
) -> Result<()> {
    let mut request = Vec::new();
    loop {
        request.clear();
        let expectation = maker(&mut request);
        let sent = Instant::now();
        if sent >= end {
            return Ok(());
        }
        writing.write_all(&request).await.context("sending a request")?;
        let response = reading.next().await?;
        let now = Instant::now();
        let in_flight = InFlight { due: sent, sent, expectation, in_window: now >= begin && now < end };
        recorder.lock().answer(plan, &in_flight, response.status, response.body, now);
    }
}

async fn window_usage(plan: &Plan, begin: Instant, end: Instant) -> Usage {
    tokio::time::sleep_until(begin.into()).await;
    let before = Usage::sample(plan.server_pid);
    tokio::time::sleep_until(end.into()).await;
    Usage::sample(plan.server_pid).since(&before)
}

/// Waits for the tasks until the drain time is over; gives the number of those that had to be stopped.
async fn drain(tasks: &mut JoinSet<()>, end: Instant) -> u64 {
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at((end + DRAIN).into(), all).await;
    let unfinished = tasks.len() as u64;
    tasks.shutdown().await;
    unfinished
}

/// What a connection of an open loop is at.
enum Slot {
    Idle,
    Busy(InFlight),
    Broken,
}

/// What the sending thread and the readers share.
struct Open {
    plan: Plan,
    recorder: Mutex<Recorder>,
    slots: Vec<Mutex<Slot>>,
    sent: AtomicU64,
    /// Requests whose answer came or whose connection broke.
    settled: AtomicU64,
}

impl Open {
    /// Counts a connection as broken, with the request that may be under way on it.
    fn broken(&self, index: usize, error: String) {
        let slot = std::mem::replace(&mut *self.slots[index].lock(), Slot::Broken);
        self.recorder.lock().transport_error(1, || error);
        if let Slot::Busy(_) = slot {
            self.settled.fetch_add(1, Ordering::Release);
        }
    }
}

/// What the sending thread hands back. It keeps the writing halves: dropping one would close its connection.
struct Sent {
    offered: u64,
    unsent: u64,
    waited: u64,
    lag_us: Histogram<u64>,
    unsent_us: Vec<u64>,
    _writing: Vec<OwnedWriteHalf>,
}

/// Sends `rate_per_s` requests a second whatever the answers do, over `plan.connections` connections.
///
/// The window holds the requests that are due in it.
pub async fn open_loop(plan: Plan, rate_per_s: f64, arrivals: Arrivals, maker: Maker) -> Result<Measured> {
    ensure!(plan.connections > 0, "an open loop needs connections");
    ensure!(rate_per_s.is_finite() && rate_per_s > 0.0, "rate {rate_per_s}");
    let (idle, idle_connections) = std::sync::mpsc::channel();
    let mut reading_halves = Vec::with_capacity(plan.connections);
    let mut writing_halves = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        let (reading, writing) = connect(plan.addr).await?;
        reading_halves.push(reading);
        writing_halves.push(writing);
        idle.send(index).context("queueing a new connection")?;
    }
    let open = Arc::new(Open {
        recorder: Mutex::new(Recorder::new()),
        slots: (0..plan.connections).map(|_| Mutex::new(Slot::Idle)).collect(),
        sent: AtomicU64::new(0),
        settled: AtomicU64::new(0),
        plan,
    });
    let mut readers = JoinSet::new();
    for (index, reading) in reading_halves.into_iter().enumerate() {
        readers.spawn(read_answers(open.clone(), index, reading, idle.clone()));
    }
    // The sender must see the queue end when all connections are broken.
    drop(idle);

    let start = Instant::now();
    let begin = start + open.plan.warmup;
    let end = begin + open.plan.duration;
    let schedule = Schedule::new(rate_per_s, arrivals);
    let (finished, sender_result) = oneshot::channel();
    let sender_open = open.clone();
    let sender = move || {
        let sent =
            send_on_schedule(&sender_open, schedule, [start, begin, end], writing_halves, idle_connections, maker);
        // Nobody waits for it when the caller has given up.
        let _ = finished.send(sent);
    };
    std::thread::Builder::new().name("bench-sender".into()).spawn(sender).context("starting the sending thread")?;
    let usage = window_usage(&open.plan, begin, end).await;
    let mut sent = sender_result.await.context("the sending thread has panicked")?;

    let unsettled = || open.sent.load(Ordering::Acquire) - open.settled.load(Ordering::Acquire);
    while unsettled() > 0 && Instant::now() < end + DRAIN {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    let unanswered = unsettled();
    readers.shutdown().await;
    let mut recorder = std::mem::replace(&mut *open.recorder.lock(), Recorder::new());
    recorder.transport_error(unanswered, || format!("no answer within {DRAIN:?} after the end"));
    for waited_us in sent.unsent_us.drain(..) {
        recorder.latency_us.saturating_record(waited_us);
    }
    let measured = recorder.into_measured(open.plan.duration, usage);
    Ok(Measured {
        offered: Some(sent.offered),
        unsent: sent.unsent,
        waited: sent.waited,
        lag_us: Some(sent.lag_us),
        ..measured
    })
}

async fn read_answers(open: Arc<Open>, index: usize, mut reading: ResponseReader, idle: Sender<usize>) {
    loop {
        let failure = match reading.next().await {
            Ok(response) => {
                let now = Instant::now();
                let slot = std::mem::replace(&mut *open.slots[index].lock(), Slot::Idle);
                if let Slot::Busy(request) = slot {
                    open.recorder.lock().answer(&open.plan, &request, response.status, response.body, now);
                    open.settled.fetch_add(1, Ordering::Release);
                    // The sender is gone once all is sent.
                    let _ = idle.send(index);
                    continue;
                }
                "an answer to no request".to_owned()
            }
            Err(error) => format!("{error:#}"),
        };
        open.broken(index, failure);
        return;
    }
}

/// Sleeps until each arrival, takes a free connection and writes the request; runs on a thread of its own.
fn send_on_schedule(
    open: &Open,
    mut schedule: Schedule,
    [start, begin, end]: [Instant; 3],
    writing: Vec<OwnedWriteHalf>,
    idle: Receiver<usize>,
    mut maker: Maker,
) -> Sent {
    let mut sent =
        Sent { offered: 0, unsent: 0, waited: 0, lag_us: new_histogram(), unsent_us: vec![], _writing: vec![] };
    let mut request = Vec::new();
    let mut given_up = false;
    loop {
        let due = start + schedule.next();
        if due >= end {
            break;
        }
        let in_window = due >= begin;
        sent.offered += u64::from(in_window);
        let mut connection = None;
        if !given_up {
            request.clear();
            // Made before the arrival, so that it leaves on time.
            let expectation = maker(&mut request);
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            let mut sendable_from = due;
            connection = idle.try_recv().ok();
            if connection.is_none() {
                sent.waited += u64::from(in_window);
                let patience = (end + GRACE).saturating_duration_since(Instant::now());
                connection = idle.recv_timeout(patience).ok();
                sendable_from = Instant::now();
            }
            let now = Instant::now();
            connection = connection.filter(|_| now <= end + GRACE);
            if let Some(index) = connection {
                if in_window {
                    sent.lag_us.saturating_record(micros(now.saturating_duration_since(sendable_from)));
                }
                send(open, index, &writing[index], &request, InFlight { due, sent: now, expectation, in_window });
            }
        }
        if connection.is_none() {
            given_up = true;
            sent.unsent += u64::from(in_window);
            if in_window {
                sent.unsent_us.push(micros((end + GRACE).saturating_duration_since(due)));
            }
        }
    }
    sent._writing = writing;
    sent
}

/// Writes a request on a free connection. A connection that broke while it was free loses the request.
fn send(open: &Open, index: usize, writing: &OwnedWriteHalf, request: &[u8], in_flight: InFlight) {
    {
        let mut slot = open.slots[index].lock();
        if matches!(*slot, Slot::Broken) {
            return;
        }
        // Before the slot shows it, so that no more requests are ever settled than sent.
        open.sent.fetch_add(1, Ordering::Release);
        *slot = Slot::Busy(in_flight);
    }
    if let Err(error) = write_whole(writing, request) {
        open.broken(index, format!("sending a request: {error}"));
    }
}

/// Writes without waiting: on a connection with nothing under way, a small request always fits into the socket's buffer.
fn write_whole(writing: &OwnedWriteHalf, request: &[u8]) -> io::Result<()> {
    let written = writing.try_write(request)?;
    if written < request.len() {
        return Err(io::Error::other("the request is too large for an open loop"));
    }
    Ok(())
}

/// Arrival times since the start.
struct Schedule {
    mean_gap_s: f64,
    arrivals: Arrivals,
    at_s: f64,
    rng: SmallRng,
}

impl Schedule {
    fn new(rate_per_s: f64, arrivals: Arrivals) -> Schedule {
        Schedule { mean_gap_s: 1.0 / rate_per_s, arrivals, at_s: 0.0, rng: SmallRng::seed_from_u64(rand::random()) }
    }

    fn next(&mut self) -> Duration {
        self.at_s += match self.arrivals {
            Arrivals::Constant => self.mean_gap_s,
            // 1 - x is in (0, 1], whose logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.rng.random::<f64>()).ln() * self.mean_gap_s,
        };
        Duration::from_secs_f64(self.at_s)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::bench::scenario::Effect;

    /// A server that answers each read with 200 after `delay`, and closes a connection after `answers` of them.
    async fn server(delay: Duration, answers: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    for _ in 0..answers {
                        if stream.read(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                        tokio::time::sleep(delay).await;
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    }
                });
            }
        });
        addr
    }

    fn plan(addr: SocketAddr, connections: usize) -> Plan {
        Plan {
            addr,
            connections,
            warmup: Duration::from_millis(50),
            duration: Duration::from_millis(300),
            server_pid: None,
            tolerated_statuses: vec![],
            tally: Arc::default(),
        }
    }

    fn maker(status: u16) -> Maker {
        Box::new(move |out| {
            out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            Expectation { status, effect: Effect::Nothing }
        })
    }

    #[tokio::test]
    async fn a_closed_loop_waits_for_answers() {
        let addr = server(Duration::from_millis(5), usize::MAX).await;
        let measured = closed_loop(plan(addr, 4), |_| maker(200)).await.unwrap();
        assert!((40..=240).contains(&measured.answered), "{}", measured.answered);
        assert_eq!(measured.answered, measured.operations);
        assert!(measured.latency_us.min() >= 4_900);
        assert_eq!(measured.statuses.keys().collect::<Vec<_>>(), [&200]);
        assert_eq!((measured.unexpected, measured.transport_errors, measured.offered), (0, 0, None));
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_schedule() {
        let addr = server(Duration::ZERO, usize::MAX).await;
        let measured = open_loop(plan(addr, 16), 500.0, Arrivals::Constant, maker(200)).await.unwrap();
        let offered = measured.offered.unwrap();
        assert!((149..=151).contains(&offered), "{offered}");
        assert_eq!((measured.answered, measured.unsent, measured.transport_errors), (offered, 0, 0));
        assert_eq!(measured.lag_us.unwrap().len(), offered);
    }

    #[tokio::test]
    async fn a_slow_server_shows_in_open_loop_latency() {
        // One connection answers 50 requests a second; 500 are due. A closed loop would call this 20 ms.
        let addr = server(Duration::from_millis(20), usize::MAX).await;
        let plan = Plan { warmup: Duration::ZERO, ..plan(addr, 1) };
        let measured = open_loop(plan, 500.0, Arrivals::Poisson, maker(200)).await.unwrap();
        assert!(measured.unsent > 50, "{} unsent", measured.unsent);
        assert!(measured.waited > 0);
        assert!(measured.latency_us.value_at_quantile(0.5) > 50_000, "{}", measured.latency_us.value_at_quantile(0.5));
        assert!(measured.service_us.value_at_quantile(0.5) < 50_000);
        assert_eq!(measured.answered + measured.unsent, measured.offered.unwrap());
    }

    #[tokio::test]
    async fn wrong_statuses_are_unexpected_unless_tolerated() {
        let addr = server(Duration::from_millis(5), usize::MAX).await;
        let measured = closed_loop(plan(addr, 1), |_| maker(201)).await.unwrap();
        assert!(measured.unexpected >= measured.answered && measured.answered > 0);
        assert_eq!((measured.operations, measured.latency_us.len()), (0, 0));
        assert_eq!(measured.first_unexpected.as_deref(), Some("status 200: ok"));
        let tolerant = Plan { tolerated_statuses: vec![200], ..plan(addr, 1) };
        let measured = closed_loop(tolerant, |_| maker(201)).await.unwrap();
        assert_eq!((measured.unexpected, measured.operations), (0, 0));
    }

    #[tokio::test]
    async fn broken_connections_are_errors() {
        let addr = server(Duration::ZERO, 3).await;
        let measured = closed_loop(plan(addr, 2), |_| maker(200)).await.unwrap();
        assert_eq!(measured.transport_errors, 2);
        assert_eq!(measured.first_transport_error.as_deref(), Some("the server closed the connection"));
        let measured = open_loop(plan(addr, 2), 100.0, Arrivals::Constant, maker(200)).await.unwrap();
        assert!(measured.transport_errors >= 2);
        assert!(measured.unsent > 0);
    }

    #[test]
    fn poisson_arrivals_have_their_rate() {
        let mut schedule = Schedule::new(1_000.0, Arrivals::Poisson);
        let last = (0..100_000).map(|_| schedule.next()).last().unwrap();
        assert!((last.as_secs_f64() - 100.0).abs() < 2.0, "{last:?}");
    }
}
