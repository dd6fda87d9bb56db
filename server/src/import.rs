//! Coupon templates and coupons, and in [`points`] accounts, from the tables of the system that Scrip replaces; docs/IMPORT.md has the mapping.
//!
//! Each row becomes one command under an id that is made from the tenant and the row's own id, so a row that is there already
//! changes nothing: a file may be sent again after a break, or with more rows. A row that cannot be taken over is reported with
//! its line and the reason, and the others go on. A dry run reads, checks and looks up, and writes nothing.

mod points;

use std::collections::HashMap;
use std::io::Read;

use anyhow::Context;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use scrip_domain::coupon::{Benefit, CouponStatus, Definition, ImportedCoupon, MAX_AMOUNT, MAX_STOCK, Scope, Validity};
use scrip_domain::{Answer, Command, CouponId, Envelope, MemberId, OrderId, TemplateId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock;
use crate::engine::Engine;
use crate::store::Store;

pub use points::{ImportedColumns, PointsImportReport, points};

/// Rows decided together.
const PAGE: usize = 1_000;
/// Bad rows that a report lists; those beyond are counted.
const LISTED: usize = 1_000;
const MAX_DAYS: u32 = 3_650;

/// What `discount_percent` of the origin means. Its screens and its formula disagree, so nobody but its owner can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Percent {
    /// 10 is ten percent off.
    Off,
    /// 90 is ninety percent to pay: ten percent off.
    Pay,
}

impl Percent {
    pub fn parse(text: &str) -> Option<Percent> {
        match text {
            "off" => Some(Percent::Off),
            "pay" => Some(Percent::Pay),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub tenant: TenantId,
    /// `None`: a percentage is refused.
    pub percent: Option<Percent>,
    /// That of times without an offset.
    pub time_zone: TimeZone,
    pub dry_run: bool,
    /// Whether an account whose history does not reconcile is taken over without it.
    pub opening: bool,
}

/// A row that was not taken over.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct BadRow {
    /// From 1, the line of names included.
    pub line: u64,
    /// The row's own id, as far as it could be read.
    pub id: String,
    pub message: String,
}

#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct ImportReport {
    pub dry_run: bool,
    pub lines: u64,
    /// Taken over now; in a dry run, what would be tried.
    pub imported: u64,
    /// There already from an earlier run, and not changed.
    pub existing: u64,
    pub bad: u64,
    /// The first 1,000 of them.
    pub errors: Vec<BadRow>,
}

impl ImportReport {
    fn refuse(&mut self, line: u64, id: &str, message: impl Into<String>) {
        self.bad += 1;
        if self.errors.len() < LISTED {
            self.errors.push(BadRow { line, id: id.to_owned(), message: message.into() });
        }
    }
}

/// The id that a row of the origin gets here: always the same one.
fn id_of(tenant: TenantId, kind: &str, origin_id: &str) -> Uuid {
    let digest = Sha256::new()
        .chain_update(b"scrip import\0")
        .chain_update(tenant.0.as_bytes())
        .chain_update(kind.as_bytes())
        .chain_update(b"\0")
        .chain_update(origin_id.as_bytes())
        .finalize();
    // RFC 9562: version 8, made by a rule of our own.
    uuid::Builder::from_custom_bytes(std::array::from_fn(|place| digest[place])).into_uuid()
}

pub fn template_id(tenant: TenantId, origin_id: &str) -> TemplateId {
    TemplateId(id_of(tenant, "template", origin_id))
}

fn coupon_id(tenant: TenantId, origin_id: &str) -> CouponId {
    CouponId(id_of(tenant, "coupon", origin_id))
}

/// A row of mkt_coupon_template, as its columns are named there; further columns are left alone.
#[derive(Debug, Deserialize)]
struct TemplateRow {
    id: String,
    name: String,
    #[serde(default)]
    description: Option<String>,
    r#type: String,
    #[serde(default)]
    discount_amount: Option<String>,
    #[serde(default)]
    discount_percent: Option<i64>,
    #[serde(default)]
    max_discount_amount: Option<String>,
    #[serde(default)]
    min_order_amount: Option<String>,
    #[serde(default)]
    min_actual_pay_amount: Option<String>,
    #[serde(default)]
    applicable_products: Option<String>,
    #[serde(default)]
    applicable_categories: Option<String>,
    #[serde(default)]
    member_levels: Option<String>,
    #[serde(default)]
    exchange_product_id: Option<String>,
    #[serde(default)]
    exchange_sku_id: Option<String>,
    validity_type: String,
    #[serde(default)]
    start_time: Option<String>,
    #[serde(default)]
    end_time: Option<String>,
    #[serde(default)]
    valid_days: Option<u32>,
    #[serde(default)]
    total_stock: Option<i64>,
    #[serde(default)]
    limit_per_user: Option<i64>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    refund_expire_extend_days: Option<u32>,
}

