//! The read models' rows: where the fold stands, what it writes, what is asked of them. What they mean is in
//! [`crate::projection`].

use std::collections::{BTreeSet, HashMap};

use scrip_domain::{MemberId, TenantId, Timestamp};

use super::read::{EventPosition, ListedSql, Listing};
use super::table::{Change, Table, Type, Verb};
use super::value::{Param, Row};
use super::{Store, StoreError, Synced};
use crate::projection::{Above, FIRST_NARROW};

type Found<T> = Result<T, StoreError>;

/// What one fold adds to the read models.
#[derive(Debug, Default)]
pub struct Folded {
    /// By subject, day and name: how many, and how much in all.
    pub statistics: HashMap<(String, String, String), (i64, i64)>,
    /// The new scores, by board and member.
    pub scores: HashMap<(String, MemberId), i64>,
    /// How many members more are in a bucket, by board and bucket.
    pub buckets: HashMap<(String, i64), i64>,
    /// Members whose accounts were merged, and into whose.
    pub owners: HashMap<MemberId, MemberId>,
}

/// How far a tenant's events are folded, and when the last of them was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub position: EventPosition,
    pub as_of: Timestamp,
}

impl Progress {
    pub const START: Progress = Progress { position: EventPosition { tx: 0, ordinal: -1 }, as_of: Timestamp(0) };
}

/// A line of a subject's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistic {
    pub day: String,
    pub name: String,
    pub events: i64,
    pub amount: i64,
}

static STATISTIC: Table = Table {
    name: "stat_day",
    columns: &[
        ("tenant_id", Type::Uuid),
        ("subject", Type::Text),
        ("day", Type::Text),
        ("name", Type::Text),
        ("events", Type::Int),
        ("amount", Type::Int),
    ],
    key: 4,
    fixed: 4,
    on_conflict: Some("events = stat_day.events + excluded.events, amount = stat_day.amount + excluded.amount"),
};

static SCORE: Table = Table {
    name: "board_score",
    columns: &[("tenant_id", Type::Uuid), ("board", Type::Text), ("member_id", Type::Text), ("score", Type::Int)],
    key: 3,
    fixed: 3,
    on_conflict: Some("score = excluded.score"),
};

static BUCKET: Table = Table {
    name: "board_bucket",
    columns: &[("tenant_id", Type::Uuid), ("board", Type::Text), ("bucket", Type::Int), ("members", Type::Int)],
    key: 3,
    fixed: 3,
    on_conflict: Some("members = board_bucket.members + excluded.members"),
};

static OWNER: Table = Table {
    name: "board_owner",
    columns: &[("tenant_id", Type::Uuid), ("member_id", Type::Text), ("owner_id", Type::Text)],
    key: 2,
    fixed: 2,
    on_conflict: Some("owner_id = excluded.owner_id"),
};

/// Moves the fold on, unless another node has done so meanwhile: then no row is written.
pub(super) const ADVANCE: &str = "INSERT INTO projection (tenant_id, tx, ordinal, as_of) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (tenant_id) DO UPDATE SET tx = excluded.tx, ordinal = excluded.ordinal, as_of = excluded.as_of \
     WHERE projection.tx = $5 AND projection.ordinal = $6";

/// What a rebuild deletes.
pub(super) const READ_MODELS: &[&str] = &["projection", "stat_day", "board_score", "board_bucket", "board_owner"];

const TENANTS_TO_FOLD: &str = "SELECT t.tenant_id FROM tenant t LEFT JOIN projection p ON p.tenant_id = t.tenant_id \
     WHERE EXISTS (SELECT 1 FROM event e WHERE e.tenant_id = t.tenant_id \
     AND (e.tx, e.ordinal) > (coalesce(p.tx, 0), coalesce(p.ordinal, -1))) LIMIT $1";
const PROGRESS: &str = "SELECT tx, ordinal, as_of FROM projection WHERE tenant_id = $1";
const SCORE_OF: &str = "SELECT score FROM board_score WHERE tenant_id = $1 AND board = $2 AND member_id = $3";
// The index of ranks has the members whose score is not 0; a statement that wants it must say so, and not by `> 0`, which SQLite
// would take for the beginning of the range. The next condition on the score bounds the range, the last cuts its edge.
const BOARD_FROM: &str = "SELECT member_id, score FROM board_score WHERE tenant_id = $1 AND board = $2 AND score <> 0 \
     AND score <= $3 AND (score < $4 OR member_id > $5) ORDER BY score DESC, member_id LIMIT $6";
