//! What the quote scenario buys and with which coupons: 20 lines, and a wallet of 20 coupons of every benefit, of which some
//! exclude each other, some do not apply, and some ask a condition. The search for the best combination has work to do.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Api, SLOT};

/// Members with such a wallet.
pub const MEMBERS: u64 = 500;
const LINES: usize = 20;
const PRODUCTS: usize = 12;
const CATEGORIES: usize = 4;

/// The templates of the wallet: benefit and terms.
fn templates() -> Vec<(Value, Value)> {
    let amount = |amount: i64| json!({"type": "AMOUNT_OFF", "amount": amount});
    let percent = |percent: f64| json!({"type": "PERCENT_OFF", "percent_off": percent, "max_amount": 6000});
    let stackable = |terms: Value| with(terms, json!({"stacking": "STACKABLE"}));
    let of_category = |number: usize| json!({"scope": {"categories": [format!("c{number}")]}});
    vec![
        (amount(2_000), stackable(json!({"min_order_amount": 10_000}))),
        (amount(1_500), stackable(of_category(0))),
        (amount(900), stackable(json!({}))),
        (amount(700), stackable(of_category(1))),
        (amount(12_000), json!({"stacking": "EXCLUSIVE", "min_order_amount": 50_000})),
        (amount(5_000), json!({"min_order_amount": 1_000_000})),
        (percent(10.0), stackable(json!({}))),
        (percent(12.5), json!({})),
        (percent(20.0), stackable(of_category(2))),
        (percent(5.0), stackable(json!({"scope": {"excluded_products": ["p1", "p2", "p3"]}}))),
        (percent(30.0), json!({"stacking": "EXCLUSIVE", "member_levels": []})),
        (json!({"type": "EXCHANGE", "product_id": "p4"}), stackable(json!({}))),
        (json!({"type": "EXCHANGE", "product_id": "nowhere"}), json!({})),
        (json!({"type": "BUY_X_GET_Y", "buy_quantity": 4, "get_quantity": 1}), stackable(of_category(3))),
        (
            json!({"type": "BUY_X_GET_Y", "buy_quantity": 1, "get_quantity": 1, "percent_off": 50, "max_sets": 3}),
            json!({}),
        ),
        (
            json!({"type": "TIERED", "steps": [{"min_amount": 20_000, "amount": 1_000}, {"min_amount": 80_000, "amount": 6_000}]}),
            stackable(json!({})),
        ),
        (json!({"type": "TIERED", "steps": [{"min_amount": 10_000, "percent_off": 3}]}), json!({})),
        (json!({"type": "FREE_SHIPPING"}), stackable(json!({}))),
        (json!({"type": "FIXED_PRICE", "price": 2_000, "max_quantity": 2}), stackable(of_category(0))),
        (
            amount(1_100),
            stackable(json!({"condition": "order.quantity >= 10 && order.lines.exists(l, l.unit_price > 500)"})),
        ),
    ]
}

fn with(mut terms: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        terms[name] = value.clone();
    }
    terms
}

/// Makes the templates; their ids.
pub async fn create_templates(api: &mut Api) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for (number, (benefit, terms)) in templates().into_iter().enumerate() {
        let validity = json!({"type": "RELATIVE", "days": 30});
        let body = json!({"name": format!("bench quote {number}"), "benefit": benefit, "validity": validity});
        let created = api.post("/v1/coupon-templates", &with(body, terms)).await?.json(201)?;
        ids.push(created["id"].as_str().context("a template without id")?.to_owned());
    }
    Ok(ids)
}

/// The request: the best of the member's coupons for 20 lines. The member's number has a place.
pub fn body(run: &str) -> String {
    let line = |number: usize| {
        json!({
            "item_id": format!("i{number}"), "product_id": format!("p{}", number % PRODUCTS),
            "category_ids": [format!("c{}", number % CATEGORIES)],
            "unit_price": 499 + 731 * number, "quantity": 1 + number % 3,
        })
    };
    let lines: Vec<Value> = (0..LINES).map(line).collect();
    json!({"member_id": format!("{}{SLOT}", member_prefix(run)), "lines": lines, "freight": 800, "best": true})
        .to_string()
}

/// What a member's number follows.
pub fn member_prefix(run: &str) -> String {
    format!("q{run}-")
}
