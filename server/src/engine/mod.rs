//! The engine: commands in, answers out, batched by lanes.
//!
//! A lane is a bounded queue, fair between tenants ([`queue`]), and one writer. It takes what is queued, up to
//! [`EngineOptions::batch_max`], and never waits for more: an idle system pays no delay, a busy one shares locks, round trips
//! and the disk sync among the batch. While a batch commits, the next one gathers. A command goes to the lane of its hot key
//! (its template, coupon or member), so commands on one key keep their order and meet in one batch. On PostgreSQL what time has
//! ended is settled in a lane of its own: nobody waits for that, and what a caller waits for does not queue behind it.
//!
//! What it guarantees: an accepted command is durable before its answer leaves; a refused or failed one has changed nothing;
//! one command never fails its neighbours (a batch refused by a constraint is halved until the culprit stands alone).
//! Correctness never depends on which lane or node decides: the store's row locks do that.
//!
//! What bounds it: the queues (beyond them, `Busy`), the deadline of a command (beyond it, it is not begun), the retries.
//!
//! Deliberately absent: a timer to fill batches, and any memory that could decide in the store's place, except refusals
//! that stay true while the template's version does ([`memory`]).

mod lane;
mod memory;
mod queue;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use scrip_domain::bulk::ChunkWork;
use scrip_domain::{Answer, Command, Envelope};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::telemetry;
use lane::Job;
use memory::RefusalMemory;
use queue::{FairQueue, NotQueued};

/// Why a command got no answer. It has not taken effect, unless `OutcomeUnknown` says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("the server is at its capacity")]
    Busy,
    #[error("the server is shutting down")]
    Draining,
    #[error("the command waited past its deadline and was not begun")]
    DeadlineExceeded,
    #[error("{0}")]
    Unavailable(String),
    #[error("the disk is full")]
    DiskFull,
    #[error("the connection to the store was lost while committing")]
    OutcomeUnknown,
    #[error("{0}")]
    Fault(String),
}

#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Writers on PostgreSQL, and one more that settles. SQLite has one for all.
    pub lanes: usize,
    /// Requests a lane queues before it answers busy.
    pub queue_max: usize,
    /// Commands in one transaction, at most.
    pub batch_max: usize,
    /// How long a command may wait for its batch to begin.
    pub deadline: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { lanes: 2, queue_max: 4_096, batch_max: 512, deadline: Duration::from_secs(5) }
    }
}

/// Cheap to clone; the lanes stop when the last clone is gone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// Decides some commands in place of the lanes: a benchmark's other algorithm behind the same HTTP layer.
pub type Decider = Arc<dyn Fn(&Envelope) -> Option<BoxFuture<'static, Result<Answer, SubmitError>>> + Send + Sync>;

struct Inner {
    decider: Option<Decider>,
    /// When there are several, the last one settles.
    lanes: Vec<Arc<FairQueue>>,
    memory: Arc<RefusalMemory>,
    metrics: Arc<Metrics>,
    options: EngineOptions,
    draining: AtomicBool,
}

impl Engine {
    /// Starts the lanes.
    ///
    /// # Errors
    /// When the store gives no writer.
    pub async fn start(store: &Store, options: EngineOptions, metrics: Arc<Metrics>) -> Result<Engine, StoreError> {
        Engine::start_with(store, options, metrics, None).await
    }

    /// Starts the lanes; `decider` goes first where it gives a future.
    ///
    /// # Errors
    /// When the store gives no writer.
    pub async fn start_with(
        store: &Store,
        options: EngineOptions,
        metrics: Arc<Metrics>,
        decider: Option<Decider>,
    ) -> Result<Engine, StoreError> {
        let memory = Arc::new(RefusalMemory::new(store.clone()));
        let count = match store {
            Store::Sqlite(_) => 1,
            Store::Postgres(_) => options.lanes.max(1) + 1,
        };
        // All writers before the first lane: one that cannot be had leaves no lane behind.
        let mut writers = Vec::with_capacity(count);
        for _ in 0..count {
            writers.push(store.writer().await?);
        }
        let mut lanes = Vec::with_capacity(count);
        for (number, writer) in writers.into_iter().enumerate() {
            let queue = Arc::new(FairQueue::new(options.queue_max));
            lane::spawn(number, writer, queue.clone(), options.batch_max, memory.clone(), metrics.clone())?;
            lanes.push(queue);
        }
        let draining = AtomicBool::new(false);
        Ok(Engine { inner: Arc::new(Inner { decider, lanes, memory, metrics, options, draining }) })
    }

