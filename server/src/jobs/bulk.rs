//! Works a bulk off, chunk by chunk. The cursor is the bulk's own and moves in the transaction of each chunk, so a run may
//! stop anywhere, and two runs at once would only refuse each other's chunks.

use std::time::{Duration, Instant};

use scrip_domain::bulk::{Bulk, BulkStatus};
use scrip_domain::{BulkId, Command, Outcome};
use serde::Deserialize;
use serde_json::json;

use super::runner::{Done, JobError, Run};
use crate::bulk::work_of;
use crate::store::bulk::StoredChunk;

/// Between two notes of how far it has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Payload {
    bulk_id: BulkId,
}

/// # Errors
/// What stopped it; it goes on from there.
pub async fn work_off(run: &Run) -> Result<Done, JobError> {
    let Payload { bulk_id } = run.payload()?;
    let mut bulk = find(run, bulk_id).await?;
    let mut next = chunk(run, &bulk, bulk.next_chunk).await?;
    let mut noted_at: Option<Instant> = None;
    while bulk.status == BulkStatus::Running {
        run.check_stopping()?;
        let Some(current) = next.take().filter(|chunk| chunk.number == bulk.next_chunk) else {
            next = Some(chunk(run, &bulk, bulk.next_chunk).await?.ok_or_else(|| missing(&bulk))?);
            continue;
        };
        let work = work_of(&current, bulk.template_id)?;
        let command = Command::WorkChunk { bulk_id, number: current.number, work: Box::new(work) };
        // The next chunk is read while this one is worked off.
        let (worked, read) = tokio::join!(run.step(command, bulk.actor), chunk(run, &bulk, current.number + 1));
        next = read?;
        bulk = match worked {
            Ok(Outcome::Bulk(bulk)) => *bulk,
            Ok(_) => return Err(JobError::Failed("a chunk was answered with something else".into())),
            // Somebody else has done it, or the bulk was cancelled: look again.
            Err(JobError::Refused(code)) if code == "BULK_MOVED" => find(run, bulk_id).await?,
            Err(error) => return Err(error),
        };
        if noted_at.is_none_or(|at| at.elapsed() >= NOTE_EVERY) {
            run.record_progress(&progress(&bulk)).await?;
            noted_at = Some(Instant::now());
        }
    }
    Ok(Done::With(Some(progress(&bulk))))
}

async fn find(run: &Run, id: BulkId) -> Result<Bulk, JobError> {
    let found = run.store.find_bulk(run.tenant(), id).await?;
    found.ok_or_else(|| JobError::Refused("there is no such bulk".into()))
}

async fn chunk(run: &Run, bulk: &Bulk, number: i64) -> Result<Option<StoredChunk>, JobError> {
    Ok(run.store.chunks(run.tenant(), bulk.id, number, None, 1).await?.pop())
}

fn missing(bulk: &Bulk) -> JobError {
    JobError::Refused(format!("chunk {} is missing", bulk.next_chunk))
}

fn progress(bulk: &Bulk) -> String {
    let Bulk { rows, accepted, refused, skipped, .. } = bulk;
    json!({ "rows": rows, "accepted": accepted, "refused": refused, "skipped": skipped }).to_string()
}