const BOARD_ABOVE: &str = "SELECT member_id, score FROM board_score WHERE tenant_id = $1 AND board = $2 \
     AND score <> 0 AND score >= $3 AND (score > $4 OR member_id < $5) ORDER BY score, member_id DESC LIMIT $6";
const BOARD_TIES: &str = "SELECT count(*) FROM board_score WHERE tenant_id = $1 AND board = $2 AND score <> 0 AND score = $3 AND member_id < $4";
const MEMBERS_ABOVE: &str = "SELECT CAST((SELECT coalesce(sum(members), 0) FROM board_bucket WHERE tenant_id = $1 \
     AND board = $2 AND bucket > $3 AND bucket < $4) + (SELECT coalesce(sum(members), 0) FROM board_bucket \
     WHERE tenant_id = $5 AND board = $6 AND bucket > $7 AND bucket < $8) + (SELECT count(*) FROM board_score \
     WHERE tenant_id = $9 AND board = $10 AND score <> 0 AND score > $11 AND score < $12) AS BIGINT)";
const BOARD_MEMBERS: &str = "SELECT CAST(coalesce(sum(members), 0) AS BIGINT) FROM board_bucket WHERE tenant_id = $1 \
     AND board = $2 AND bucket < $3";
const STATISTICS: &str = "SELECT day, name, events, amount FROM stat_day WHERE tenant_id = $1 AND subject = $2 \
     AND day >= $3 AND day <= $4 ORDER BY day, name";
const STATISTIC_TOTALS: &str = "SELECT name, CAST(sum(events) AS BIGINT), CAST(sum(amount) AS BIGINT) FROM stat_day \
     WHERE tenant_id = $1 AND subject = $2 GROUP BY name ORDER BY name";

/// The reads of the read models, by name: for the test of the plans.
pub(super) const HOT_QUERIES: [(&str, &str); 9] = [
    ("score", SCORE_OF),
    ("board_from", BOARD_FROM),
    ("board_above", BOARD_ABOVE),
    ("board_ties", BOARD_TIES),
    ("members_above", MEMBERS_ABOVE),
    ("board_members", BOARD_MEMBERS),
    ("statistics", STATISTICS),
    ("statistic_totals", STATISTIC_TOTALS),
    ("projection_progress", PROGRESS),
];

/// Those that name many keys at once.
pub(super) const LISTED_QUERIES: &[(&str, ListedSql)] =
    &[("owners", owners_sql), ("scores", scores_sql), ("scores_everywhere", scores_everywhere_sql)];

/// From each member to its owner, and on to the owner of that one.
fn owners_sql(listing: Listing) -> String {
    let owner_of = |member: &str| {
        format!(
            "SELECT {member}, (SELECT o.owner_id FROM board_owner o WHERE o.tenant_id = $1 AND o.member_id = {member})"
        )
    };
    format!(
        "WITH RECURSIVE due(member_id, owner_id) AS ({} FROM {} l UNION {} FROM due WHERE due.owner_id IS NOT NULL) \
         SELECT member_id, owner_id FROM due WHERE owner_id IS NOT NULL",
        owner_of("l.value"),
        listing.texts("$2"),
        owner_of("due.owner_id"),
    )
}

/// Of pairs of a board and a member.
fn scores_sql(listing: Listing) -> String {
    let listed = listing.lists("$2");
    format!(
        "SELECT s.board, s.member_id, s.score FROM (SELECT l.value ->> 0 AS board, l.value ->> 1 AS member_id, \
         (SELECT s.score FROM board_score s WHERE s.tenant_id = $1 AND s.board = l.value ->> 0 \
          AND s.member_id = l.value ->> 1) AS score FROM {listed} l) s WHERE s.score IS NOT NULL"
    )
}

