//! R: the versions of tenants' rules.

use scrip_domain::pricing::Rules;

use super::{Dialect, Group, Reading, check, differs, equal, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![versions(dialect), tenants(), events(dialect)]
}

fn versions(dialect: Dialect) -> Group {
    let rows = format!(
        "mkt_points_rule r LEFT JOIN (SELECT tenant_id, {} AS version, count(*) AS n, max(occurred_at) AS occurred_at \
         FROM event WHERE type = 'points_rules.changed' GROUP BY tenant_id, {}) e \
         ON e.tenant_id = r.tenant_id AND e.version = r.version",
        dialect.number("data", "version"),
        dialect.number("data", "version")
    );
    let checks = vec![
        equal("R2", "every version of rules is told by one event", "the count of events", "coalesce(e.n, 0)", "1"),
        check(
            "R3",
            "a version of rules was made when its event says, and holds no earlier",
            "r.created_at <> e.occurred_at OR r.effective_from < r.created_at",
            differs("it", "r.created_at || ', from ' || r.effective_from", "e.occurred_at"),
        ),
    ];
    Group { with: String::new(), rows, owner: Some("r"), key: "CAST(r.version AS text)".into(), checks }
}

fn tenants() -> Group {
    let rows = "(SELECT tenant_id, count(*) AS n, min(version) AS oldest, max(version) AS newest FROM mkt_points_rule \
        GROUP BY tenant_id) r";
    let checks = vec![check(
        "R1",
        "a tenant's versions of rules are numbered from 1 without gaps",
        "r.oldest <> 1 OR r.newest <> r.n",
        "r.n || ' versions, from ' || r.oldest || ' to ' || r.newest",
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("r"), key: "'rules'".into(), checks }
}

fn events(dialect: Dialect) -> Group {
    let rows = format!(
        "(SELECT tenant_id, id, subject_id, {} AS version FROM event WHERE type = 'points_rules.changed') e \
         LEFT JOIN mkt_points_rule r ON r.tenant_id = e.tenant_id AND r.version = e.version",
        dialect.number("data", "version")
    );
    let checks = vec![check(
        "E25",
        "an event of rules names a version of its tenant",
        "r.version IS NULL OR e.subject_id <> e.tenant_id",
        says("the version does not exist, or the subject is another"),
    )];
    Group { with: String::new(), rows, owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// A version's text must be readable, and be of that version.
pub fn reading() -> Reading {
    Reading {
        id: "R4",
        title: "a version of rules can be read",
        sql: "SELECT tenant_id, CAST(version AS text) AS key, version, rules FROM mkt_points_rule".into(),
        judge: |row| match row.json::<Rules>(3) {
            Ok(rules) if rules.version == row.int(2)? => Ok(None),
            Ok(rules) => Ok(Some(format!("its text is of version {}", rules.version))),
            Err(error) => Ok(Some(format!("it cannot be read: {error}"))),
        },
    }
}
