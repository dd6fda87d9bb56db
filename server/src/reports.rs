//! Reports that are read from the books themselves, in one snapshot: the API and the command line show the same figures.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use scrip_domain::{TenantId, Timestamp};

use crate::projection::local_date;
use crate::store::{Row, Store, StoreError};

/// What a tenant owes its members in points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liability {
    pub issued: i64,
    pub redeemed: i64,
    pub expired: i64,
    pub revoked: i64,
    pub held: i64,
    pub debt: i64,
    /// What claw-backs did not find and nobody owes. Beside the others, not part of them: the points are where their members have
    /// left them, mostly redeemed.
    pub forgiven: i64,
    /// When an account was last touched.
    pub changed_at: Timestamp,
    /// Points left by the first day of the month in which they expire, the soonest first; those that never do last.
    pub by_month: Vec<(Option<Date>, i64)>,
}

/// Expiries are added up in the database by the quarter of an hour: every time zone's months begin at one.
const QUARTER_HOUR_US: i64 = 900_000_000;

impl Liability {
    fn nothing() -> Liability {
        Liability {
            issued: 0,
            redeemed: 0,
            expired: 0,
            revoked: 0,
            held: 0,
            debt: 0,
            forgiven: 0,
            changed_at: Timestamp(0),
            by_month: Vec::new(),
        }
    }

    /// Adds up the accounts and the open lots. What expires by `at` counts as expired, whether or not that has been posted;
    /// points under a hold are protected and count as held. So `at` may be any time since [`Liability::changed_at`]: in the
    /// future, it tells what will be left if nobody does anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(store: &Store, tenant: TenantId, zone: &TimeZone, at: Timestamp) -> Result<Self, StoreError> {
        // One statement, and so one instant: the sums of the accounts, the lots by quarter of an hour, what was forgiven.
        let sql = "SELECT CAST(0 AS BIGINT), CAST(coalesce(sum(total_points), 0) AS BIGINT), CAST(coalesce(sum(used), 0) AS BIGINT), \
                   CAST(coalesce(sum(expired), 0) AS BIGINT), CAST(coalesce(sum(revoked), 0) AS BIGINT), \
                   CAST(coalesce(sum(frozen), 0) AS BIGINT), CAST(coalesce(sum(debt), 0) AS BIGINT), \
                   CAST(coalesce(max(updated_at), 0) AS BIGINT) \
                   FROM mkt_points_account WHERE tenant_id = $1 UNION ALL \
                   SELECT CAST(1 AS BIGINT), expires_at / 900000000, CAST(sum(remaining) AS BIGINT), CAST(sum(held) AS BIGINT), \
                   CAST(sum(CASE WHEN expires_at <= $2 THEN remaining ELSE 0 END) AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT) \
                   FROM mkt_points_lot WHERE tenant_id = $3 AND open GROUP BY expires_at / 900000000 UNION ALL \
                   SELECT CAST(2 AS BIGINT), CAST(coalesce(sum(points_forgiven), 0) AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT), \
                   CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT) \
                   FROM mkt_points_transaction WHERE tenant_id = $4 AND type = 'CLAWBACK'";
        let decode = |row: &Row| {
            let mut numbers = [0; 8];
            for (column, number) in numbers.iter_mut().enumerate() {
                *number = row.int(column)?;
            }
            Ok(numbers)
        };
        let parameters = [tenant.into(), at.into(), tenant.into(), tenant.into()];
        let mut liability = Liability::nothing();
        let mut months: BTreeMap<Option<Date>, i64> = BTreeMap::new();
        for [part, first, second, third, fourth, fifth, sixth, seventh] in
            store.stream(sql, &parameters, decode).await?
        {
            if part == 0 {
                (liability.issued, liability.redeemed, liability.expired) = (first, second, liability.expired + third);
                (liability.revoked, liability.held, liability.debt) = (fourth, fifth, sixth);
                liability.changed_at = Timestamp(seventh);
                continue;
            }
            if part == 2 {
                liability.forgiven = first;
                continue;
            }
            let (quarter, remaining, held, overdue) = (first, second, third, fourth);
            let expires_at = Timestamp(quarter.saturating_mul(QUARTER_HOUR_US));
            let month = (expires_at <= Timestamp::MAX).then(|| local_date(zone, expires_at).first_of_month());
            liability.expired += overdue;
            let left = remaining - overdue + held;
            if left > 0 {
                *months.entry(month).or_default() += left;
            }
        }
        let never = months.remove(&None);
        liability.by_month = months.into_iter().chain(never.map(|points| (None, points))).collect();
        Ok(liability)
    }

    pub fn outstanding(&self) -> i64 {
        self.issued - self.redeemed - self.expired - self.revoked
    }

    /// Expired of issued, in basis points.
    pub fn breakage_rate_bp(&self) -> i64 {
        i64::try_from((i128::from(self.expired) * 10_000).checked_div(i128::from(self.issued)).unwrap_or(0))
            .unwrap_or(0)
    }

    fn lines(&self) -> Vec<(String, i64)> {
        let mut lines: Vec<(String, i64)> = [
            ("issued", self.issued),
            ("redeemed", self.redeemed),
            ("expired", self.expired),
            ("revoked", self.revoked),
            ("outstanding", self.outstanding()),
            ("held", self.held),
            ("debt", self.debt),
            ("forgiven", self.forgiven),
            ("breakage_rate_bp", self.breakage_rate_bp()),
        ]
        .map(|(name, points)| (name.to_owned(), points))
        .into();
        for (month, points) in &self.by_month {
            let month = month.map_or_else(|| "never".into(), |day| day.strftime("%Y-%m").to_string());
            lines.push((format!("outstanding_expiring_{month}"), *points));
        }
        lines
    }

    pub fn to_csv(&self) -> String {
        let lines = self.lines().into_iter().map(|(name, points)| format!("{name},{points}\n"));
        "line,points\n".to_owned() + &lines.collect::<String>()
    }

    /// One page for people.
    pub fn to_text(&self) -> String {
        let lines =
            self.lines().into_iter().map(|(name, points)| format!("{:<32}{points:>20}\n", name.replace('_', " ")));
        lines.collect()
    }

    /// The outstanding points by month as a bar chart.
    pub fn to_svg(&self) -> String {
        let (width, full, top, bottom) = (900_usize, 420_usize, 60_usize, 70_usize);
        let most = self.by_month.iter().map(|(_, points)| *points).max().unwrap_or(0).max(1);
        let step = (width - 80) / self.by_month.len().max(1);
        let mut bars = String::new();
        for (index, (month, points)) in self.by_month.iter().enumerate() {
            let room = (full - top - bottom) as i128;
            let height = (i128::from(*points) * room / i128::from(most)).max(1);
            let (x, y) = (50 + index * step, (full - bottom) as i128 - height);
            let middle = x + step / 2;
            let label = month.map_or_else(|| "never".into(), |day| day.strftime("%Y-%m").to_string());
            let _ = writeln!(
                bars,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{height}\" fill=\"#3b6ea5\"/>\n\
                 <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{points}</text>\n\
                 <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                step.saturating_sub(8).max(2),
                y - 6,
                full - bottom + 20,
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {full}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"50\" y=\"30\" font-size=\"18\">Outstanding points by the month in which they expire</text>\n\
             {bars}<text x=\"50\" y=\"{}\">issued {}   redeemed {}   expired {}   outstanding {}   forgiven {}</text>\n</svg>\n",
            full - 16,
            self.issued,
            self.redeemed,
            self.expired,
            self.outstanding(),
            self.forgiven,
        )
    }
}
