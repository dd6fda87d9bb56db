//! What is bought, as quotes and orders name it; and the clock of the tenant's place, by which some coupons can be used.

use std::collections::HashSet;

use scrip_domain::coupon::MAX_AMOUNT;
use scrip_domain::pricing::{Attributes, Line, MAX_COUPONS, MAX_LINES, MAX_POINTS_RATIO, MAX_QUANTITY};
use scrip_domain::time::LocalTime;
use scrip_domain::{CouponId, TenantId, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::AppState;
use super::extract::Object;
use super::fields::FieldErrors;
use super::orders::RefundLineRequest;
use super::problem::Problem;
use crate::calendar;

const MAX_CATEGORIES: usize = 50;
const MAX_ATTRIBUTES: usize = 50;
const MAX_ATTRIBUTE: usize = 200;

/// A line of goods.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Line)]
pub struct LineRequest {
    /// Your name of the line, unique in the order.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    item_id: Option<String>,
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    product_id: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    sku_id: Option<String>,
    /// Default: none.
    #[schema(max_items = 50)]
    category_ids: Option<Vec<String>>,
    /// In minor units.
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000_000_000i64)]
    unit_price: Option<i64>,
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000)]
    quantity: Option<i64>,
    /// How much of the usual points the item earns, in percent. Default: 100.
    #[schema(minimum = 0, maximum = 1000)]
    points_ratio: Option<i64>,
}

/// The lines, when all are right.
pub fn check_lines(errors: &mut FieldErrors, lines: Option<Vec<Object<LineRequest>>>) -> Option<Vec<Line>> {
    let lines = errors.required("lines", lines)?;
    if lines.is_empty() || lines.len() > MAX_LINES {
        let message = format!("has {} entries", lines.len());
        errors.add("lines", message, format!("Send 1 to {MAX_LINES} lines."));
        return None;
    }
    let mut item_ids = HashSet::with_capacity(lines.len());
    let mut checked = Vec::with_capacity(lines.len());
    for (index, Object(line)) in lines.into_iter().enumerate() {
        let field = |name: &str| format!("lines[{index}].{name}");
        let item_id = errors.required(field("item_id"), line.item_id).unwrap_or_default();
        errors.text(field("item_id"), &item_id, 1..=64);
        let product_id = errors.required(field("product_id"), line.product_id).unwrap_or_default();
        errors.text(field("product_id"), &product_id, 1..=64);
        if let Some(sku_id) = &line.sku_id {
            errors.text(field("sku_id"), sku_id, 1..=64);
        }
        let category_ids = line.category_ids.unwrap_or_default();
        if category_ids.len() > MAX_CATEGORIES {
            let message = format!("has {} entries", category_ids.len());
            errors.add(field("category_ids"), message, format!("Send at most {MAX_CATEGORIES}."));
        }
        for (place, category) in category_ids.iter().enumerate().take(MAX_CATEGORIES) {
            errors.text(format!("lines[{index}].category_ids[{place}]"), category, 1..=64);
        }
        let unit_price = errors.integer(field("unit_price"), line.unit_price, 0..=MAX_AMOUNT);
        let quantity = errors.integer(field("quantity"), line.quantity, 1..=MAX_QUANTITY);
        let ratio = line.points_ratio.unwrap_or(100);
        let points_ratio = errors.within(field("points_ratio"), ratio, 0..=MAX_POINTS_RATIO.into());
        if !item_ids.insert(item_id.clone()) {
            errors.add(field("item_id"), "is given twice", "Give every line a name of its own.");
        }
        if let (Some(unit_price), Some(quantity), Some(points_ratio)) = (unit_price, quantity, points_ratio) {
            let points_ratio = u16::try_from(points_ratio).unwrap_or(MAX_POINTS_RATIO);
            let sku_id = line.sku_id;
            checked.push(Line { item_id, product_id, sku_id, category_ids, unit_price, quantity, points_ratio });
        }
    }
    Some(checked)
}

/// The units of lines that stand in a refund, and nothing else of them.
pub fn check_units(errors: &mut FieldErrors, lines: Vec<Object<LineRequest>>) -> Vec<Object<RefundLineRequest>> {
    let units = |(index, Object(line)): (usize, Object<LineRequest>)| {
        let foreign = [
            ("product_id", line.product_id.is_some()),
            ("sku_id", line.sku_id.is_some()),
            ("category_ids", line.category_ids.is_some()),
            ("unit_price", line.unit_price.is_some()),
            ("points_ratio", line.points_ratio.is_some()),
        ];
        for (field, _) in foreign.iter().filter(|(_, given)| *given) {
            let remedy = "Leave it out. Known are: item_id, quantity.";
            errors.add(format!("lines[{index}].{field}"), "does not belong to this op", remedy);
        }
        Object(RefundLineRequest { item_id: line.item_id, quantity: line.quantity })
    };
    lines.into_iter().enumerate().map(units).collect()
}

/// The ids of an order's coupons, each once.
pub fn check_coupon_ids(errors: &mut FieldErrors, ids: &[CouponId]) {
    if ids.len() > MAX_COUPONS {
        let message = format!("has {} entries", ids.len());
        errors.add("coupon_ids", message, format!("Send at most {MAX_COUPONS}."));
    }
    let mut known = HashSet::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        if !known.insert(id) {
            errors.add(format!("coupon_ids[{index}]"), "is given twice", "Send each coupon once.");
        }
    }
}

/// Names with texts, integers or truth values.
pub fn check_attributes(errors: &mut FieldErrors, field: &'static str, attributes: &Attributes) {
    if attributes.len() > MAX_ATTRIBUTES {
        let message = format!("has {} entries", attributes.len());
        errors.add(field, message, format!("Send at most {MAX_ATTRIBUTES}."));
    }
    for (name, value) in attributes.iter().take(MAX_ATTRIBUTES) {
        errors.text(field, name, 1..=64);
        let place = format!("{field}.{name}");
        match value {
            Value::String(text) => errors.text(place, text, 0..=MAX_ATTRIBUTE),
            Value::Bool(_) => {}
            Value::Number(number) if number.is_i64() => {}
            _ => errors.add(place, "is of another type", "Send a string, an integer, true or false."),
        }
    }
}

impl AppState {
    /// An instant on the clock of the tenant's place.
    pub async fn local_time(&self, tenant: TenantId, at: Timestamp) -> Result<LocalTime, Problem> {
        Ok(calendar::local_time(&self.store.zone(tenant).await?, at))
    }
}
