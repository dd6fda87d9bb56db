//! J: jobs against their own states, and against what they have done.

use scrip_domain::job::{CouponExtension, JobKind, JobState, PointsGrant};
use serde_json::{Map, Value};

use super::{Dialect, Group, Reading, check, differs, says};

pub fn group(dialect: Dialect) -> Group {
    // {"transaction_id":"ptx_..."} is all that a grant's progress holds.
    let made = match dialect {
        Dialect::Sqlite => "unhex(substr(j.progress, 24, 32))",
        Dialect::Postgres => {
            "CASE WHEN substr(j.progress, 24, 32) ~ '^[0-9a-f]{32}$' THEN CAST(substr(j.progress, 24, 32) AS uuid) END"
        }
    };
    let is_made = "j.kind = 'POINTS_GRANT' AND j.state = 'DONE'";
    let rows = format!(
        "job j LEFT JOIN tenant t ON t.tenant_id = j.tenant_id \
         LEFT JOIN mkt_points_transaction p ON p.tenant_id = j.tenant_id AND p.id = CASE WHEN {is_made} THEN {made} END"
    );
    let names = |names: Vec<&str>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let kinds = names(JobKind::ALL.iter().map(|kind| kind.as_str()).collect());
    let pools = JobKind::ALL.iter().map(|kind| format!("WHEN '{}' THEN '{}'", kind.as_str(), kind.pool().as_str()));
    let pool = format!("CASE j.kind {} END", pools.collect::<Vec<_>>().join(" "));
    let states = names(JobState::ALL.iter().map(|state| state.as_str()).collect());
    let checks = vec![
        check(
            "J1",
            "a job has a lease while it runs, and only then",
            "(j.state = 'RUNNING') <> (j.lease_holder IS NOT NULL) OR (j.lease_holder IS NULL) <> (j.lease_until IS NULL)",
            "j.state || ' until ' || coalesce(CAST(j.lease_until AS text), 'nothing')",
        ),
        check(
            "J2",
            "a job has ended when its state says so, and not before it was made; a dead one says why",
            format!(
                "j.state NOT IN ({states}) OR (j.state IN ('QUEUED', 'RUNNING')) <> (j.finished_at IS NULL) \
                 OR j.finished_at < j.created_at OR j.updated_at < j.created_at \
                 OR (j.state = 'DEAD' AND j.last_error IS NULL)"
            ),
            "j.state || ', ended at ' || coalesce(CAST(j.finished_at AS text), 'nothing')",
        ),
        check(
            "J3",
            "a job belongs to a tenant, or is a pass of the server that recurs",
            "(t.tenant_id IS NULL) <> (j.every IS NOT NULL)",
            says("its tenant does not exist, or it recurs"),
        ),
        check(
            "J4",
            "a job has no more attempts than it may have, nor more than claims",
            "j.attempts < 0 OR j.attempts > j.fence OR (j.every IS NULL AND j.attempts > j.max_attempts)",
            differs("attempts", "j.attempts", "j.max_attempts || ' or less, of ' || j.fence || ' claims'"),
        ),
        check(
            "J5",
            "a job's kind is known, and its slots are those of the kind",
            format!("j.kind NOT IN ({kinds}) OR j.pool IS DISTINCT FROM {pool}"),
            "j.kind || ' in ' || j.pool",
        ),
        check(
            "J6",
            "a grant made by a job is there",
            format!("{is_made} AND (p.id IS NULL OR p.points < 1)"),
            "j.progress",
        ),
    ];
    Group { with: String::new(), rows, owner: Some("j"), key: dialect.id("job_", "j.id"), checks }
}

/// What only this program can read.
pub fn reading(dialect: Dialect) -> Reading {
    Reading {
        id: "J7",
        title: "what jobs are to do, and how far they have come, can be read",
        sql: format!(
            "SELECT j.tenant_id, {} AS key, j.kind, j.payload, j.progress FROM job j",
            dialect.id("job_", "j.id")
        ),
        judge: |row| {
            let payload = match JobKind::parse(&row.text(2)?) {
                Some(JobKind::PointsGrant) => row.json::<PointsGrant>(3).err(),
                Some(JobKind::ExtendCoupons) => row.json::<CouponExtension>(3).err(),
                _ => row.json::<Map<String, Value>>(3).err(),
            };
            let unreadable = payload.or(row.json::<Map<String, Value>>(4).err());
            Ok(unreadable.map(|error| error.to_string()))
        },
    }
}
