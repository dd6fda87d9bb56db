//! Lets a template's coupons end later: page after page, and from the last page on when another server takes over.

use scrip_domain::coupon::{Coupon, CouponStatus};
use scrip_domain::job::CouponExtension;
use scrip_domain::{Answer, Command, CouponId, Envelope, MemberId};
use serde::{Deserialize, Serialize};

use super::runner::{Done, JobError, Run};
use crate::clock;

/// Coupons looked at between two notes of the progress.
const PAGE: i64 = 500;

/// How far it has come, as the job shows it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Coupons looked at.
    seen: u64,
    extended: u64,
    /// Those that were used, revoked or over by the time their turn came.
    refused: u64,
    /// The last coupon looked at, by its member and its number among the member's coupons of the template.
    after: Option<(MemberId, i64)>,
}

/// Extends the coupons of a page, notes the page, and goes on. A page that was extended and not noted is met again, and has
/// nothing left to extend.
///
/// # Errors
/// The first failure.
pub async fn extend_coupons(run: &Run) -> Result<Done, JobError> {
    let extension: CouponExtension = run.payload()?;
    let mut progress: Progress = serde_json::from_str(&run.job().progress).unwrap_or_default();
    loop {
        run.check_stopping()?;
        let after = progress.after.as_ref().map(|(member, sequence)| (member, *sequence));
        let page = run.store.scan_coupons_of(run.tenant(), extension.template_id, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        let due = page.iter().filter(|coupon| is_meant(coupon, &extension)).map(|coupon| coupon.id);
        let commands: Vec<Envelope> = due.map(|id| extend(run, id, &extension)).collect();
        progress.seen += page.len() as u64;
        progress.after = Some((last.member_id.clone(), last.sequence));
        for answer in run.engine.submit_all(commands).await {
            match answer? {
                Answer::Accepted { .. } => progress.extended += 1,
                Answer::Refused(_) => progress.refused += 1,
            }
        }
        run.record_progress(&told(&progress)?).await?;
    }
    progress.after = None;
    Ok(Done::With(Some(told(&progress)?)))
}

fn is_meant(coupon: &Coupon, extension: &CouponExtension) -> bool {
    matches!(coupon.status, CouponStatus::Available | CouponStatus::Locked)
        && coupon.valid_until < extension.valid_until
        && extension.ends_before.is_none_or(|end| coupon.valid_until < end)
}

fn extend(run: &Run, coupon_id: CouponId, extension: &CouponExtension) -> Envelope {
    let now = clock::now();
    Envelope {
        tenant: run.tenant(),
        actor: extension.actor,
        command: Command::ExtendCoupon { coupon_id, valid_until: extension.valid_until },
        idempotency: None,
        at: now,
        now,
        seed: clock::seed(now),
    }
}

fn told(progress: &Progress) -> Result<String, JobError> {
    serde_json::to_string(progress).map_err(|error| JobError::Failed(error.to_string()))
}
