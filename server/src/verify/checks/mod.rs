//! The invariants. A [`Group`] is a relation and the checks that look at its rows, so that one scan serves them all; a
//! [`Reading`] is a check of text that only this program can judge.
//!
//! To find a check, search for its id: X structure, P accounts, T ledger lines, L lots, H holds, M check-ins and tasks,
//! C coupons and templates, K codes, R rules, O orders, E events, J jobs, B bulks, W webhooks.
//!
//! Joins are written for both planners. Inner joins are `CROSS JOIN ... WHERE`: to PostgreSQL that is the same, while SQLite
//! then keeps the order, which it would otherwise turn round to walk all of a tenant's rows for each row. A join that concerns
//! only some rows has a key that is NULL for the others. Stored JSON is never cast unguarded: a row that cannot be read is a
//! violation of the check that reads it, not the end of the run.

mod accounts;
mod bulks;
mod codes;
mod coupons;
mod events;
mod holds;
mod jobs;
mod ledger;
mod lots;
mod members;
mod orders;
mod outcomes;
mod rules;
mod structure;
mod templates;
mod webhooks;

use uuid::Uuid;

use crate::store::{Row, StoreError};
pub use structure::TABLES;

/// Where the stores' SQL differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// Invariants of the rows of one relation.
pub struct Group {
    /// Common table expressions that `rows` rests on, or nothing.
    with: String,
    /// What stands behind FROM.
    rows: String,
    /// The alias whose `tenant_id` owns the row; nothing for what belongs to no tenant.
    owner: Option<&'static str>,
    /// An expression that names the row: an id, or a member.
    key: String,
    pub checks: Vec<Check>,
}

/// One invariant.
pub struct Check {
    pub id: &'static str,
    pub title: &'static str,
    /// True for a row that breaks it.
    broken: String,
    /// An expression: what is there, and what should be.
    detail: String,
}

impl Group {
    /// The statement that finds the violations of these checks of the group: `tenant_id`, `key`, then for each check its
    /// detail, or NULL where it holds.
    pub fn sql(&self, dialect: Dialect, checks: &[Check], tenant: Option<Uuid>) -> String {
        let owner = self.owner.map_or("CAST(NULL AS uuid)".into(), |alias| format!("{alias}.tenant_id"));
        let details: Vec<String> = checks
            .iter()
            .map(|check| format!("CASE WHEN {} THEN coalesce({}, 'broken') END", check.broken, check.detail))
            .collect();
        let broken: Vec<String> = checks.iter().map(|check| format!("({})", check.broken)).collect();
        let only = match (self.owner, tenant) {
            (Some(_), Some(tenant)) => format!("{owner} = {} AND ", dialect.literal(tenant)),
            _ => String::new(),
        };
        format!(
            "{} SELECT {owner}, {}, {} FROM {} WHERE {only}({})",
            self.with,
            self.key,
            details.join(", "),
            self.rows,
            broken.join(" OR ")
        )
    }
}

/// A check of text that is stored but not understood by the store.
pub struct Reading {
    pub id: &'static str,
    pub title: &'static str,
    /// Gives `tenant_id`, `key`, and what [`Self::judge`] reads.
    sql: String,
    /// What is wrong with a row, if anything.
    pub judge: fn(&Row) -> Result<Option<String>, StoreError>,
}

impl Reading {
    pub fn sql(&self, dialect: Dialect, tenant: Option<Uuid>) -> String {
        match tenant {
            Some(tenant) => format!("SELECT * FROM ({}) r WHERE r.tenant_id = {}", self.sql, dialect.literal(tenant)),
            None => self.sql.clone(),
        }
    }
}

/// Every group, in the order a reader of the report wants: structure first, events last.
pub fn groups(dialect: Dialect) -> Result<Vec<Group>, StoreError> {
    let mut all = structure::groups(dialect)?;
    all.push(accounts::group());
    all.extend(ledger::groups(dialect));
    all.push(lots::group(dialect));
    all.push(holds::group(dialect));
    all.extend(members::groups(dialect));
    all.extend(templates::groups(dialect));
    all.extend(coupons::groups(dialect));
    all.extend(rules::groups(dialect));
    all.extend(orders::groups(dialect));
    all.extend(codes::groups(dialect));
    all.extend(events::groups(dialect));
    all.push(jobs::group(dialect));
    all.extend(webhooks::groups(dialect));
    all.extend(bulks::groups(dialect));
    Ok(all)
}

