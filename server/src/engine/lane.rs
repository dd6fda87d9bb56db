//! One lane: gather, run, answer, again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;
use scrip_domain::{Answer, Envelope};
use tokio::sync::oneshot;

use super::SubmitError;
use super::memory::RefusalMemory;
use super::queue::FairQueue;
use crate::metrics::Metrics;
use crate::store::{BatchFailure, StoreError, Writer};

/// Commands that came together and are answered together.
pub(super) struct Job {
    pub commands: Vec<Envelope>,
    pub queued_at: Instant,
    /// How long after `queued_at` the commands may still begin.
    pub deadline: Duration,
    pub reply: oneshot::Sender<Vec<Result<Answer, SubmitError>>>,
}

/// How often one command is decided again after a conflict before it is given up.
const MAX_ATTEMPTS: u32 = 8;

/// Starts the lane. SQLite's blocks its thread with each commit, so it gets a thread of its own.
pub(super) fn spawn(
    number: usize,
    writer: Writer,
    queue: Arc<FairQueue>,
    batch_max: usize,
    memory: Arc<RefusalMemory>,
    metrics: Arc<Metrics>,
) -> Result<(), StoreError> {
    let blocks = matches!(writer, Writer::Sqlite(_));
    let lane = Lane { writer, batch_max, memory, metrics };
    if !blocks {
        tokio::spawn(lane.work(queue));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| StoreError::Fault(format!("cannot start a lane: {error}")))?;
    std::thread::Builder::new()
        .name(format!("scrip-lane-{number}"))
        .spawn(move || runtime.block_on(lane.work(queue)))
        .map_err(|error| StoreError::Fault(format!("cannot start a lane: {error}")))?;
    Ok(())
}

struct Lane {
    writer: Writer,
    batch_max: usize,
    memory: Arc<RefusalMemory>,
    metrics: Arc<Metrics>,
}