    /// Decides one command.
    ///
    /// # Errors
    /// A [`SubmitError`] when it could not be decided.
    pub async fn submit(&self, envelope: Envelope) -> Result<Answer, SubmitError> {
        if let Some(decision) = self.inner.decider.as_ref().and_then(|decider| decider(&envelope)) {
            return decision.await;
        }
        if let Some(rejection) = self.inner.memory.refuse(&envelope) {
            self.inner.metrics.refused_from_memory.inc();
            return Ok(Answer::Refused(rejection));
        }
        if let Some(traces) = telemetry::traces() {
            traces.remember(envelope.seed);
        }
        let lane = self.lane_of(&envelope);
        match self.enqueue(lane, vec![envelope])?.await {
            Ok(mut answers) => answers.pop().unwrap_or(Err(lost())),
            Err(_) => Err(lost()),
        }
    }

    /// Decides many commands and answers in their order. Commands on the same key take effect in their order, but those that settle
    /// only among themselves: they have a lane of their own.
    pub async fn submit_all(&self, envelopes: Vec<Envelope>) -> Vec<Result<Answer, SubmitError>> {
        let count = envelopes.len();
        let mut by_lane: Vec<(Vec<usize>, Vec<Envelope>)> = vec![Default::default(); self.inner.lanes.len()];
        for (index, envelope) in envelopes.into_iter().enumerate() {
            if let Some(traces) = telemetry::traces() {
                traces.remember(envelope.seed);
            }
            let (indexes, commands) = &mut by_lane[self.lane_of(&envelope)];
            indexes.push(index);
            commands.push(envelope);
        }
        let lanes = by_lane.into_iter().enumerate().filter(|(_, (indexes, _))| !indexes.is_empty());
        let answered =
            join_all(lanes.map(|(lane, (indexes, commands))| async move {
                (indexes, self.submit_in_pieces(lane, commands).await)
            }))
            .await;
        let mut answers: Vec<_> = (0..count).map(|_| Err(lost())).collect();
        for (indexes, results) in answered {
            for (index, result) in indexes.into_iter().zip(results) {
                answers[index] = result;
            }
        }
        answers
    }

    /// One piece of a lane's share after the other, each no larger than a batch: a large request then leaves room for
    /// others between its pieces, and holds one place in the queue.
    async fn submit_in_pieces(&self, lane: usize, commands: Vec<Envelope>) -> Vec<Result<Answer, SubmitError>> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let piece: Vec<Envelope> = commands.by_ref().take(self.inner.options.batch_max).collect();
            let size = piece.len();
            match self.enqueue(lane, piece) {
                Ok(reply) => match reply.await {
                    Ok(results) => answers.extend(results),
                    Err(_) => answers.extend((0..size).map(|_| Err(lost()))),
                },
                Err(error) => answers.extend((0..size).map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    fn enqueue(&self, lane: usize, commands: Vec<Envelope>) -> Result<Reply, SubmitError> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(SubmitError::Draining);
        }
        let (reply, answers) = oneshot::channel();
        let Some(tenant) = commands.first().map(|envelope| envelope.tenant) else { return Ok(answers) };
        let size = commands.len() as i64;
        let job = Job { commands, queued_at: Instant::now(), deadline: self.inner.options.deadline, reply };
        match self.inner.lanes[lane].push(tenant, job) {
            Ok(()) => {
                self.inner.metrics.lane_depth.add(size);
                Ok(answers)
            }
            Err(NotQueued::Full) => Err(SubmitError::Busy),
            Err(NotQueued::Closed) => Err(lost()),
        }
    }

