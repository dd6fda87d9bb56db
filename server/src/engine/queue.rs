//! A lane's queue: bounded, and fair between tenants.
//!
//! Batches are filled round robin, one request of each tenant that waits after the other, so a tenant that sends ten times
//! its share lengthens its own queue and not its neighbours' wait. Within a tenant the order is kept. A program is a tenant here: a
//! flood of one does not hold up its siblings.
//!
//! The bound is shared by dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
//! Switches", 1998): a tenant may wait with at most [`SHARE`] times as many requests as there is room left. One tenant alone
//! can fill 8/9 of the queue, `n` greedy ones leave `1/(1 + 8n)` of it to whoever comes next.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use scrip_domain::TenantId;
use tokio::sync::Notify;

use super::lane::Job;

const SHARE: usize = 8;

/// Why a request was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    Full,
    /// The lane has ended.
    Closed,
}

pub(super) struct FairQueue {
    inner: Mutex<Inner>,
    ready: Notify,
    max: usize,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<TenantId, VecDeque<Job>>,
    /// The tenants that wait, whose turn it is first.
    turns: VecDeque<TenantId>,
    len: usize,
    closed: bool,
}

impl FairQueue {
    pub fn new(max: usize) -> Self {
        FairQueue { inner: Mutex::default(), ready: Notify::new(), max }
    }

    pub fn push(&self, tenant: TenantId, job: Job) -> Result<(), NotQueued> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(NotQueued::Closed);
        }
        let room = self.max.saturating_sub(inner.len);
        let waiting = inner.waiting.entry(tenant).or_default();
        if room == 0 || waiting.len() >= SHARE.saturating_mul(room) {
            if waiting.is_empty() {
                inner.waiting.remove(&tenant);
            }
            return Err(NotQueued::Full);
        }
        let is_first = waiting.is_empty();
        waiting.push_back(job);
        inner.len += 1;
        if is_first {
            inner.turns.push_back(tenant);
        }
        drop(inner);
        self.ready.notify_one();
        Ok(())
    }

    /// What is queued, up to `max_commands` (more when a single request has more); waits while there is nothing. `None` once
    /// the queue is closed and empty. For one consumer.
    pub async fn next_batch(&self, max_commands: usize) -> Option<Vec<Job>> {
        loop {
            {
                let mut inner = self.inner.lock();
                let batch = inner.take(max_commands);
                if !batch.is_empty() {
                    return Some(batch);
                }
                if inner.closed {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Lets nothing more in; what is queued is still handed out.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.ready.notify_one();
    }

    /// Closes and drops what is queued: whoever waits for an answer learns that none will come.
    pub fn abandon(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner { closed: true, ..Inner::default() };
    }
}

impl Inner {
    fn take(&mut self, max_commands: usize) -> Vec<Job> {
        let (mut batch, mut commands) = (Vec::new(), 0);
        while let Some(tenant) = self.turns.front().copied() {
            let Some(waiting) = self.waiting.get_mut(&tenant) else {
                self.turns.pop_front();
                continue;
            };
            let size = waiting.front().map_or(0, |job| job.commands.len());
            if !batch.is_empty() && commands + size > max_commands {
                break;
            }
            self.turns.pop_front();
            if let Some(job) = waiting.pop_front() {
                commands += size;
                self.len -= 1;
                batch.push(job);
            }
            if waiting.is_empty() {
                self.waiting.remove(&tenant);
            } else {
                self.turns.push_back(tenant);
            }
            if commands >= max_commands {
                break;
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use scrip_domain::{Command, Envelope, IdSeed, MemberId, Timestamp};
    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    /// A request of `size` commands; its number is in the seed of each.
    fn job(tenant: TenantId, number: u64, size: usize) -> Job {
        let member: MemberId = "m".parse().expect("a member");
        let envelope = Envelope {
            tenant,
            actor: None,
            command: Command::SettleAccount(member),
            idempotency: None,
            at: Timestamp(0),
            now: Timestamp(0),
            seed: IdSeed { unix_ms: number, random: 0 },
        };
        let commands = vec![envelope; size];
        Job { commands, queued_at: Instant::now(), deadline: Duration::MAX, reply: oneshot::channel().0 }
    }

    /// Tenant and number of each request in a batch.
    fn names(batch: &[Job]) -> Vec<(u128, u64)> {
        let name = |job: &Job| (job.commands[0].tenant.0.as_u128(), job.commands[0].seed.unix_ms);
        batch.iter().map(name).collect()
    }

    #[tokio::test]
    async fn tenants_take_turns_and_keep_their_order() {
        let queue = FairQueue::new(100);
        for number in 0..5 {
            queue.push(tenant(1), job(tenant(1), number, 1)).expect("room");
        }
        queue.push(tenant(2), job(tenant(2), 0, 1)).expect("room");
        queue.push(tenant(3), job(tenant(3), 0, 1)).expect("room");
        let batch = queue.next_batch(4).await.expect("a batch");
        assert_eq!(names(&batch), [(1, 0), (2, 0), (3, 0), (1, 1)]);
        let batch = queue.next_batch(4).await.expect("a batch");
        assert_eq!(names(&batch), [(1, 2), (1, 3), (1, 4)]);
    }

    #[tokio::test]
    async fn a_batch_is_no_larger_than_asked_unless_one_request_is() {
        let queue = FairQueue::new(100);
        for (number, size) in [(0, 3), (1, 3), (2, 9), (3, 1)] {
            queue.push(tenant(1), job(tenant(1), number, size)).expect("room");
        }
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(names(&queue.next_batch(6).await.expect("a batch")).len());
        }
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[tokio::test]
    async fn one_tenant_fills_most_of_the_queue_and_leaves_room_for_others() {
        let queue = FairQueue::new(90);
        let fill = |number: u128| {
            (0..1_000).take_while(|n| queue.push(tenant(number), job(tenant(number), *n, 1)).is_ok()).count()
        };
        assert_eq!(fill(1), 80);
        assert!(fill(2) > 0 && fill(3) > 0, "whoever comes next finds room");
        assert!(queue.inner.lock().len <= 90);
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_what_it_has_and_ends() {
        let queue = FairQueue::new(10);
        queue.push(tenant(1), job(tenant(1), 0, 1)).expect("room");
        queue.close();
        assert_eq!(queue.push(tenant(1), job(tenant(1), 1, 1)), Err(NotQueued::Closed));
        assert!(queue.next_batch(10).await.is_some());
        assert!(queue.next_batch(10).await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_consumer_wakes() {
        let queue = std::sync::Arc::new(FairQueue::new(10));
        let consumer = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next_batch(10).await.map(|batch| batch.len()) }
        });
        tokio::task::yield_now().await;
        queue.push(tenant(1), job(tenant(1), 0, 1)).expect("room");
        assert_eq!(consumer.await.expect("the consumer ends"), Some(1));
    }
}
