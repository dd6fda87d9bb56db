//! Bulks: many rows worked off in the background, in chunks. A distribution gives coupons of a template to many members; an
//! import of grants credits points to many.
//!
//! The rows are staged before the bulk exists, in numbered chunks that never change. One command works off one chunk: every
//! row is judged by the same rules as a single command, and the chunk's effects, its results and the bulk's cursor are one
//! transaction. So a bulk can be left off anywhere and gone on with anywhere, and no row counts twice: a chunk that is not
//! the next one is refused.
//!
//! ```text
//! rows = accepted + refused + skipped + those of the chunks from next_chunk on       (skipped: duplicates, unreadable rows)
//! ```

use serde::{Deserialize, Serialize};

use crate::command::{Envelope, Movement};
use crate::coupon::{self, CouponSource};
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{BulkId, Ids, JobId, KeyId, MemberId, TemplateId};
use crate::job::{self, Job, JobKind};
use crate::points::{self, Spendable};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// The most rows of one bulk.
pub const MAX_ROWS: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BulkKind {
    Distribution,
    PointsGrants,
}

impl BulkKind {
    pub const ALL: [BulkKind; 2] = [BulkKind::Distribution, BulkKind::PointsGrants];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            BulkKind::Distribution => "DISTRIBUTION",
            BulkKind::PointsGrants => "POINTS_GRANTS",
        }
    }

    pub fn parse(text: &str) -> Option<BulkKind> {
        BulkKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BulkStatus {
    Running,
    Done,
    Cancelled,
}

impl BulkStatus {
    pub const ALL: [BulkStatus; 3] = [BulkStatus::Running, BulkStatus::Done, BulkStatus::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            BulkStatus::Running => "RUNNING",
            BulkStatus::Done => "DONE",
            BulkStatus::Cancelled => "CANCELLED",
        }
    }

    pub fn parse(text: &str) -> Option<BulkStatus> {
        BulkStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    pub id: BulkId,
    pub kind: BulkKind,
    /// Set for, and only for, a distribution.
    pub template_id: Option<TemplateId>,
    pub rows: i64,
    pub chunks: i64,
    /// Rows that were set aside before the bulk began: duplicates and those that cannot be read.
    pub skipped: i64,
    /// The API key that asked for it.
    pub actor: Option<KeyId>,
    pub created_at: Timestamp,
    pub status: BulkStatus,
    /// The cursor: chunks before this one are worked off.
    pub next_chunk: i64,
    pub accepted: i64,
    pub refused: i64,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// When its rows and their results went, after their time; the counts stay.
    #[serde(default)]
    pub results_dropped_at: Option<Timestamp>,
}

impl Bulk {
    /// The job that works it off.
    pub fn job_id(&self) -> JobId {
        JobId(self.id.0)
    }
}

/// What staging has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    pub rows: i64,
    pub chunks: i64,
    pub skipped: i64,
}

/// Who is to get a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub member_id: MemberId,
    pub member_level: Option<String>,
}

/// Who is to get how many points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    pub member_id: MemberId,
    pub movement: Movement,
    pub expires_at: Option<Timestamp>,
}

/// The rows of a chunk that are not skipped, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkWork {
    Issue { template_id: TemplateId, recipients: Vec<Recipient> },
    Grant(Vec<GrantRow>),
}

/// What came of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkResult {
    pub bulk_id: BulkId,
    pub number: i64,
    /// For each row that was not skipped, in their order: the id of what was made, or the code of the refusal. A JSON array.
    pub outcomes: String,
    pub accepted: i64,
    pub refused: i64,
}

/// Begins a bulk whose rows are staged under `id`.
pub fn create(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: BulkId,
    template_id: Option<TemplateId>,
    staged: Staged,
) -> Result<Outcome, Rejection> {
    if let Some(template_id) = template_id {
        state.template(envelope.tenant, template_id)?;
    }
    let bulk = Bulk {
        id,
        kind: if template_id.is_some() { BulkKind::Distribution } else { BulkKind::PointsGrants },
        template_id,
        rows: staged.rows,
        chunks: staged.chunks,
        skipped: staged.skipped,
        actor: envelope.actor,
        created_at: envelope.now,
        status: BulkStatus::Running,
        next_chunk: 0,
        accepted: 0,
        refused: 0,
        updated_at: envelope.now,
        finished_at: None,
        results_dropped_at: None,
    };
    let payload = format!("{{\"bulk_id\":\"{id}\"}}");
    state.insert_job(envelope.tenant, Job::new(bulk.job_id(), JobKind::Bulk, payload, envelope.now));
    state.insert_bulk(envelope.tenant, bulk.clone());
    record(state, envelope, ids, EventKind::BulkCreated, &bulk);
    Ok(Outcome::Bulk(Box::new(bulk)))
}