    fn lane_of(&self, envelope: &Envelope) -> usize {
        if self.inner.lanes.len() == 1 {
            return 0;
        }
        let settling_lane = self.inner.lanes.len() - 1;
        let mut hasher = DefaultHasher::new();
        envelope.tenant.hash(&mut hasher);
        let command = match &envelope.command {
            Command::Work { command, .. } => command,
            command => command,
        };
        match command {
            Command::SettleCoupon(_) | Command::SettleAccount(_) | Command::SettleOrder { .. } => return settling_lane,
            Command::CreateTenant(_)
            | Command::CreateProgram(_)
            | Command::CreateApiKey { .. }
            | Command::RevokeApiKey(_)
            | Command::SetRules { .. }
            | Command::RecordSweep(_)
            | Command::RemindExpiry(_)
            | Command::AnnounceWindows { .. } => {}
            Command::CreateBulk { bulk_id, .. } | Command::CancelBulk(bulk_id) => bulk_id.hash(&mut hasher),
            Command::WorkChunk { bulk_id, work, .. } => match &**work {
                ChunkWork::Issue { template_id, .. } => template_id.hash(&mut hasher),
                ChunkWork::Grant(_) => bulk_id.hash(&mut hasher),
            },
            Command::RetryJob(job_id) | Command::CancelJob(job_id) | Command::ExtendPage { job_id, .. } => {
                job_id.hash(&mut hasher);
            }
            // Work is not nested.
            Command::Work { ticket, .. } => ticket.job_id.hash(&mut hasher),
            // Nothing is there yet to be contended; the seed spreads them.
            Command::CreateTemplate { .. } | Command::CreateWebhook(_) => match envelope.idempotency {
                Some(idempotency) => idempotency.key.hash(&mut hasher),
                None => envelope.seed.random.hash(&mut hasher),
            },
            Command::UpdateTemplate { template_id, .. }
            | Command::EnableTemplate { template_id, .. }
            | Command::ChangeStock { template_id, .. }
            | Command::ArchiveTemplate(template_id)
            | Command::DeleteTemplate(template_id)
            | Command::ClaimCode { template_id, .. }
            | Command::TransferCoupon { template_id, .. }
            | Command::EnqueueExtension { template_id, .. }
            | Command::Exchange { template_id, .. }
            | Command::Claim { template_id, .. } => template_id.hash(&mut hasher),
            Command::ReserveOrder(asked) => asked.member_id.hash(&mut hasher),
            Command::Adjust(asked) => asked.member_id.hash(&mut hasher),
            Command::RejectAdjustment { adjustment_id, .. } => adjustment_id.hash(&mut hasher),
            Command::CloseCompensation { compensation_id, .. } => compensation_id.hash(&mut hasher),
            Command::ImportTemplate { template_id, .. } => template_id.hash(&mut hasher),
            Command::ImportCoupon(imported) => imported.template_id.hash(&mut hasher),
            Command::ImportAccount(imported) => imported.member_id.hash(&mut hasher),
            Command::CreateCodeBatch(new) => new.template_id.hash(&mut hasher),
            Command::AddCodes { batch_id, .. }
            | Command::ChangeCodeBatch { batch_id, .. }
            | Command::ChangeCode { batch_id, .. }
            | Command::AssignCode { batch_id, .. }
            | Command::SealCodeBatch(batch_id) => batch_id.hash(&mut hasher),
            Command::LockCoupon { coupon_id, .. }
            | Command::UseCoupon { coupon_id, .. }
            | Command::UnlockCoupon { coupon_id, .. }
            | Command::ReturnCoupon { coupon_id, .. }
            | Command::RevokeCoupon { coupon_id, .. }
            | Command::ExtendCoupon { coupon_id, .. } => coupon_id.hash(&mut hasher),
            Command::ChangeWebhook { webhook_id, .. } => webhook_id.hash(&mut hasher),
            Command::Grant { member_id, .. }
            | Command::Debit { member_id, .. }
            | Command::EnqueueGrant { member_id, .. }
            | Command::Hold { member_id, .. }
            | Command::CaptureHold { member_id, .. }
            | Command::ReleaseHold { member_id, .. }
            | Command::Reverse { member_id, .. }
            | Command::PayOrder { member_id, .. }
            | Command::CancelOrder { member_id, .. }
            | Command::RefundOrder { member_id, .. }
            | Command::ConfirmOrder { member_id, .. }
            | Command::ApproveAdjustment { member_id, .. }
            | Command::CheckIn { member_id, .. }
            | Command::CompleteTask { member_id, .. }
            | Command::Transfer { from: member_id, .. }
            | Command::ReverseTransfer { from: member_id, .. }
            | Command::Merge { from: member_id, .. } => member_id.hash(&mut hasher),
            Command::CreateTask { key, .. } | Command::UpdateTask { key, .. } | Command::DeleteTask(key) => {
                key.hash(&mut hasher);
            }
        }
        (hasher.finish() % settling_lane as u64) as usize
    }

    /// How many settling commands, of a line of a ledger each, are best sent at a time. Whoever needs the same writer, on SQLite, or
    /// the same accounts waits behind so many at most, a millisecond; fewer would cost more each, for what a transaction costs by itself.
    pub fn settling_piece(&self) -> usize {
        if self.inner.lanes.len() == 1 { 16 } else { 64 }
    }

    /// Takes no new commands; those queued are still answered.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }
}

/// The lanes answer what is queued and end.
impl Drop for Inner {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|queue| queue.close());
    }
}

type Reply = oneshot::Receiver<Vec<Result<Answer, SubmitError>>>;

/// The lane ended without an answer: it has panicked, and what it was committing may or may not be there.
fn lost() -> SubmitError {
    SubmitError::OutcomeUnknown
}