/// A row of mkt_user_coupon.
#[derive(Debug, Deserialize)]
struct CouponRow {
    id: String,
    member_id: String,
    template_id: String,
    status: String,
    start_time: String,
    end_time: String,
    receive_time: String,
    #[serde(default)]
    used_time: Option<String>,
    #[serde(default)]
    order_id: Option<String>,
    /// Of mkt_coupon_usage, where the file has it.
    #[serde(default)]
    usage_discount_amount: Option<String>,
}

type Checked<T> = Result<T, String>;

impl ImportOptions {
    fn template(&self, row: &TemplateRow) -> Checked<Command> {
        let amount =
            |name: &str, text: &Option<String>| text.as_deref().map(|text| minor_units(name, text)).transpose();
        let needed = |name: &str, value: Option<i64>| value.ok_or_else(|| format!("{name} is missing"));
        let benefit = match row.r#type.as_str() {
            "DISCOUNT" | "FULL_REDUCTION" => {
                let amount = needed("discount_amount", amount("discount_amount", &row.discount_amount)?)?;
                Benefit::AmountOff { amount: within("discount_amount", amount, 1, MAX_AMOUNT)? }
            }
            "PERCENTAGE" => {
                let percent = within("discount_percent", needed("discount_percent", row.discount_percent)?, 1, 99)?;
                let off = match self
                    .percent
                    .ok_or("is a percentage: say what discount_percent means (percent=off or pay)")?
                {
                    Percent::Off => percent,
                    Percent::Pay => 100 - percent,
                };
                let max_amount = amount("max_discount_amount", &row.max_discount_amount)?;
                let basis_points = u16::try_from(off * 100).map_err(|_| "discount_percent is out of range")?;
                Benefit::PercentOff { basis_points, max_amount }
            }
            "EXCHANGE" => {
                let product_id = filled(&row.exchange_product_id).ok_or("exchange_product_id is missing")?;
                Benefit::Exchange { product_id, sku_id: filled(&row.exchange_sku_id) }
            }
            other => return Err(format!("the type {other} is none of DISCOUNT, FULL_REDUCTION, PERCENTAGE, EXCHANGE")),
        };
        let time = |name: &str, text: &Option<String>| {
            let text = filled(text).ok_or_else(|| format!("{name} is missing"))?;
            self.time(name, &text)
        };
        let validity = match row.validity_type.as_str() {
            "FIXED" => {
                let (starts_at, ends_at) = (time("start_time", &row.start_time)?, time("end_time", &row.end_time)?);
                if starts_at >= ends_at {
                    return Err("end_time is not after start_time".into());
                }
                Validity::Fixed { starts_at, ends_at }
            }
            "RELATIVE" | "FIXED_DAYS" => {
                let days = row.valid_days.filter(|days| (1..=MAX_DAYS).contains(days));
                Validity::days(days.ok_or("valid_days is missing or none of 1 to 3650")?)
            }
            other => return Err(format!("the validity_type {other} is none of FIXED, RELATIVE")),
        };
        let name = row.name.trim();
        if name.is_empty() || name.chars().count() > 100 {
            return Err("name has none or more than 100 characters".into());
        }
        // The origin's screens write -1 for unlimited.
        let total_stock = row.total_stock.filter(|stock| *stock != -1);
        let total_stock = total_stock.map(|stock| within("total_stock", stock, 0, MAX_STOCK)).transpose()?;
        let definition = Definition {
            description: filled(&row.description).unwrap_or_default(),
            min_order_amount: amount("min_order_amount", &row.min_order_amount)?.unwrap_or(0),
            min_pay_amount: amount("min_actual_pay_amount", &row.min_actual_pay_amount)?.unwrap_or(0),
            scope: Scope {
                products: list("applicable_products", &row.applicable_products)?,
                categories: list("applicable_categories", &row.applicable_categories)?,
                ..Scope::default()
            },
            member_levels: list("member_levels", &row.member_levels)?,
            limit_per_member: within("limit_per_user", row.limit_per_user.unwrap_or(1), 1, 1_000_000)?,
            refund_extend_days: row.refund_expire_extend_days.unwrap_or(7).min(MAX_DAYS),
            metadata: [("origin_id".to_owned(), row.id.as_str().into())].into_iter().collect(),
            ..Definition::new(name, benefit, validity)
        };
        let enabled = match row.status.as_deref().unwrap_or("ACTIVE") {
            "ACTIVE" => true,
            "INACTIVE" | "EXPIRED" => false,
            other => return Err(format!("the status {other} is none of ACTIVE, INACTIVE, EXPIRED")),
        };
        let template_id = template_id(self.tenant, &row.id);
        Ok(Command::ImportTemplate { template_id, definition: Box::new(definition), total_stock, enabled })
    }

    fn coupon(&self, row: &CouponRow, now: Timestamp) -> Checked<Command> {
        let member_id: MemberId = row.member_id.trim().parse().map_err(|error| format!("member_id: {error}"))?;
        let order_id =
            filled(&row.order_id).map(|id| id.parse::<OrderId>().map_err(|error| format!("order_id: {error}")));
        let order_id = order_id.transpose()?;
        let status = match row.status.as_str() {
            "UNUSED" | "AVAILABLE" => CouponStatus::Available,
            "LOCKED" => CouponStatus::Locked,
            "USED" => CouponStatus::Used,
            "EXPIRED" => CouponStatus::Expired,
            "CANCELLED" => CouponStatus::Revoked,
            other => return Err(format!("the status {other} is none of UNUSED, LOCKED, USED, EXPIRED, CANCELLED")),
        };
        let claimed_at = self.time("receive_time", &row.receive_time)?;
        let valid_from = self.time("start_time", &row.start_time)?;
        let valid_until = self.time("end_time", &row.end_time)?;
        let used_at = filled(&row.used_time).map(|text| self.time("used_time", &text)).transpose()?;
        let discount =
            filled(&row.usage_discount_amount).map(|text| minor_units("usage_discount_amount", &text)).transpose()?;
        if claimed_at > now || used_at.is_some_and(|at| at > now || at < claimed_at) {
            return Err("receive_time or used_time lies in the future, or the use before the receipt".into());
        }
        if valid_from >= valid_until {
            return Err("end_time is not after start_time".into());
        }
        if matches!(status, CouponStatus::Locked | CouponStatus::Used) && order_id.is_none() {
            return Err(format!("is {} without an order_id", row.status));
        }
        if status == CouponStatus::Used && used_at.is_none() {
            return Err("is USED without a used_time".into());
        }
        if status == CouponStatus::Expired && valid_until > now {
            return Err("is EXPIRED before its end_time".into());
        }
        Ok(Command::ImportCoupon(Box::new(ImportedCoupon {
            coupon_id: coupon_id(self.tenant, &row.id),
            template_id: template_id(self.tenant, &row.template_id),
            member_id,
            status,
            claimed_at,
            valid_from,
            valid_until,
            order_id,
            used_at,
            discount_amount: discount.filter(|_| status == CouponStatus::Used),
        })))
    }

    /// RFC 3339, or a time as PostgreSQL prints one: in the zone of the options when it has no offset.
    fn time(&self, name: &str, text: &str) -> Checked<Timestamp> {
        let text = text.trim();
        let bad = || format!("{name} is no time: {text}");
        let instant = match text.parse::<jiff::Timestamp>() {
            Ok(instant) => instant,
            Err(_) => {
                let civil: DateTime = text.parse().map_err(|_| bad())?;
                self.time_zone.to_timestamp(civil).map_err(|_| bad())?
            }
        };
        let at = Timestamp(instant.as_microsecond());
        if at.0 < 0 || at > Timestamp::MAX { Err(bad()) } else { Ok(at) }
    }
}