/// From each board to the next, which takes as many steps in the index as there are boards; on each, every member's score.
fn scores_everywhere_sql(listing: Listing) -> String {
    let listed = listing.texts("$2");
    format!(
        "WITH RECURSIVE due(board) AS (SELECT (SELECT min(s.board) FROM board_score s WHERE s.tenant_id = $1) \
         UNION ALL SELECT (SELECT min(s.board) FROM board_score s WHERE s.tenant_id = $1 AND s.board > due.board) FROM due \
         WHERE due.board IS NOT NULL), listed(member_id) AS MATERIALIZED (SELECT l.value FROM {listed} l) \
         SELECT s.board, s.member_id, s.score FROM (SELECT due.board, listed.member_id, \
         (SELECT s.score FROM board_score s WHERE s.tenant_id = $1 AND s.board = due.board \
          AND s.member_id = listed.member_id) AS score FROM due CROSS JOIN listed WHERE due.board IS NOT NULL) s \
         WHERE s.score > 0"
    )
}

pub(super) fn changes(tenant: TenantId, folded: &Folded) -> Vec<Change<'_>> {
    let statistics = folded.statistics.iter().map(|((subject, day, name), (events, amount))| {
        vec![
            tenant.into(),
            subject.as_str().into(),
            day.as_str().into(),
            name.as_str().into(),
            (*events).into(),
            (*amount).into(),
        ]
    });
    let scores = folded
        .scores
        .iter()
        .map(|((board, member), score)| vec![tenant.into(), board.as_str().into(), member.into(), (*score).into()]);
    let moved = folded.buckets.iter().filter(|(_, change)| **change != 0);
    let buckets = moved.map(|((board, bucket), change)| {
        vec![tenant.into(), board.as_str().into(), (*bucket).into(), (*change).into()]
    });
    let owners = folded.owners.iter().map(|(member, owner)| vec![tenant.into(), member.into(), owner.into()]);
    let all: [(&'static Table, Vec<Vec<Param<'_>>>); 4] = [
        (&STATISTIC, statistics.collect()),
        (&SCORE, scores.collect()),
        (&BUCKET, buckets.collect()),
        (&OWNER, owners.collect()),
    ];
    all.into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(table, rows)| Change { table, verb: Verb::Insert, rows })
        .collect()
}

fn score(row: &Row) -> Found<((String, MemberId), i64)> {
    Ok(((row.text(0)?, row.caller_id(1)?), row.int(2)?))
}

impl Store {
    /// Tenants that have events beyond what is folded, at most `limit`.
    pub async fn tenants_to_fold(&self, limit: i64) -> Found<Vec<TenantId>> {
        self.query(TENANTS_TO_FOLD, &[limit.into()], |row| row.tenant(0)).await
    }

    pub async fn projection_progress(&self, tenant: TenantId) -> Found<Progress> {
        let decode = |row: &Row| {
            let position = EventPosition { tx: row.int(0)?, ordinal: row.int(1)? };
            Ok(Progress { position, as_of: row.time(2)? })
        };
        Ok(self.first(PROGRESS, &[tenant.into()], decode).await?.unwrap_or(Progress::START))
    }

    /// Writes a fold together with its progress. False when another node has folded these events.
    pub async fn fold(&self, tenant: TenantId, from: EventPosition, to: Progress, folded: &Folded) -> Found<bool> {
        let advance = [
            tenant.into(),
            to.position.tx.into(),
            to.position.ordinal.into(),
            to.as_of.into(),
            from.tx.into(),
            from.ordinal.into(),
        ];
        let changes = changes(tenant, folded);
        match self {
            Store::Sqlite(store) => store.write_after(ADVANCE, &advance, &changes, Synced::Later),
            Store::Postgres(store) => store.write_after(ADVANCE, &advance, &changes, Synced::Later).await,
        }
    }

    /// Deletes a tenant's read models; the fold makes them anew from the first event.
    pub async fn forget_read_models(&self, tenant: TenantId) -> Found<()> {
        for table in READ_MODELS {
            self.execute(&format!("DELETE FROM {table} WHERE tenant_id = $1"), &[tenant.into()]).await?;
        }
        Ok(())
    }

    /// Into whose accounts those of these members were merged, and those into whose they were merged on: one statement, however
    /// many. Who is not merged is missing.
    pub async fn board_owners(
        &self,
        tenant: TenantId,
        members: &BTreeSet<&MemberId>,
    ) -> Found<HashMap<MemberId, MemberId>> {
        let decode = |row: &Row| Ok((row.caller_id(0)?, row.caller_id(1)?));
        self.listed(owners_sql, &[tenant.into()], members, decode).await
    }