struct Abandon(Arc<FairQueue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

type Answers = Vec<Result<Answer, SubmitError>>;

impl Lane {
    async fn work(mut self, queue: Arc<FairQueue>) {
        // However this ends, nobody waits in the queue for an answer that will not come.
        let _abandoned = Abandon(queue.clone());
        while let Some(gathered) = queue.next_batch(self.batch_max).await {
            self.answer(gathered).await;
            self.writer.rest();
        }
    }

    async fn answer(&mut self, gathered: Vec<Job>) {
        let begun_at = Instant::now();
        let mut batch = Vec::new();
        let mut waiting = Vec::with_capacity(gathered.len());
        for job in gathered {
            self.metrics.lane_depth.sub(job.commands.len() as i64);
            let waited = begun_at.duration_since(job.queued_at);
            self.metrics.lane_wait_seconds.observe(waited.as_secs_f64());
            if waited > job.deadline {
                let late = job.commands.iter().map(|_| Err(SubmitError::DeadlineExceeded)).collect();
                let _ = job.reply.send(late);
                continue;
            }
            waiting.push((job.commands.len(), job.queued_at, job.reply));
            batch.extend(job.commands);
        }
        if batch.is_empty() {
            return;
        }
        self.metrics.lane_batch_size.observe(batch.len() as f64);
        let answers = self.run(&batch).await;
        self.metrics.lane_commit_seconds.observe(begun_at.elapsed().as_secs_f64());
        if self.metrics.is_on {
            self.count(&batch, &answers);
            self.time(&batch, waiting.iter().map(|(count, queued_at, _)| (*count, *queued_at)));
        }
        self.memory.learn(&batch, &answers);
        let mut answers = answers.into_iter();
        for (count, _, reply) in waiting {
            // Whoever asked may be gone; the effect stands and the idempotency key finds it.
            let _ = reply.send(answers.by_ref().take(count).collect());
        }
    }

    /// Runs a batch; halves it when a constraint refuses it, until each command has its own answer.
    async fn run(&mut self, batch: &[Envelope]) -> Answers {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.writer.run(batch).await {
                Ok(answers) => return answers.into_iter().map(Ok).collect(),
                Err(failure) => failure,
            };
            match failure {
                BatchFailure::Store(StoreError::Conflict(detail)) if attempt < MAX_ATTEMPTS => {
                    tracing::debug!(%detail, attempt, "a batch collided and is decided again");
                    self.metrics.batch_retries.inc();
                    tokio::time::sleep(backoff(attempt)).await;
                }
                // Another node may just have written what this one was about to: look again, once, before halving.
                BatchFailure::Store(StoreError::Constraint(name)) if attempt == 1 => {
                    tracing::debug!(constraint = %name, "a constraint refused a batch; it is decided again");
                    self.metrics.batch_retries.inc();
                }
                BatchFailure::Store(StoreError::Constraint(name)) if batch.len() > 1 => {
                    tracing::warn!(constraint = %name, size = batch.len(), "a constraint refused a batch; it is halved");
                    self.metrics.batch_bisections.inc();
                    let (left, right) = batch.split_at(batch.len() / 2);
                    let mut answers = Box::pin(self.run(left)).await;
                    answers.extend(Box::pin(self.run(right)).await);
                    return answers;
                }
                other => {
                    let error = explain(other);
                    tracing::error!(%error, size = batch.len(), "a batch was not committed");
                    return batch.iter().map(|_| Err(error.clone())).collect();
                }
            }
        }
    }

    /// Counts commands by operation and outcome. A batch has few of both.
    fn count(&self, batch: &[Envelope], answers: &Answers) {
        let mut counts: Vec<(&str, &str, u64)> = Vec::with_capacity(4);
        for (envelope, answer) in batch.iter().zip(answers) {
            let outcome = match answer {
                Ok(Answer::Accepted { replayed: false, .. }) => "accepted",
                Ok(Answer::Accepted { replayed: true, .. }) => "replayed",
                Ok(Answer::Refused(_)) => "refused",
                Err(_) => "failed",
            };
            let operation = envelope.command.operation();
            match counts.iter_mut().find(|(of, with, _)| *of == operation && *with == outcome) {
                Some((_, _, count)) => *count += 1,
                None => counts.push((operation, outcome, 1)),
            }
        }
        for (operation, outcome, count) in counts {
            self.metrics.commands.with_label_values(&[operation, outcome]).inc_by(count);
        }
    }

    /// Shows how long commands took from entering the lane, by operation. One look-up for each run of the same operation.
    fn time(&self, batch: &[Envelope], jobs: impl Iterator<Item = (usize, Instant)>) {
        let mut commands = batch.iter();
        let mut last: Option<(&str, Histogram)> = None;
        for (count, queued_at) in jobs {
            let seconds = queued_at.elapsed().as_secs_f64();
            for envelope in commands.by_ref().take(count) {
                let operation = envelope.command.operation();
                match &last {
                    Some((of, histogram)) if *of == operation => histogram.observe(seconds),
                    _ => {
                        let histogram = self.metrics.operation_seconds.with_label_values(&[operation]);
                        histogram.observe(seconds);
                        last = Some((operation, histogram));
                    }
                }
            }
        }
    }
}

fn explain(failure: BatchFailure) -> SubmitError {
    match failure {
        BatchFailure::Unknown => SubmitError::OutcomeUnknown,
        BatchFailure::Store(StoreError::Unavailable(detail) | StoreError::Conflict(detail)) => {
            SubmitError::Unavailable(detail)
        }
        BatchFailure::Store(StoreError::DiskFull(_)) => SubmitError::DiskFull,
        BatchFailure::Store(error) => SubmitError::Fault(error.to_string()),
    }
}

/// 1, 2, 4 ... 64 ms, with up to as much again at random, so that colliding nodes part.
fn backoff(attempt: u32) -> Duration {
    let base_ms = 1u64 << attempt.min(6);
    Duration::from_micros(base_ms * 500 + rand::random_range(0..base_ms * 500))
}