/// Text that is there; exports write NULL as nothing or as a word.
fn filled(text: &Option<String>) -> Option<String> {
    let text = text.as_deref()?.trim();
    (!text.is_empty() && !text.eq_ignore_ascii_case("null") && text != "\\N").then(|| text.to_owned())
}

fn within(name: &str, value: i64, least: i64, most: i64) -> Checked<i64> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{name} is {value}, none of {least} to {most}"))
    }
}

/// A decimal with up to two places, as the origin stores money, in minor units. Nothing is rounded.
fn minor_units(name: &str, text: &str) -> Checked<i64> {
    let bad = || format!("{name} is no amount with up to two decimals: {text}");
    let (whole, cents) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let cents = cents.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(cents) || cents.len() > 2 {
        return Err(bad());
    }
    let whole: i64 = whole.parse().map_err(|_| bad())?;
    let cents: i64 = format!("{cents:0<2}").parse().map_err(|_| bad())?;
    let amount = whole.checked_mul(100).and_then(|amount| amount.checked_add(cents));
    amount.filter(|amount| *amount <= MAX_AMOUNT).ok_or_else(bad)
}

/// A list as PostgreSQL prints an array, `{a,b}`, or as JSON.
fn list(name: &str, text: &Option<String>) -> Checked<Vec<String>> {
    let Some(text) = filled(text) else { return Ok(Vec::new()) };
    let entries: Vec<String> = if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let entries = inner.split(',').map(|entry| entry.trim().trim_matches('"').to_owned());
        entries.filter(|entry| !entry.is_empty()).collect()
    } else {
        let values: Vec<serde_json::Value> =
            serde_json::from_str(&text).map_err(|_| format!("{name} is no list: send {{a,b}} or [\"a\",\"b\"]"))?;
        values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
    };
    if entries.len() > 1_000 || entries.iter().any(|entry| entry.is_empty() || entry.chars().count() > 64) {
        return Err(format!("{name} has more than 1000 entries, or one of none or more than 64 characters"));
    }
    Ok(entries)
}

