//! Lets a template's coupons end later, page by page. The cursor and the counts are the job's own progress and move in the
//! transaction of each page, so a run may stop anywhere and no coupon counts twice.

use scrip_domain::coupon::{Coupon, CouponStatus};
use scrip_domain::job::{CouponExtension, ExtensionPage, ExtensionProgress};
use scrip_domain::{Command, Outcome};

use super::runner::{Done, JobError, Run};

/// Coupons looked at in one transaction.
const PAGE: i64 = 500;

/// # Errors
/// The first failure; another run goes on from there.
pub async fn extend_coupons(run: &Run) -> Result<Done, JobError> {
    let extension: CouponExtension = run.payload()?;
    let mut progress = progress_of(&run.job().progress);
    loop {
        run.check_stopping()?;
        let after = progress.after.as_ref().map(|(member, sequence)| (member, *sequence));
        let coupons = run.store.scan_coupons_of(run.tenant(), extension.template_id, after, PAGE).await?;
        let Some(last) = coupons.last() else { break };
        let page = ExtensionPage {
            number: progress.pages,
            seen: coupons.len() as i64,
            last: (last.member_id.clone(), last.sequence),
            coupon_ids: coupons.iter().filter(|coupon| is_meant(coupon, &extension)).map(|coupon| coupon.id).collect(),
        };
        let command = Command::ExtendPage { job_id: run.job().id, page: Box::new(page) };
        progress = match run.step(command, extension.actor).await {
            Ok(Outcome::Job(job)) => progress_of(&job.progress),
            Ok(_) => return Err(JobError::Failed("a page was answered with something else".into())),
            Err(JobError::Refused(code)) if code == "JOB_LEASE_LOST" => return Err(JobError::Lost),
            Err(error) => return Err(error),
        };
        run.has_progressed();
    }
    let progress = ExtensionProgress { after: None, ..progress };
    Ok(Done::With(Some(serde_json::to_string(&progress).map_err(|error| JobError::Failed(error.to_string()))?)))
}

fn progress_of(text: &str) -> ExtensionProgress {
    serde_json::from_str(text).unwrap_or_default()
}

fn is_meant(coupon: &Coupon, extension: &CouponExtension) -> bool {
    matches!(coupon.status, CouponStatus::Available | CouponStatus::Locked)
        && coupon.valid_until < extension.valid_until
        && extension.ends_before.is_none_or(|end| coupon.valid_until < end)
}
