//! B: bulks against their chunks, and against what they have made.

use super::{Dialect, Group, Reading, check, differs, equal, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![bulks(dialect), chunks(dialect), made(dialect)]
}

fn bulks(dialect: Dialect) -> Group {
    // The data of a distribution's claim ends with the bulk's id: ..."bulk_id":"blk_<32 digits>"}
    let rows = format!(
        "bulk b \
         LEFT JOIN (SELECT tenant_id, bulk_id, count(*) AS n, max(number) AS newest, sum(accepted) AS accepted, \
          sum(refused) AS refused, sum(skipped) AS skipped, \
          sum(CASE WHEN outcomes IS NOT NULL THEN 1 ELSE 0 END) AS worked FROM bulk_chunk GROUP BY tenant_id, bulk_id) c \
         ON c.tenant_id = b.tenant_id AND c.bulk_id = b.id \
         LEFT JOIN (SELECT tenant_id, substr(data, length(data) - 33, 32) AS bulk, count(*) AS n FROM event \
          WHERE type = 'coupon.claimed' AND data LIKE '%,\"bulk_id\":\"blk_%' GROUP BY tenant_id, bulk) e \
         ON e.tenant_id = b.tenant_id AND e.bulk = {id} \
         LEFT JOIN (SELECT tenant_id, subject_id, \
          sum(CASE type WHEN 'bulk.created' THEN 1 ELSE 0 END) AS created, \
          sum(CASE type WHEN 'bulk.finished' THEN 1 ELSE 0 END) AS finished, \
          sum(CASE type WHEN 'bulk.cancelled' THEN 1 ELSE 0 END) AS cancelled \
          FROM event WHERE type LIKE 'bulk.%' GROUP BY tenant_id, subject_id) t \
         ON t.tenant_id = b.tenant_id AND t.subject_id = b.id \
         LEFT JOIN mkt_coupon_template p ON p.tenant_id = b.tenant_id AND p.id = b.template_id",
        id = dialect.id("", "b.id")
    );
    let checks = vec![
        check(
            "B1",
            "a bulk has all of its chunks, and those before its cursor are worked off",
            "b.results_dropped_at IS NULL AND (coalesce(c.n, 0) <> b.chunks OR c.newest <> b.chunks - 1 \
             OR c.worked <> b.next_chunk)",
            differs(
                "its cursor",
                "b.next_chunk || ' of ' || b.chunks",
                "coalesce(c.worked, 0) || ' of ' || coalesce(c.n, 0)",
            ),
        ),
        check(
            "B2",
            "a bulk counts what its chunks count, and all of its rows when it is done",
            "(b.results_dropped_at IS NULL AND (b.accepted <> coalesce(c.accepted, 0) \
             OR b.refused <> coalesce(c.refused, 0) OR b.skipped <> coalesce(c.skipped, 0))) OR b.accepted + b.refused + b.skipped > b.row_count \
             OR (b.status = 'DONE' AND b.accepted + b.refused + b.skipped <> b.row_count)",
            differs(
                "it",
                "b.accepted || '+' || b.refused || '+' || b.skipped || ' of ' || b.row_count",
                "coalesce(c.accepted, 0) || '+' || coalesce(c.refused, 0) || '+' || coalesce(c.skipped, 0)",
            ),
        ),
        check(
            "B3",
            "a bulk is done when its last chunk is, and has ended when its status says so",
            "(b.status = 'DONE') <> (b.next_chunk = b.chunks) OR (b.status = 'RUNNING') <> (b.finished_at IS NULL) \
             OR b.status NOT IN ('RUNNING', 'DONE', 'CANCELLED') OR b.updated_at < b.created_at",
            "b.status || ' at chunk ' || b.next_chunk || ' of ' || b.chunks",
        ),
        equal(
            "B4",
            "a distribution has given as many coupons as were claimed for it",
            "accepted",
            "CASE b.kind WHEN 'DISTRIBUTION' THEN b.accepted ELSE 0 END",
            "coalesce(e.n, 0)",
        ),
        check(
            "B6",
            "a bulk's beginning and end are each told by one event",
            "coalesce(t.created, 0) <> 1 OR coalesce(t.finished, 0) <> CASE b.status WHEN 'DONE' THEN 1 ELSE 0 END \
             OR coalesce(t.cancelled, 0) <> CASE b.status WHEN 'CANCELLED' THEN 1 ELSE 0 END",
            says("its events do not tell of it"),
        ),
        check(
            "B10",
            "only a bulk that has ended has lost its results, and only behind its end",
            "b.results_dropped_at IS NOT NULL AND (b.finished_at IS NULL OR b.results_dropped_at < b.finished_at)",
            "b.status || ', dropped at ' || b.results_dropped_at",
        ),
        check(
            "B7",
            "a distribution, and nothing else, is of a template, which exists while it has given coupons",
            "(b.kind = 'DISTRIBUTION') <> (b.template_id IS NOT NULL) OR b.kind NOT IN ('DISTRIBUTION', 'POINTS_GRANTS') \
             OR (b.kind = 'DISTRIBUTION' AND b.accepted > 0 AND p.id IS NULL)",
            format!("b.kind || ' of ' || coalesce({}, 'no template')", dialect.id("tpl_", "b.template_id")),
        ),
    ];
    Group { with: String::new(), rows, owner: Some("b"), key: dialect.id("blk_", "b.id"), checks }
}