/// A row on its way to the engine.
struct Asked {
    line: u64,
    id: String,
    command: Command,
}

/// Imports templates. Coupons come after them.
///
/// # Errors
/// When the file cannot be read as CSV, or the store fails; what was imported before stays, and is found by the next run.
pub async fn templates(
    store: &Store,
    engine: &Engine,
    file: impl Read,
    options: &ImportOptions,
) -> anyhow::Result<ImportReport> {
    let mut report = ImportReport { dry_run: options.dry_run, ..ImportReport::default() };
    let mut asked = Vec::new();
    let mut seen = HashMap::new();
    for (line, row) in (2..).zip(reader(file).deserialize::<TemplateRow>()) {
        report.lines += 1;
        match row.map_err(unreadable).map(|row| (options.template(&row), row.id)) {
            Ok((_, id)) if seen.contains_key(&id) => {
                report.refuse(line, &id, format!("is the row of line {} once more", seen[&id]))
            }
            Ok((Ok(command), id)) => {
                seen.insert(id.clone(), line);
                asked.push(Asked { line, id, command });
            }
            Ok((Err(message), id)) => report.refuse(line, &id, message),
            Err(message) => report.refuse(line, "", message),
        }
        if asked.len() == PAGE {
            send(store, engine, options, std::mem::take(&mut asked), &mut report).await?;
        }
    }
    send(store, engine, options, asked, &mut report).await?;
    report.errors.sort_by_key(|row| row.line);
    Ok(report)
}

/// Imports coupons of templates that have been imported before.
///
/// # Errors
/// As [`templates`].
pub async fn coupons(
    store: &Store,
    engine: &Engine,
    file: impl Read,
    options: &ImportOptions,
) -> anyhow::Result<ImportReport> {
    let mut report = ImportReport { dry_run: options.dry_run, ..ImportReport::default() };
    let mut asked = Vec::new();
    let now = clock::now();
    for (line, row) in (2..).zip(reader(file).deserialize::<CouponRow>()) {
        report.lines += 1;
        match row.map_err(unreadable).map(|row| (options.coupon(&row, now), row.id)) {
            Ok((Ok(command), id)) => asked.push(Asked { line, id, command }),
            Ok((Err(message), id)) => report.refuse(line, &id, message),
            Err(message) => report.refuse(line, "", message),
        }
        if asked.len() == PAGE {
            send(store, engine, options, std::mem::take(&mut asked), &mut report).await?;
        }
    }
    send(store, engine, options, asked, &mut report).await?;
    report.errors.sort_by_key(|row| row.line);
    Ok(report)
}

fn reader<R: Read>(file: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(file)
}