    /// The scores these members have now on these boards, by one statement; those without one are missing.
    pub async fn scores(
        &self,
        tenant: TenantId,
        keys: &BTreeSet<&(String, MemberId)>,
    ) -> Found<HashMap<(String, MemberId), i64>> {
        self.listed(scores_sql, &[tenant.into()], keys, score).await
    }

    /// The scores above 0 that these members have now on any board, by one statement.
    pub async fn scores_everywhere(
        &self,
        tenant: TenantId,
        members: &BTreeSet<&MemberId>,
    ) -> Found<HashMap<(String, MemberId), i64>> {
        self.listed(scores_everywhere_sql, &[tenant.into()], members, score).await
    }

    pub async fn score(&self, tenant: TenantId, board: &str, member: &MemberId) -> Found<Option<i64>> {
        self.first(SCORE_OF, &[tenant.into(), board.into(), member.into()], |row| row.int(0)).await
    }

    /// A board from the top, or from below a place on it.
    pub async fn board_from(
        &self,
        tenant: TenantId,
        board: &str,
        after: Option<(i64, &MemberId)>,
        limit: i64,
    ) -> Found<Vec<(MemberId, i64)>> {
        let (score, member) = after.map_or((i64::MAX, ""), |(score, member)| (score, member.as_str()));
        let parameters = [tenant.into(), board.into(), score.into(), score.into(), member.into(), limit.into()];
        self.query(BOARD_FROM, &parameters, |row| Ok((row.caller_id(0)?, row.int(1)?))).await
    }

    /// Those just above a place on a board, nearest first.
    pub async fn board_above(
        &self,
        tenant: TenantId,
        board: &str,
        (score, member): (i64, &MemberId),
        limit: i64,
    ) -> Found<Vec<(MemberId, i64)>> {
        let parameters = [tenant.into(), board.into(), score.into(), score.into(), member.into(), limit.into()];
        self.query(BOARD_ABOVE, &parameters, |row| Ok((row.caller_id(0)?, row.int(1)?))).await
    }

    /// How many members of a board have a higher score than the one in question.
    pub async fn members_above(&self, tenant: TenantId, board: &str, above: Above) -> Found<i64> {
        let ranges = [(above.wide, FIRST_NARROW), above.narrow, above.scores];
        let parameters: Vec<Param<'_>> = ranges
            .into_iter()
            .flat_map(|(after, before)| [tenant.into(), board.into(), after.into(), before.into()])
            .collect();
        Ok(self.first(MEMBERS_ABOVE, &parameters, |row| row.int(0)).await?.unwrap_or(0))
    }

    /// How many members share a score and stand before `member` on the board.
    pub async fn board_ties_before(&self, tenant: TenantId, board: &str, score: i64, member: &MemberId) -> Found<i64> {
        let parameters = [tenant.into(), board.into(), score.into(), member.into()];
        Ok(self.first(BOARD_TIES, &parameters, |row| row.int(0)).await?.unwrap_or(0))
    }

    /// How many members a board has.
    pub async fn board_members(&self, tenant: TenantId, board: &str) -> Found<i64> {
        Ok(self
            .first(BOARD_MEMBERS, &[tenant.into(), board.into(), FIRST_NARROW.into()], |row| row.int(0))
            .await?
            .unwrap_or(0))
    }

    /// A subject's statistics of the days from `from` to `to`, both included.
    pub async fn statistics(&self, tenant: TenantId, subject: &str, from: &str, to: &str) -> Found<Vec<Statistic>> {
        let decode = |row: &Row| {
            Ok(Statistic { day: row.text(0)?, name: row.text(1)?, events: row.int(2)?, amount: row.int(3)? })
        };
        self.query(STATISTICS, &[tenant.into(), subject.into(), from.into(), to.into()], decode).await
    }

    /// A subject's statistics over all days, by name; `day` is empty.
    pub async fn statistic_totals(&self, tenant: TenantId, subject: &str) -> Found<Vec<Statistic>> {
        let decode = |row: &Row| {
            Ok(Statistic { day: String::new(), name: row.text(0)?, events: row.int(1)?, amount: row.int(2)? })
        };
        self.query(STATISTIC_TOTALS, &[tenant.into(), subject.into()], decode).await
    }
}