pub fn readings(dialect: Dialect) -> Vec<Reading> {
    vec![
        outcomes::reading(dialect),
        templates::reading(dialect),
        rules::reading(),
        orders::reading(),
        jobs::reading(dialect),
        bulks::reading(dialect),
        members::reading(),
        accounts::reading(),
    ]
}

fn check(id: &'static str, title: &'static str, broken: impl Into<String>, detail: impl Into<String>) -> Check {
    Check { id, title, broken: broken.into(), detail: detail.into() }
}

/// `found` must be `expected`, NULL included.
fn equal(id: &'static str, title: &'static str, name: &str, found: &str, expected: &str) -> Check {
    check(id, title, format!("{found} IS DISTINCT FROM {expected}"), differs(name, found, expected))
}

/// "`found` is there, `expected` was expected", for a detail.
fn differs(name: &str, found: &str, expected: &str) -> String {
    let shown = |value: &str| format!("coalesce(CAST({value} AS text), 'nothing')");
    format!("'{name} is ' || {} || ', expected ' || {}", shown(found), shown(expected))
}

/// A detail that needs no figures.
fn says(text: &str) -> String {
    format!("'{text}'")
}

const EARN: &str = "('EARN_ORDER', 'EARN_CHECKIN', 'EARN_TASK', 'EARN_ADMIN')";
const USE: &str = "('USE_ORDER', 'USE_COUPON', 'USE_PRODUCT')";

/// `at` and whole days, as [`scrip_domain::Timestamp::plus_days`] adds them.
fn plus_days(at: &str, days: &str) -> String {
    plus(at, days, scrip_domain::time::MICROS_PER_DAY)
}

/// `at` and so many units of time, but not after the last instant.
fn plus(at: &str, units: &str, micros: i64) -> String {
    let last = scrip_domain::Timestamp::MAX.0;
    format!("CASE WHEN {at} + {units} * {micros} > {last} THEN {last} ELSE {at} + {units} * {micros} END")
}