fn unreadable(error: csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

/// Decides a page of rows; those that are there already are counted apart.
async fn send(
    store: &Store,
    engine: &Engine,
    options: &ImportOptions,
    asked: Vec<Asked>,
    report: &mut ImportReport,
) -> anyhow::Result<()> {
    let tenant = options.tenant;
    let mut coupons = Vec::new();
    let mut templates = Vec::new();
    for row in &asked {
        match &row.command {
            Command::ImportCoupon(coupon) => {
                coupons.push(coupon.coupon_id);
                templates.push(coupon.template_id);
            }
            Command::ImportTemplate { template_id, .. } => templates.push(*template_id),
            _ => {}
        }
    }
    let known_coupons = store.templates_of_coupons(tenant, &coupons).await?;
    templates.sort_unstable();
    templates.dedup();
    let mut known_templates = std::collections::HashSet::new();
    for template in templates {
        if store.find_template(tenant, template).await?.is_some() {
            known_templates.insert(template);
        }
    }
    let mut rows = Vec::with_capacity(asked.len());
    let mut envelopes = Vec::with_capacity(asked.len());
    for Asked { line, id, command } in asked {
        match &command {
            Command::ImportCoupon(coupon) if known_coupons.contains_key(&coupon.coupon_id) => {
                report.existing += 1;
                continue;
            }
            Command::ImportCoupon(coupon) if !known_templates.contains(&coupon.template_id) => {
                report.refuse(line, &id, "its template has not been imported");
                continue;
            }
            Command::ImportTemplate { template_id, .. } if known_templates.contains(template_id) => {
                report.existing += 1;
                continue;
            }
            _ if options.dry_run => {
                report.imported += 1;
                continue;
            }
            _ => {}
        }
        let now = clock::now();
        let at = match &command {
            Command::ImportCoupon(coupon) => coupon.claimed_at,
            _ => now,
        };
        envelopes.push(Envelope { tenant, actor: None, command, idempotency: None, at, now, seed: clock::seed(now) });
        rows.push((line, id));
    }
    for ((line, id), answer) in rows.into_iter().zip(engine.submit_all(envelopes).await) {
        match answer.context("the import stopped; run it again: what is there is not changed")? {
            Answer::Accepted { .. } => report.imported += 1,
            Answer::Refused(rejection) => report.refuse(line, &id, format!("is refused: {}", rejection.code())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_taken_over_to_the_minor_unit_or_not_at_all() {
        for (text, amount) in
            [("20", 2_000), ("20.0", 2_000), ("0.01", 1), ("19.90", 1_990), ("1.500", 150), ("007.5", 750)]
        {
            assert_eq!(minor_units("x", text), Ok(amount), "{text}");
        }
        for bad in ["", "-1", "1.005", "1e3", "1,5", "abc", ".5", "10000000000.01", "1.2.3"] {
            assert!(minor_units("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_read_as_postgres_and_json_print_them() {
        let of = |text: &str| list("x", &Some(text.to_owned()));
        assert_eq!(of("{a,\"b c\",3}"), Ok(vec!["a".into(), "b c".into(), "3".into()]));
        assert_eq!(of("[1,\"b\"]"), Ok(vec!["1".into(), "b".into()]));
        assert_eq!((of("{}"), of(""), of("NULL")), (Ok(vec![]), Ok(vec![]), Ok(vec![])));
        assert!(of("a,b").is_err());
    }

    #[test]
    fn times_without_an_offset_are_in_the_zone_of_the_import() {
        let options = ImportOptions {
            tenant: TenantId(Uuid::nil()),
            percent: None,
            time_zone: TimeZone::get("Asia/Shanghai").expect("a zone"),
            dry_run: false,
            opening: false,
        };
        let at = |text: &str| options.time("x", text).map(|at| at.0);
        let noon = at("2026-02-09T04:00:00Z").expect("a time");
        assert_eq!(at("2026-02-09 12:00:00"), Ok(noon));
        assert_eq!(at("2026-02-09 12:00:00.000"), Ok(noon));
        assert_eq!(at("2026-02-09T12:00:00+08:00"), Ok(noon));
        assert!(at("yesterday").is_err() && at("1969-12-31T23:59:59Z").is_err());
    }

    #[test]
    fn a_row_has_the_same_id_in_every_run_and_another_in_another_tenant() {
        let (one, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        assert_eq!(template_id(one, "a"), template_id(one, "a"));
        assert_ne!(template_id(one, "a"), template_id(other, "a"));
        assert_ne!(template_id(one, "a").0, coupon_id(one, "a").0);
    }
}
