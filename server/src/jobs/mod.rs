//! Background work: the runner, and what each kind of job does.

mod bulk;
pub mod expire;
pub mod extend;
pub mod housekeeping;
pub mod members;
pub mod runner;

use std::sync::Arc;

use scrip_domain::Command;
use scrip_domain::job::{JobKind, PointsGrant};

use housekeeping::HousekeepingOptions;
use runner::{Done, Handler, JobError, Run};

/// Does whatever a job may ask for.
pub fn handler(options: HousekeepingOptions) -> Handler {
    let options = Arc::new(options);
    Arc::new(move |run| {
        let options = options.clone();
        Box::pin(async move { work(&run, &options).await })
    })
}

async fn work(run: &Run, options: &HousekeepingOptions) -> Result<Done, JobError> {
    match run.job().kind {
        JobKind::Sweep => housekeeping::sweep_all(run).await,
        JobKind::Windows => housekeeping::announce_all(run).await,
        JobKind::Purge => housekeeping::purge_all(run, options).await,
        JobKind::PointsGrant => grant_points(run).await,
        JobKind::ExtendCoupons => extend::extend_coupons(run).await,
        JobKind::Bulk => bulk::work_off(run).await,
    }
}

/// The grant and the end of its job are one transaction, so there is one grant however often this runs.
async fn grant_points(run: &Run) -> Result<Done, JobError> {
    let PointsGrant { member_id, movement, spendable, effective_at, actor } = run.payload()?;
    run.conclude(Command::Grant { member_id, movement, spendable }, actor, effective_at).await
}