fn chunks(dialect: Dialect) -> Group {
    let rows = "bulk_chunk c \
        LEFT JOIN bulk b ON b.tenant_id = c.tenant_id AND b.id = c.bulk_id \
        LEFT JOIN bulk_chunk p ON p.tenant_id = c.tenant_id AND p.bulk_id = c.bulk_id AND p.number = c.number - 1";
    let checks = vec![check(
        "B8",
        "a bulk's chunks are worked off in their order, and have no counts before",
        "b.id IS NOT NULL AND ((c.outcomes IS NOT NULL) <> (c.number < b.next_chunk) \
         OR (c.outcomes IS NULL AND (c.accepted <> 0 OR c.refused <> 0)) OR c.first_row <= coalesce(p.first_row, 0))",
        "'chunk ' || c.number || ' from row ' || c.first_row",
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("c"), key: dialect.id("blk_", "c.bulk_id"), checks }
}

/// Everything that the results of chunks name.
fn made(dialect: Dialect) -> Group {
    let (made, digits) = match dialect {
        Dialect::Sqlite => (
            "json_each(CASE WHEN json_valid(c.outcomes) THEN c.outcomes ELSE '[]' END) o".to_owned(),
            "unhex(substr(o.value, 5))",
        ),
        Dialect::Postgres => (
            "LATERAL jsonb_array_elements_text(CASE WHEN c.outcomes ~ '^\\[(\"[A-Za-z0-9_]*\"(,\"[A-Za-z0-9_]*\")*)?\\]$' \
             THEN CAST(c.outcomes AS jsonb) ELSE '[]' END) o(value)"
                .to_owned(),
            "CASE WHEN substr(o.value, 5) ~ '^[0-9a-f]{32}$' THEN CAST(substr(o.value, 5) AS uuid) END",
        ),
    };
    let rows = format!(
        "(SELECT c.tenant_id, c.bulk_id, c.number, o.value, {digits} AS made FROM bulk_chunk c CROSS JOIN {made} \
         WHERE c.outcomes IS NOT NULL AND (o.value LIKE 'cpn_%' OR o.value LIKE 'ptx_%')) m \
         LEFT JOIN mkt_user_coupon u ON u.tenant_id = m.tenant_id \
         AND u.id = CASE substr(m.value, 1, 4) WHEN 'cpn_' THEN m.made END \
         LEFT JOIN mkt_points_transaction p ON p.tenant_id = m.tenant_id \
         AND p.id = CASE substr(m.value, 1, 4) WHEN 'ptx_' THEN m.made END"
    );
    let checks = vec![check(
        "B5",
        "a coupon or a grant that a bulk's results name is there, and its own",
        "(u.id IS NULL AND p.id IS NULL) OR u.source <> 'DISTRIBUTION' OR p.points < 1",
        "'chunk ' || m.number || ': ' || m.value",
    )];
    Group { with: String::new(), rows, owner: Some("m"), key: dialect.id("blk_", "m.bulk_id"), checks }
}

/// What only this program can read: rows and results, and that they fit each other.
pub fn reading(dialect: Dialect) -> Reading {
    Reading {
        id: "B9",
        title: "the rows of chunks and their results can be read and counted",
        sql: format!(
            "SELECT c.tenant_id, {} AS key, c.rows, c.outcomes, c.accepted, c.refused, c.skipped FROM bulk_chunk c",
            dialect.id("blk_", "c.bulk_id")
        ),
        judge: |row| {
            let rows = match row.json::<Vec<crate::bulk::StagedRow>>(2) {
                Ok(rows) => rows,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let skipped = rows.iter().filter(|row| row.skip.is_some()).count() as i64;
            if skipped != row.int(6)? {
                return Ok(Some(format!("skipped is {}, expected {skipped}", row.int(6)?)));
            }
            if row.opt_text(3)?.is_none() {
                return Ok(None);
            }
            let outcomes = match row.json::<Vec<String>>(3) {
                Ok(outcomes) => outcomes,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let accepted = outcomes.iter().filter(|outcome| outcome.starts_with(char::is_lowercase)).count() as i64;
            let found = (row.int(4)?, row.int(5)?, outcomes.len() as i64);
            let expected = (accepted, outcomes.len() as i64 - accepted, rows.len() as i64 - skipped);
            Ok((found != expected).then(|| format!("results are {found:?}, expected {expected:?}")))
        },
    }
}