impl Dialect {
    /// A UUID column as an id's public text.
    fn id(self, prefix: &str, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("'{prefix}' || lower(hex({column}))"),
            Dialect::Postgres => format!("'{prefix}' || replace(CAST({column} AS text), '-', '')"),
        }
    }

    fn literal(self, id: Uuid) -> String {
        match self {
            Dialect::Sqlite => format!("x'{}'", id.simple()),
            Dialect::Postgres => format!("'{id}'::uuid"),
        }
    }

    /// A text as a JSON string.
    fn quoted(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("json_quote({column})"),
            Dialect::Postgres => format!("CAST(to_json({column}) AS text)"),
        }
    }

    /// True for the JSON array of allocations that the domain writes.
    fn is_allocations(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => {
                format!(
                    "CASE WHEN {column} = '[]' THEN true WHEN json_valid({column}) THEN json_type({column}) = 'array' \
                     ELSE false END"
                )
            }
            Dialect::Postgres => {
                let part = r#"\{"l":"lot_[0-9a-f]{32}","p":[0-9]{1,18}\}"#;
                format!("({column} = '[]' OR {column} ~ '^\\[{part}(,{part})*\\]$')")
            }
        }
    }

    /// A row for each allocation of each row of `rows`: `columns` of it (as `t.`), `lot_part` and `part`, and `place` in the
    /// array. Allocations that cannot be read give no rows, or rows of NULL.
    ///
    /// OFFSET 0 keeps PostgreSQL from expanding the array anew for each row of a join.
    fn allocations(self, columns: &str, rows: &str) -> String {
        let readable = self.is_allocations("t.allocations");
        let array = format!("CASE WHEN {readable} THEN t.allocations ELSE '[]' END");
        match self {
            Dialect::Sqlite => format!(
                "(SELECT {columns}, unhex(substr(CASE a.type WHEN 'object' THEN a.value ->> 'l' END, 5)) AS lot_part, \
                 CASE a.type WHEN 'object' THEN a.value ->> 'p' END AS part, a.key AS place \
                 FROM {rows} t CROSS JOIN json_each({array}) a WHERE t.allocations <> '[]')"
            ),
            Dialect::Postgres => format!(
                "(SELECT {columns}, CAST(substr(a.value ->> 'l', 5) AS uuid) AS lot_part, \
                 CAST(a.value ->> 'p' AS bigint) AS part, a.place \
                 FROM {rows} t CROSS JOIN LATERAL json_array_elements(CAST({array} AS json)) WITH ORDINALITY a(value, place) \
                 WHERE t.allocations <> '[]' OFFSET 0)"
            ),
        }
    }

    /// The sum of a row's allocations.
    fn allocated(self, alias: &str) -> String {
        let column = format!("{alias}.allocations");
        let array = format!("CASE WHEN {} THEN {column} ELSE '[]' END", self.is_allocations(&column));
        let sum = match self {
            Dialect::Sqlite => {
                format!("sum(CASE a.type WHEN 'object' THEN a.value ->> 'p' END), 0) FROM json_each({array}) a")
            }
            Dialect::Postgres => {
                format!(
                    "sum(CAST(a.value ->> 'p' AS bigint)), 0) FROM json_array_elements(CAST({array} AS json)) a(value)"
                )
            }
        };
        format!("(CASE {column} WHEN '[]' THEN 0 ELSE (SELECT coalesce({sum}) END)")
    }

    /// True for a JSON object as events carry it: names with texts, whole numbers, and true or false.
    fn is_event_data(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => {
                format!("CASE WHEN json_valid({column}) THEN json_type({column}) = 'object' ELSE false END")
            }
            Dialect::Postgres => {
                let field = r#""[a-z_]+":("([^"\\]|\\.)*"|-?[0-9]+|true|false)"#;
                format!("({column} = '{{}}' OR {column} ~ '^\\{{{field}(,{field})*\\}}$')")
            }
        }
    }

    /// A number of an event's data; NULL where it has none.
    fn number(self, column: &str, name: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CASE WHEN json_valid({column}) THEN {column} ->> '{name}' END"),
            Dialect::Postgres => {
                format!("CAST(substring({column} from '[{{,]\"{name}\":(-?[0-9]{{1,18}})') AS bigint)")
            }
        }
    }

    /// The id that a field of an event's data names; NULL where there is none.
    fn id_in(self, column: &str, name: &str, prefix: &str) -> String {
        match self {
            Dialect::Sqlite => format!(
                "unhex(substr(CASE WHEN json_valid({column}) THEN {column} ->> '{name}' END, {}))",
                prefix.len() + 1
            ),
            Dialect::Postgres => {
                format!("CAST(substring({column} from '\"{name}\":\"{prefix}([0-9a-f]{{32}})\"') AS uuid)")
            }
        }
    }

    /// What checks read of each version's definition, as the relation `versions`.
    fn versions(self) -> String {
        let field = |path: &[&str], number: bool| match self {
            Dialect::Sqlite => {
                format!("CASE WHEN json_valid(definition) THEN definition ->> '$.{}' END", path.join("."))
            }
            Dialect::Postgres => {
                let kind = if number { "bigint" } else { "text" };
                format!("CAST(CAST(definition AS json) #>> '{{{}}}' AS {kind})", path.join(","))
            }
        };
        format!(
            "WITH versions AS MATERIALIZED (SELECT tenant_id, template_id, version, created_at, {} AS benefit, \
             {} AS validity, {} AS starts_at, {} AS ends_at, {} AS days, {} AS hours, {} AS starts_after_hours, \
             {} AS distribution_starts_at, {} AS distribution_ends_at, {} AS limit_per_member, {} AS returnable, \
             {} AS refund_extend_days, {} AS daily_cap, {} AS weekly_cap, {} AS monthly_cap, {} AS budget, {} AS points_price, \
             coalesce({}, {}) AS most_off FROM mkt_coupon_template_version)",
            field(&["benefit", "type"], false),
            field(&["validity", "type"], false),
            field(&["validity", "starts_at"], true),
            field(&["validity", "ends_at"], true),
            field(&["validity", "days"], true),
            field(&["validity", "hours"], true),
            field(&["validity", "starts_after_hours"], true),
            field(&["distribution", "starts_at"], true),
            field(&["distribution", "ends_at"], true),
            field(&["limit_per_member"], true),
            field(&["returnable"], false),
            field(&["refund_extend_days"], true),
            field(&["daily_cap"], true),
            field(&["weekly_cap"], true),
            field(&["monthly_cap"], true),
            field(&["budget"], true),
            field(&["points_price"], true),
            // As `Benefit::most_off`: no benefit has both.
            field(&["benefit", "amount"], true),
            field(&["benefit", "max_amount"], true),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_check_has_an_id_of_its_own_and_both_stores_have_the_same() {
        let ids = |dialect| {
            let groups = groups(dialect).expect("the schema is sound");
            let of_groups = groups.iter().flat_map(|group| &group.checks).map(|check| check.id);
            of_groups.chain(readings(dialect).iter().map(|reading| reading.id)).collect::<Vec<_>>()
        };
        let ids = [ids(Dialect::Sqlite), ids(Dialect::Postgres)];
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[0].iter().collect::<HashSet<_>>().len(), ids[0].len(), "{:?}", ids[0]);
    }
}