/// Works off one chunk, which must be the next.
///
/// # Errors
/// [`Rejection::BulkMoved`] when it is not; then somebody else has done it, or the bulk was cancelled.
pub fn work_chunk(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: BulkId,
    number: i64,
    work: &ChunkWork,
) -> Result<Outcome, Interrupt> {
    let mut bulk = state.bulk(envelope.tenant, id)?.clone();
    if bulk.status != BulkStatus::Running || bulk.next_chunk != number {
        return Err(Rejection::BulkMoved.into());
    }
    let mut result = ChunkResult { bulk_id: id, number, outcomes: String::from("["), accepted: 0, refused: 0 };
    match work {
        ChunkWork::Issue { template_id, recipients } => {
            let origin = format!(",\"bulk_id\":\"{id}\"");
            for Recipient { member_id, member_level } in recipients {
                let (level, source) = (member_level.as_deref(), CouponSource::Distribution);
                let issued = coupon::issue(state, envelope, ids, *template_id, member_id, level, source, &origin);
                result.add(issued.map(|coupon| coupon.id.to_string()))?;
            }
        }
        ChunkWork::Grant(grants) => {
            // What a grant may need must be at hand before the first one changes anything.
            for GrantRow { member_id, movement, .. } in grants {
                points::require_lots(state, envelope, member_id, 0)?;
                if movement.kind.is_activity() {
                    points::require_activity(state, envelope, member_id, None)?;
                }
            }
            for GrantRow { member_id, movement, expires_at } in grants {
                let spendable = Spendable { expires_at: *expires_at, ..Spendable::default() };
                let granted = match points::refuse_unapproved(state, envelope, movement) {
                    Ok(()) => points::grant(state, envelope, ids, member_id, movement, spendable),
                    Err(rejection) => Err(rejection.into()),
                };
                result.add(granted.map(|outcome| match outcome {
                    Outcome::Transaction(transaction) => transaction.id.to_string(),
                    _ => String::new(),
                }))?;
            }
        }
    }
    result.outcomes.push(']');
    bulk.next_chunk += 1;
    bulk.accepted += result.accepted;
    bulk.refused += result.refused;
    bulk.updated_at = envelope.now;
    state.record_chunk(envelope.tenant, result);
    if bulk.next_chunk == bulk.chunks {
        end(&mut bulk, BulkStatus::Done, envelope.now);
        record(state, envelope, ids, EventKind::BulkFinished, &bulk);
    }
    state.save_bulk(envelope.tenant, bulk.clone());
    Ok(Outcome::Bulk(Box::new(bulk)))
}

impl ChunkResult {
    /// Adds a row's result. A need for more rows is none: it comes before anything has changed, and the chunk is decided
    /// again.
    fn add(&mut self, made: Result<String, impl Into<Interrupt>>) -> Result<(), Interrupt> {
        if self.outcomes.len() > 1 {
            self.outcomes.push(',');
        }
        self.outcomes.push('"');
        match made.map_err(Into::into) {
            Ok(id) => {
                self.accepted += 1;
                self.outcomes.push_str(&id);
            }
            Err(Interrupt::Refused(rejection)) => {
                self.refused += 1;
                self.outcomes.push_str(rejection.code());
            }
            Err(needed) => return Err(needed),
        }
        self.outcomes.push('"');
        Ok(())
    }
}

/// RUNNING -> CANCELLED. What is worked off stays so; a bulk that is over is left as it is.
pub fn cancel(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: BulkId) -> Result<Outcome, Rejection> {
    let mut bulk = state.bulk(envelope.tenant, id)?.clone();
    if bulk.status == BulkStatus::Running {
        end(&mut bulk, BulkStatus::Cancelled, envelope.now);
        record(state, envelope, ids, EventKind::BulkCancelled, &bulk);
        state.save_bulk(envelope.tenant, bulk.clone());
        // Deleted after its time, perhaps, when it is dead.
        if let Ok(mut job) = state.job(envelope.tenant, bulk.job_id()).cloned() {
            job::stop(state, envelope, &mut job);
        }
    }
    Ok(Outcome::Bulk(Box::new(bulk)))
}

fn end(bulk: &mut Bulk, status: BulkStatus, now: Timestamp) {
    bulk.status = status;
    bulk.updated_at = now;
    bulk.finished_at = Some(now);
}

fn record(state: &mut State, envelope: &Envelope, ids: &mut Ids, kind: EventKind, bulk: &Bulk) {
    let data = format!(
        "{{\"kind\":\"{}\",\"rows\":{},\"accepted\":{},\"refused\":{},\"skipped\":{}}}",
        bulk.kind.as_str(),
        bulk.rows,
        bulk.accepted,
        bulk.refused,
        bulk.skipped
    );
    state.record_event(envelope, ids, envelope.now, kind, bulk.id.0, None, data);
}
