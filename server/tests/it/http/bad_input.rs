//! Bad input, case by case: the status, the code and the field that the caller is told, and that nothing has changed.

use serde_json::{Value, json};

use super::{PLATFORM_KEY, Server, Shop, start, template, text};
use crate::harness::{KINDS, Kind};

const HUGE: &str = "9223372036854775808";

/// Method and path, body, status, code, bad fields (`-`: none is named).
///
/// `T`, `C`, `H`, `X` stand for a template, a coupon, a hold and a transaction of the tenant, `0` for the id of none.
const CASES: &[(&str, &str, u16, &str, &str)] = &[
    // Bodies that are none.
    ("POST /v1/coupon-templates", "", 400, "INVALID_REQUEST", "name benefit validity"),
    ("POST /v1/coupon-templates", "{", 400, "MALFORMED_BODY", "-"),
    ("POST /v1/coupon-templates", "{} {}", 400, "MALFORMED_BODY", "-"),
    ("POST /v1/coupon-templates", "[]", 400, "INVALID_REQUEST", "body"),
    // Some clients write null for no body.
    ("POST /v1/coupon-templates", "null", 400, "INVALID_REQUEST", "name benefit validity"),
    ("POST /v1/coupon-templates", "\"x\"", 400, "INVALID_REQUEST", "body"),
    ("POST /v1/coupon-templates", "12", 400, "INVALID_REQUEST", "body"),
    ("POST /v1/coupon-templates", "{\"name\":\"\\ud800\"}", 400, "MALFORMED_BODY", "-"),
    // Templates. B is a good benefit, V a good validity.
    ("POST /v1/coupon-templates", "{B,V}", 400, "INVALID_REQUEST", "name"),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",V}", 400, "INVALID_REQUEST", "benefit"),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",B}", 400, "INVALID_REQUEST", "validity"),
    ("POST /v1/coupon-templates", "{\"name\":\"\",B,V}", 400, "INVALID_REQUEST", "name"),
    ("POST /v1/coupon-templates", "{\"name\":5,B,V}", 400, "INVALID_REQUEST", "name"),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",B,V,\"colour\":1}", 400, "INVALID_REQUEST", "colour"),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",\"name\":\"m\",B,V}", 400, "INVALID_REQUEST", "name"),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"FREE\"}}",
        400,
        "INVALID_REQUEST",
        "benefit.type",
    ),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",V,\"benefit\":{}}", 400, "INVALID_REQUEST", "benefit.type"),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"AMOUNT_OFF\"}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":0}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":-1}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":1.5}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":HUGE}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"PERCENT_OFF\",\"percent_off\":100}}",
        400,
        "INVALID_REQUEST",
        "benefit.percent_off",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"PERCENT_OFF\",\"percent_off\":0}}",
        400,
        "INVALID_REQUEST",
        "benefit.percent_off",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"PERCENT_OFF\",\"percent_off\":10,\"max_amount\":0}}",
        400,
        "INVALID_REQUEST",
        "benefit.max_amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"EXCHANGE\"}}",
        400,
        "INVALID_REQUEST",
        "benefit.product_id",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,\"validity\":{\"type\":\"RELATIVE\",\"days\":0}}",
        400,
        "INVALID_REQUEST",
        "validity.days",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,\"validity\":{\"type\":\"RELATIVE\",\"days\":100000000}}",
        400,
        "INVALID_REQUEST",
        "validity.days",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,\"validity\":{\"type\":\"FIXED\",\"starts_at\":\"2026-01-01T00:00:00Z\"}}",
        400,
        "INVALID_REQUEST",
        "validity.ends_at",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,\"validity\":{\"type\":\"FIXED\",\"starts_at\":\"2026-01-02T00:00:00Z\",\"ends_at\":\"2026-01-01T00:00:00Z\"}}",
        400,
        "INVALID_REQUEST",
        "validity.ends_at",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,\"validity\":{\"type\":\"FIXED\",\"starts_at\":\"yesterday\",\"ends_at\":\"2026-01-01\"}}",
        400,
        "INVALID_REQUEST",
        "validity.starts_at validity.ends_at",
    ),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",B,V,\"total_stock\":-1}", 400, "INVALID_REQUEST", "total_stock"),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",B,V,\"total_stock\":HUGE}", 400, "INVALID_REQUEST", "total_stock"),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"limit_per_member\":0}",
        400,
        "INVALID_REQUEST",
        "limit_per_member",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"min_order_amount\":-1,\"min_pay_amount\":-1}",
        400,
        "INVALID_REQUEST",
        "min_order_amount min_pay_amount",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"refund_extend_days\":-1}",
        400,
        "INVALID_REQUEST",
        "refund_extend_days",
    ),
    ("POST /v1/coupon-templates", "{\"name\":\"n\",B,V,\"metadata\":[]}", 400, "INVALID_REQUEST", "metadata"),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"scope\":{\"products\":[\"\"]}}",
        400,
        "INVALID_REQUEST",
        "scope.products[0]",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"scope\":{\"brands\":[]}}",
        400,
        "INVALID_REQUEST",
        "scope.brands",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"distribution\":{\"starts_at\":\"2026-01-02T00:00:00Z\",\"ends_at\":\"2026-01-01T00:00:00Z\"}}",
        400,
        "INVALID_REQUEST",
        "distribution.ends_at",
    ),
    ("GET /v1/coupon-templates/tpl_1", "", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("GET /v1/coupon-templates/tpl_0", "", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("GET /v1/coupon-templates/C", "", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("POST /v1/coupon-templates/tpl_0/enable", "{}", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("POST /v1/coupon-templates/T/stock", "{}", 400, "INVALID_REQUEST", "change"),
    ("POST /v1/coupon-templates/T/stock", "{\"change\":0}", 400, "INVALID_REQUEST", "change"),
    ("POST /v1/coupon-templates/T/stock", "{\"change\":HUGE}", 400, "INVALID_REQUEST", "change"),
    ("POST /v1/coupon-templates/T/stock", "{\"change\":-100}", 422, "COUPON_STOCK_OUT_OF_RANGE", "-"),
    ("PATCH /v1/coupon-templates/T", "{\"name\":\"x\"}", 428, "PRECONDITION_REQUIRED", "-"),
    ("DELETE /v1/coupon-templates/T", "", 409, "COUPON_TEMPLATE_IN_USE", "-"),
    ("GET /v1/coupon-templates?enabled=maybe", "", 400, "INVALID_REQUEST", "enabled"),
    ("GET /v1/coupon-templates?type=FREE&limit=0", "", 400, "INVALID_REQUEST", "type limit"),
    // Rules.
    ("POST /v1/quotes", "{}", 400, "INVALID_REQUEST", "member_id lines"),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"a b\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "member_id",
    ),
    ("POST /v1/quotes", "{\"member_id\":\"m-1\",\"lines\":[]}", 400, "INVALID_REQUEST", "lines"),
    ("POST /v1/quotes", "{\"member_id\":\"m-1\",\"lines\":{}}", 400, "INVALID_REQUEST", "lines"),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].item_id lines[0].product_id lines[0].unit_price lines[0].quantity",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1},{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "lines[1].item_id",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":-1,\"quantity\":0}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].unit_price lines[0].quantity",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1.5,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].unit_price",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1,\"points_ratio\":1001}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].points_ratio",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1,\"category_ids\":[\"\"]}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].category_ids[0]",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1,\"price\":1}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].price",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"freight\":-1}",
        400,
        "INVALID_REQUEST",
        "freight",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"points\":-1}",
        400,
        "INVALID_REQUEST",
        "points",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"points\":HUGE}",
        400,
        "INVALID_REQUEST",
        "points",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"coupon_ids\":[\"x\"]}",
        400,
        "INVALID_REQUEST",
        "coupon_ids[0]",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"coupon_ids\":[\"cpn_00000000000000000000000000000001\",\"cpn_00000000000000000000000000000001\"]}",
        400,
        "INVALID_REQUEST",
        "coupon_ids[1]",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"best\":\"yes\"}",
        400,
        "INVALID_REQUEST",
        "best",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"attributes\":{\"a\":[1],\"b\":1.5,\"c\":null}}",
        400,
        "INVALID_REQUEST",
        "attributes.a attributes.b attributes.c",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"member_attributes\":[]}",
        400,
        "INVALID_REQUEST",
        "member_attributes",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"as_of\":\"soon\"}",
        400,
        "INVALID_REQUEST",
        "as_of",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"member_level\":\"\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "member_level",
    ),
    (
        "POST /v1/quotes",
        "{\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"expires_at\":null}",
        400,
        "INVALID_REQUEST",
        "expires_at",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"BUY_X_GET_Y\",\"buy_quantity\":0}}",
        400,
        "INVALID_REQUEST",
        "benefit.buy_quantity benefit.get_quantity",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"TIERED\",\"steps\":[{\"min_amount\":1,\"amount\":1,\"percent_off\":1}]}}",
        400,
        "INVALID_REQUEST",
        "benefit.steps[0]",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"PERCENT_OFF\",\"percent_off\":12.345}}",
        400,
        "INVALID_REQUEST",
        "benefit.percent_off",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"PERCENT_OFF\",\"percent_off\":\"10\"}}",
        400,
        "INVALID_REQUEST",
        "benefit.percent_off",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",V,\"benefit\":{\"type\":\"FIXED_PRICE\",\"amount\":5}}",
        400,
        "INVALID_REQUEST",
        "benefit.amount benefit.price",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"stacking\":\"SOMETIMES\"}",
        400,
        "INVALID_REQUEST",
        "stacking",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"condition\":\"order.amount >\"}",
        400,
        "INVALID_REQUEST",
        "condition",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"condition\":\"((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))\"}",
        400,
        "INVALID_REQUEST",
        "condition",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"usable_hours\":[{\"from\":\"25:00\",\"to\":\"26:00\"}]}",
        400,
        "INVALID_REQUEST",
        "usable_hours[0].from",
    ),
    (
        "POST /v1/coupon-templates",
        "{\"name\":\"n\",B,V,\"excluded_dates\":[\"24.12.2026\"]}",
        400,
        "INVALID_REQUEST",
        "excluded_dates[0]",
    ),
    ("PUT /v1/points-rules", "{}", 428, "PRECONDITION_REQUIRED", "-"),
    (
        "PUT /v1/points-rules",
        "{\"earn\":{\"ratio\":0,\"base\":\"x\"},\"colour\":1}",
        400,
        "INVALID_REQUEST",
        "colour earn.base earn.ratio",
    ),
    (
        "PUT /v1/points-rules",
        "{\"earn\":{\"max_points_per_day\":0,\"max_points_per_week\":HUGE,\"max_points_per_month\":\"x\"}}",
        400,
        "INVALID_REQUEST",
        "earn.max_points_per_day earn.max_points_per_month earn.max_points_per_week",
    ),
    ("PUT /v1/points-rules", "{\"validity\":{\"type\":\"WEEKS\"}}", 400, "INVALID_REQUEST", "validity.type"),
    ("PUT /v1/points-rules", "{\"validity\":{\"type\":\"INACTIVITY\"}}", 400, "INVALID_REQUEST", "validity.days"),
    (
        "PUT /v1/points-rules",
        "{\"validity\":{\"type\":\"INACTIVITY\",\"days\":3651,\"after_years\":1}}",
        400,
        "INVALID_REQUEST",
        "validity.after_years validity.days",
    ),
    ("PUT /v1/points-rules", "{\"redeem\":{\"ratio\":HUGE}}", 400, "INVALID_REQUEST", "redeem.ratio"),
    ("PUT /v1/points-rules", "{\"refund\":{\"debt_policy\":\"X\"}}", 400, "INVALID_REQUEST", "refund.debt_policy"),
    ("PUT /v1/points-rules", "{\"refund\":\"FORGIVE\"}", 400, "INVALID_REQUEST", "refund"),
    ("GET /v1/points-rules?at=yesterday", "", 400, "INVALID_REQUEST", "at"),
    ("GET /v1/points-rules/versions?cursor=x", "", 400, "INVALID_REQUEST", "cursor"),
    // Claims and coupons.
    ("POST /v1/coupon-templates/T/claims", "{}", 400, "INVALID_REQUEST", "member_id"),
    (
        "POST /v1/coupon-templates/T/exchanges",
        "{\"member_id\":7,\"points\":1}",
        400,
        "INVALID_REQUEST",
        "member_id points",
    ),
    ("POST /v1/coupon-templates/T/exchanges", "{\"member_id\":\"a b\"}", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/coupon-templates/T/exchanges", "{\"member_id\":\"m-1\"}", 422, "COUPON_NOT_FOR_POINTS", "-"),
    ("POST /v1/coupon-templates/tpl_0/exchanges", "{\"member_id\":\"m-9\"}", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("POST /v1/coupon-templates/T/claims", "{\"member_id\":\"\"}", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/coupon-templates/T/claims", "{\"member_id\":\"a b\"}", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/coupon-templates/T/claims", "{\"member_id\":\"mü\"}", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/coupon-templates/T/claims", "{\"member_id\":7}", 400, "INVALID_REQUEST", "member_id"),
    (
        "POST /v1/coupon-templates/T/claims",
        "{\"member_id\":\"m-9\",\"effective_at\":\"2199-01-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "effective_at",
    ),
    ("POST /v1/coupon-templates/tpl_0/claims", "{\"member_id\":\"m-9\"}", 404, "COUPON_TEMPLATE_NOT_FOUND", "-"),
    ("POST /v1/coupon-templates/T/claims", "{\"member_id\":\"m-1\"}", 422, "COUPON_LIMIT_REACHED", "-"),
    ("GET /v1/coupons/cpn_0", "", 404, "COUPON_NOT_FOUND", "-"),
    ("GET /v1/coupons/T", "", 404, "COUPON_NOT_FOUND", "-"),
    ("GET /v1/members/m-1/coupons?status=NEW", "", 400, "INVALID_REQUEST", "status"),
    ("GET /v1/members/m-1/coupons?template_id=x", "", 400, "INVALID_REQUEST", "template_id"),
    ("GET /v1/members/a%20b/coupons", "", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/coupons/C/lock", "{}", 400, "INVALID_REQUEST", "order_id"),
    ("POST /v1/coupons/C/lock", "{\"order_id\":\"\"}", 400, "INVALID_REQUEST", "order_id"),
    (
        "POST /v1/coupons/C/lock",
        "{\"order_id\":\"o\",\"expires_at\":\"2020-01-01T00:00:00Z\"}",
        422,
        "DEADLINE_PASSED",
        "-",
    ),
    ("POST /v1/coupons/C/lock", "{\"order_id\":\"o\",\"expires_at\":5}", 400, "INVALID_REQUEST", "expires_at"),
    ("POST /v1/coupons/C/use", "{\"order_id\":\"o\"}", 409, "COUPON_NOT_LOCKED", "-"),
    (
        "POST /v1/coupons/C/use",
        "{\"order_id\":\"o\",\"discount_amount\":-1}",
        400,
        "INVALID_REQUEST",
        "discount_amount",
    ),
    ("POST /v1/coupons/C/return", "{\"order_id\":\"o\"}", 409, "COUPON_NOT_USED", "-"),
    ("POST /v1/coupons/C/revoke", "{}", 400, "INVALID_REQUEST", "reason"),
    ("POST /v1/coupons/cpn_0/lock", "{\"order_id\":\"o\"}", 404, "COUPON_NOT_FOUND", "-"),
    ("POST /v1/coupons/cpn_0/return", "{\"order_id\":\"o\"}", 404, "COUPON_NOT_FOUND", "-"),
    ("POST /v1/points-rules/simulations", "{}", 400, "INVALID_REQUEST", "rules"),
    (
        "POST /v1/points-rules/simulations",
        "{\"rules\":{\"earn\":{\"ratio\":0}},\"limit\":0}",
        400,
        "INVALID_REQUEST",
        "earn.ratio limit",
    ),
    // Orders.
    ("POST /v1/orders", "{}", 400, "INVALID_REQUEST", "order_id member_id lines"),
    (
        "POST /v1/orders",
        "{\"order_id\":\"\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "order_id",
    ),
    ("POST /v1/orders", "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[]}", 400, "INVALID_REQUEST", "lines"),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1},{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "lines[1].item_id",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"freight\":-1,\"points\":-1}",
        400,
        "INVALID_REQUEST",
        "freight points",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"coupon_ids\":[\"x\"]}",
        400,
        "INVALID_REQUEST",
        "coupon_ids[0]",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"best\":true}",
        400,
        "INVALID_REQUEST",
        "best",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"expires_at\":\"2199-01-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "expires_at",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"expires_at\":\"2020-01-01T00:00:00Z\"}",
        422,
        "DEADLINE_PASSED",
        "-",
    ),
    (
        "POST /v1/orders",
        "{\"order_id\":\"o\",\"member_id\":\"m-1\",\"lines\":[{\"item_id\":\"i\",\"product_id\":\"p\",\"unit_price\":1,\"quantity\":1}],\"coupon_ids\":[\"cpn_00000000000000000000000000000001\"]}",
        404,
        "COUPON_NOT_FOUND",
        "-",
    ),
    ("GET /v1/orders/none", "", 404, "ORDER_NOT_FOUND", "-"),
    ("GET /v1/orders/a%20b", "", 404, "ORDER_NOT_FOUND", "-"),
    ("POST /v1/orders/none/pay", "{}", 404, "ORDER_NOT_FOUND", "-"),
    ("POST /v1/orders/none/confirm", "{}", 404, "ORDER_NOT_FOUND", "-"),
    ("POST /v1/orders/none/confirm", "{\"points\":1}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/orders/none/pay", "{\"amount\":1}", 400, "INVALID_REQUEST", "amount"),
    ("POST /v1/orders/none/cancel", "{}", 404, "ORDER_NOT_FOUND", "-"),
    ("POST /v1/orders/none/refunds", "{\"refund_id\":\"r\",\"full\":true}", 404, "ORDER_NOT_FOUND", "-"),
    ("POST /v1/orders/none/refunds", "{}", 400, "INVALID_REQUEST", "refund_id lines"),
    (
        "POST /v1/orders/none/refunds",
        "{\"refund_id\":\"r\",\"full\":true,\"freight\":5}",
        400,
        "INVALID_REQUEST",
        "freight",
    ),
    (
        "POST /v1/orders/none/refunds",
        "{\"refund_id\":\"r\",\"lines\":[{\"item_id\":\"a\",\"quantity\":0}]}",
        400,
        "INVALID_REQUEST",
        "lines[0].quantity",
    ),
    (
        "POST /v1/orders/none/refunds",
        "{\"refund_id\":\"r\",\"lines\":[{\"item_id\":\"a\",\"quantity\":1},{\"item_id\":\"a\",\"quantity\":1}]}",
        400,
        "INVALID_REQUEST",
        "lines[1].item_id",
    ),
    ("GET /v1/members/m-1/orders?status=NEW", "", 400, "INVALID_REQUEST", "status"),
    ("GET /v1/coupon-compensations?status=NEW&limit=0", "", 400, "INVALID_REQUEST", "status limit"),
    (
        "POST /v1/coupon-compensations/cmp_0/close",
        "{\"status\":\"RESOLVED\",\"remark\":\"r\"}",
        404,
        "COUPON_COMPENSATION_NOT_FOUND",
        "-",
    ),
    (
        "POST /v1/coupon-compensations/cmp_0/close",
        "{\"status\":\"PENDING\",\"remark\":\"\"}",
        400,
        "INVALID_REQUEST",
        "status remark",
    ),
    // Points.
    ("POST /v1/members/m-1/points/grants", "{}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":0}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":-5}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":\"5\"}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":1e3}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":1e999}", 400, "MALFORMED_BODY", "-"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":HUGE}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":9223372036854775807}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":1000000000000001}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":5,\"type\":\"USE_ORDER\"}", 400, "INVALID_REQUEST", "type"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":5,\"type\":\"earn_order\"}", 400, "INVALID_REQUEST", "type"),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":5,\"expires_at\":\"2020-01-01T00:00:00Z\"}",
        422,
        "DEADLINE_PASSED",
        "-",
    ),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":5,\"expires_at\":\"2020-13-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "expires_at",
    ),
    ("POST /v1/members/m-1/points/grants", "{\"points\":5,\"reference\":\"\"}", 400, "INVALID_REQUEST", "reference"),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":true,\"type\":1,\"colour\":2}",
        400,
        "INVALID_REQUEST",
        "points type colour",
    ),
    ("POST /v1/members/a%20b/points/grants", "{\"points\":5}", 400, "INVALID_REQUEST", "member_id"),
    ("POST /v1/members/m-1/points/debits", "{\"points\":5,\"type\":\"EARN_ORDER\"}", 400, "INVALID_REQUEST", "type"),
    ("POST /v1/members/m-1/points/debits", "{\"points\":100000}", 422, "POINTS_INSUFFICIENT", "-"),
    ("POST /v1/members/nobody/points/debits", "{\"points\":1}", 422, "POINTS_INSUFFICIENT", "-"),
    ("POST /v1/members/m-1/points/holds", "{\"points\":0}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/holds", "{\"points\":100000}", 422, "POINTS_INSUFFICIENT", "-"),
    (
        "POST /v1/members/m-1/points/holds",
        "{\"points\":1,\"expires_at\":\"2020-01-01T00:00:00Z\"}",
        422,
        "DEADLINE_PASSED",
        "-",
    ),
    ("POST /v1/points-holds/H/capture", "{\"points\":0}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/points-holds/H/capture", "{\"points\":11}", 422, "POINTS_CAPTURE_EXCEEDS_HOLD", "-"),
    ("POST /v1/points-holds/hold_0/capture", "{}", 404, "POINTS_HOLD_NOT_FOUND", "-"),
    ("POST /v1/points-holds/hold_0/release", "{}", 404, "POINTS_HOLD_NOT_FOUND", "-"),
    ("POST /v1/points-holds/H/release", "{\"points\":1}", 400, "INVALID_REQUEST", "points"),
    ("GET /v1/points-holds/X", "", 404, "POINTS_HOLD_NOT_FOUND", "-"),
    ("POST /v1/points-transactions/X/reversals", "{\"points\":0}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/points-transactions/X/reversals", "{\"points\":1001}", 422, "POINTS_REVERSAL_EXCEEDS", "-"),
    ("POST /v1/points-transactions/ptx_0/reversals", "{}", 404, "POINTS_TRANSACTION_NOT_FOUND", "-"),
    ("GET /v1/points-transactions/ptx_0", "", 404, "POINTS_TRANSACTION_NOT_FOUND", "-"),
    ("GET /v1/members/m-1/points/transactions?type=NONE&cursor=x", "", 400, "INVALID_REQUEST", "type cursor"),
    ("GET /v1/members/m-1/points/lots?limit=1000", "", 400, "INVALID_REQUEST", "limit"),
    // Distributions.
    ("POST /v1/coupon-templates/T/distributions", "{}", 400, "INVALID_REQUEST", "member_ids"),
    ("POST /v1/coupon-templates/T/distributions", "{\"member_ids\":[]}", 400, "INVALID_REQUEST", "member_ids"),
    (
        "POST /v1/coupon-templates/T/distributions",
        "{\"member_ids\":[1]}",
        400,
        "INVALID_REQUEST",
        "member_ids[0] member_ids",
    ),
    (
        "POST /v1/coupon-templates/T/distributions",
        "{\"member_ids\":[\"m-1\",\"a b\"],\"member_levels\":{\"m-1\":\"\",\"m-9\":\"GOLD\"}}",
        400,
        "INVALID_REQUEST",
        "member_ids[1] member_levels.m-1 member_levels.m-9",
    ),
    (
        "POST /v1/coupon-templates/T/distributions",
        "{\"members\":[\"m\"]}",
        400,
        "INVALID_REQUEST",
        "members member_ids",
    ),
    (
        "POST /v1/coupon-templates/tpl_0/distributions",
        "{\"member_ids\":[\"m\"]}",
        404,
        "COUPON_TEMPLATE_NOT_FOUND",
        "-",
    ),
    ("GET /v1/distributions?limit=x", "", 400, "INVALID_REQUEST", "limit"),
    ("GET /v1/distributions/blk_0", "", 404, "BULK_NOT_FOUND", "-"),
    ("GET /v1/distributions/blk_0/results", "", 404, "BULK_NOT_FOUND", "-"),
    (
        "GET /v1/distributions/blk_0/results?outcome=GONE&format=xml&cursor=-1",
        "",
        400,
        "INVALID_REQUEST",
        "outcome format cursor",
    ),
    ("POST /v1/distributions/blk_0/cancel", "{}", 404, "BULK_NOT_FOUND", "-"),
    ("POST /v1/points-grants", "{}", 415, "UNSUPPORTED_MEDIA_TYPE", "-"),
    ("GET /v1/points-grants/C", "", 404, "BULK_NOT_FOUND", "-"),
    ("POST /v1/points-grants/blk_0/cancel", "{\"now\":1}", 400, "INVALID_REQUEST", "now"),
    // Jobs.
    ("POST /v1/members/m-1/points/grants", "{\"points\":1,\"mode\":\"later\"}", 400, "INVALID_REQUEST", "mode"),
    ("POST /v1/members/m-1/points/grants", "{\"points\":0,\"mode\":\"async\"}", 400, "INVALID_REQUEST", "points"),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"mode\":\"async\",\"expires_at\":\"2020-01-01T00:00:00Z\"}",
        422,
        "DEADLINE_PASSED",
        "-",
    ),
    ("GET /v1/jobs?state=LOST&kind=NONE&limit=0", "", 400, "INVALID_REQUEST", "state kind limit"),
    ("GET /v1/jobs/job_0", "", 404, "JOB_NOT_FOUND", "-"),
    ("GET /v1/jobs/C", "", 404, "JOB_NOT_FOUND", "-"),
    ("POST /v1/jobs/job_0/retry", "{}", 404, "JOB_NOT_FOUND", "-"),
    ("POST /v1/jobs/job_0/retry", "{\"at\":1}", 400, "INVALID_REQUEST", "at"),
    ("POST /v1/jobs/job_0/cancel", "{}", 404, "JOB_NOT_FOUND", "-"),
    ("DELETE /v1/jobs", "", 400, "INVALID_REQUEST", "state"),
    ("DELETE /v1/jobs?state=RUNNING", "", 400, "INVALID_REQUEST", "state"),
    ("DELETE /v1/jobs?state=DEAD&finished_before=yesterday", "", 400, "INVALID_REQUEST", "finished_before"),
    // Caches.
    ("POST /v1/cache-evictions", "{\"template_id\":7}", 400, "INVALID_REQUEST", "template_id"),
    ("POST /v1/cache-evictions", "{\"tenant_id\":\"ten_0\"}", 400, "INVALID_REQUEST", "tenant_id"),
    // The rest.
    ("POST /v1/expirations", "{\"limit\":0}", 400, "INVALID_REQUEST", "limit"),
    ("POST /v1/expirations", "{\"limit\":10001}", 400, "INVALID_REQUEST", "limit"),
    ("GET /v1/events?cursor=x&type=nothing", "", 400, "INVALID_REQUEST", "cursor type"),
    ("GET /v1/points/leaderboard?metric=X&period=Y&date=Z", "", 400, "INVALID_REQUEST", "metric period date"),
    ("GET /v1/members/m-1/points/rank?around=51", "", 400, "INVALID_REQUEST", "around"),
    ("GET /v1/reports/points?from=2026-02-01&to=2026-01-01", "", 400, "INVALID_REQUEST", "from"),
    ("GET /v1/reports/points-liability?as_of=yesterday", "", 400, "INVALID_REQUEST", "as_of"),
    ("POST /v1/webhooks", "{}", 400, "INVALID_REQUEST", "url"),
    ("POST /v1/webhooks", "{\"url\":\"shop.example\"}", 400, "INVALID_REQUEST", "url"),
    ("POST /v1/webhooks", "{\"url\":\"http://shop.example/\"}", 400, "INVALID_REQUEST", "url"),
    ("POST /v1/webhooks", "{\"url\":\"https://127.0.0.1/\"}", 400, "INVALID_REQUEST", "url"),
    (
        "POST /v1/webhooks",
        "{\"url\":\"https://shop.example/\",\"types\":[\"coupon.lost\",5],\"after\":\"x\",\"secret\":\"s\"}",
        400,
        "INVALID_REQUEST",
        "after secret types[1]",
    ),
    ("GET /v1/webhooks/whk_0", "", 404, "WEBHOOK_NOT_FOUND", "-"),
    ("GET /v1/webhooks/nonsense", "", 404, "WEBHOOK_NOT_FOUND", "-"),
    ("PATCH /v1/webhooks/whk_0", "{\"description\":\"d\"}", 404, "WEBHOOK_NOT_FOUND", "-"),
    ("DELETE /v1/webhooks/whk_0", "", 404, "WEBHOOK_NOT_FOUND", "-"),
    ("POST /v1/webhooks/whk_0/rotate", "{\"overlap_seconds\":604801}", 400, "INVALID_REQUEST", "overlap_seconds"),
    ("POST /v1/webhooks/whk_0/replay", "{\"after\":\"1\"}", 400, "INVALID_REQUEST", "after"),
    ("POST /v1/webhooks/whk_0/resend", "{}", 400, "INVALID_REQUEST", "position"),
    ("GET /v1/webhooks/whk_0/deliveries?succeeded=maybe", "", 400, "INVALID_REQUEST", "succeeded"),
    // Points that come later, change hands or accounts.
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"available_from\":\"tomorrow\"}",
        400,
        "INVALID_REQUEST",
        "available_from",
    ),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"expires_in_days\":-1}",
        400,
        "INVALID_REQUEST",
        "expires_in_days",
    ),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"expires_in_days\":36501}",
        400,
        "INVALID_REQUEST",
        "expires_in_days",
    ),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"expires_in_days\":1,\"expires_at\":\"2036-01-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "expires_in_days",
    ),
    (
        "POST /v1/members/m-1/points/grants",
        "{\"points\":1,\"available_from\":\"2036-01-02T00:00:00Z\",\"expires_at\":\"2036-01-01T00:00:00Z\"}",
        422,
        "POINTS_EXPIRES_BEFORE_AVAILABLE",
        "-",
    ),
    ("GET /v1/members/m-1/points?as_of=yesterday", "", 400, "INVALID_REQUEST", "as_of"),
    ("GET /v1/members/m-1/points?as_of=2099-01-01T00:00:00Z", "", 400, "INVALID_REQUEST", "as_of"),
    ("POST /v1/members/m-1/points/transfers", "{}", 400, "INVALID_REQUEST", "to_member_id points"),
    (
        "POST /v1/members/m-1/points/transfers",
        "{\"to_member_id\":\"a b\",\"points\":1}",
        400,
        "INVALID_REQUEST",
        "to_member_id",
    ),
    (
        "POST /v1/members/m-1/points/transfers",
        "{\"to_member_id\":\"m-2\",\"points\":0}",
        400,
        "INVALID_REQUEST",
        "points",
    ),
    (
        "POST /v1/members/m-1/points/transfers",
        "{\"to_member_id\":\"m-2\",\"points\":HUGE}",
        400,
        "INVALID_REQUEST",
        "points",
    ),
    (
        "POST /v1/members/m-1/points/transfers",
        "{\"to_member_id\":\"m-1\",\"points\":1}",
        422,
        "POINTS_SAME_MEMBER",
        "-",
    ),
    (
        "POST /v1/members/m-1/points/transfers",
        "{\"to_member_id\":\"m-2\",\"points\":99999}",
        422,
        "POINTS_INSUFFICIENT",
        "-",
    ),
    ("POST /v1/members/m-1/points/merges", "{}", 400, "INVALID_REQUEST", "into_member_id"),
    ("POST /v1/members/m-1/points/merges", "{\"into_member_id\":\"m-1\"}", 422, "POINTS_SAME_MEMBER", "-"),
    ("POST /v1/members/m-1/points/merges", "{\"into_member_id\":\"m-2\"}", 409, "POINTS_HOLDS_OPEN", "-"),
    ("GET /v1/points-adjustments?status=OPEN", "", 400, "INVALID_REQUEST", "status"),
    ("GET /v1/points-adjustments/adj_0", "", 404, "POINTS_ADJUSTMENT_NOT_FOUND", "-"),
    ("POST /v1/points-adjustments/adj_0/approve", "{}", 404, "POINTS_ADJUSTMENT_NOT_FOUND", "-"),
    ("POST /v1/points-adjustments/adj_0/approve", "{\"reason\":\"r\"}", 400, "INVALID_REQUEST", "reason"),
    ("POST /v1/points-adjustments/adj_0/reject", "{}", 400, "INVALID_REQUEST", "reason"),
    ("POST /v1/points-adjustments/adj_0/reject", "{\"reason\":\"r\"}", 404, "POINTS_ADJUSTMENT_NOT_FOUND", "-"),
    ("POST /v1/members/m-1/points/adjustments", "{}", 400, "INVALID_REQUEST", "points reason"),
    ("POST /v1/members/m-1/points/adjustments", "{\"points\":0,\"reason\":\"r\"}", 400, "INVALID_REQUEST", "points"),
    ("POST /v1/members/m-1/points/adjustments", "{\"points\":1,\"reason\":\"\"}", 400, "INVALID_REQUEST", "reason"),
    (
        "POST /v1/members/m-1/points/adjustments",
        "{\"points\":-1,\"reason\":\"r\",\"expires_at\":\"2036-01-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "expires_at",
    ),
    ("GET /v1/members/m-1/points/statement?from=2026-02-01&to=2026-01-01", "", 400, "INVALID_REQUEST", "from"),
    ("GET /v1/members/m-1/points/statement?format=pdf", "", 400, "INVALID_REQUEST", "format"),
    ("GET /v1/members/m-1/points/statement?basis=GUESSED", "", 400, "INVALID_REQUEST", "basis"),
    ("GET /v1/exports/points-transactions?type=GIFT", "", 400, "INVALID_REQUEST", "type"),
    ("GET /v1/exports/points-balances?limit=5", "", 400, "INVALID_REQUEST", "limit"),
    ("GET /v1/points/expiring?within_days=-1", "", 400, "INVALID_REQUEST", "within_days"),
    ("GET /v1/points/expiring?cursor=5", "", 400, "INVALID_REQUEST", "cursor"),
    // Check-ins and tasks.
    ("POST /v1/members/m-1/check-ins", "{\"days\":\"2026-01-01\"}", 400, "INVALID_REQUEST", "days"),
    ("POST /v1/members/m-1/check-ins", "{\"day\":\"2026-02-29\"}", 400, "INVALID_REQUEST", "day"),
    ("POST /v1/members/m-1/check-ins", "{\"day\":-1}", 400, "INVALID_REQUEST", "day"),
    ("POST /v1/members/m-1/check-ins", "{\"day\":\"2026-01-01T00:00:00Z\"}", 400, "INVALID_REQUEST", "day"),
    ("POST /v1/members/m-1/check-ins", "{\"day\":\"2026-01-01\"}", 422, "POINTS_MAKE_UP_DISABLED", "-"),
    ("POST /v1/members/m-1/check-ins", "{\"day\":\"2999-01-01\"}", 422, "POINTS_CHECK_IN_DAY_NOT_PAST", "-"),
    (
        "POST /v1/members/m-1/check-ins",
        "{\"effective_at\":\"2099-01-01T00:00:00Z\"}",
        400,
        "INVALID_REQUEST",
        "effective_at",
    ),
    ("GET /v1/members/m-1/check-ins?month=2026-13", "", 400, "INVALID_REQUEST", "month"),
    ("GET /v1/members/m-1/check-ins?month=2026-03-01", "", 400, "INVALID_REQUEST", "month"),
    ("POST /v1/points-tasks", "{}", 400, "INVALID_REQUEST", "key name points"),
    ("POST /v1/points-tasks", "{\"key\":\"a b\",\"name\":\"n\",\"points\":1}", 400, "INVALID_REQUEST", "key"),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":1,\"period\":\"YEAR\"}",
        400,
        "INVALID_REQUEST",
        "period",
    ),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":0,\"limit_per_period\":2,\"target\":0,\"event_type\":\"points.granted\"}",
        400,
        "INVALID_REQUEST",
        "points limit_per_period target event_type",
    ),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":1,\"enabled\":false}",
        400,
        "INVALID_REQUEST",
        "enabled",
    ),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":1,\"requires\":[\"a\",\"k\",\"a\"]}",
        400,
        "INVALID_REQUEST",
        "requires[1] requires[2]",
    ),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":1,\"requires\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\"]}",
        400,
        "INVALID_REQUEST",
        "requires",
    ),
    (
        "POST /v1/points-tasks",
        "{\"key\":\"k\",\"name\":\"n\",\"points\":1,\"requires\":[\"none\"]}",
        422,
        "POINTS_TASK_REQUIRES_UNKNOWN",
        "-",
    ),
    ("GET /v1/points-tasks/nothing", "", 404, "POINTS_TASK_NOT_FOUND", "-"),
    ("PATCH /v1/points-tasks/nothing", "{}", 428, "PRECONDITION_REQUIRED", "-"),
    ("DELETE /v1/points-tasks/nothing", "", 404, "POINTS_TASK_NOT_FOUND", "-"),
    ("POST /v1/members/m-1/tasks/nothing/completions", "{}", 400, "INVALID_REQUEST", "completion_id"),
    ("POST /v1/members/m-1/tasks/nothing/completions", "{\"completion_id\":\"c\"}", 404, "POINTS_TASK_NOT_FOUND", "-"),
    ("GET /v1/nothing", "", 404, "NOT_FOUND", "-"),
    ("PUT /v1/coupon-templates", "{}", 405, "METHOD_NOT_ALLOWED", "-"),
    ("POST /v1/tenants", "{\"name\":\"x\"}", 403, "SCOPE_REQUIRED", "-"),
];

struct Ids {
    template: String,
    coupon: String,
    hold: String,
    transaction: String,
}

async fn objects(server: &Server, shop: &Shop) -> Ids {
    let mut client = server.client(&shop.operator).await;
    let mut asked = template();
    asked["total_stock"] = json!(10);
    let template = client.post("/v1/coupon-templates", asked).await.json(201);
    let template = text(&template, "id").to_owned();
    let claims = format!("/v1/coupon-templates/{template}/claims");
    let coupon = client.post(&claims, json!({ "member_id": "m-1" })).await.json(201);
    let grant = client.post("/v1/members/m-1/points/grants", json!({ "points": 1_000 })).await.json(201);
    let hold = client.post("/v1/members/m-1/points/holds", json!({ "points": 10 })).await.json(201);
    let id = |value: &Value| text(value, "id").to_owned();
    Ids { template, coupon: id(&coupon), hold: id(&hold), transaction: id(&grant) }
}

impl Ids {
    /// The path with the ids that its parts stand for.
    fn fill(&self, path: &str) -> String {
        let part = |part: &str| match part {
            "T" => self.template.clone(),
            "C" => self.coupon.clone(),
            "H" => self.hold.clone(),
            "X" => self.transaction.clone(),
            _ => match part.strip_suffix("_0") {
                Some(prefix) => format!("{prefix}_{}", "0".repeat(32)),
                None => part.to_owned(),
            },
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

fn fill_body(body: &str) -> String {
    body.replace("{B,", "{\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":5},")
        .replace(",B", ",\"benefit\":{\"type\":\"AMOUNT_OFF\",\"amount\":5}")
        .replace(",V", ",\"validity\":{\"type\":\"RELATIVE\",\"days\":30}")
        .replace("HUGE", HUGE)
}

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let ids = objects(&server, &shop).await;
    let mut client = server.client(&shop.operator).await;
    let books = async |client: &mut super::Client| {
        (server.event_count().await, client.get("/v1/members/m-1/points/transactions").await.json(200))
    };
    let before = books(&mut client).await;
    let mut wrong = Vec::new();
    for (request, body, status, code, fields) in CASES {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let (path, body) = (ids.fill(path), fill_body(body));
        let headers: &[(&str, &str)] =
            if body.is_empty() { &[] } else { &[("content-type", "application/json"), ("accept-language", "en")] };
        let answer = client.send(method, &path, headers, body.clone()).await;
        let problem = answer.value();
        let named: Vec<&str> = problem["errors"]
            .as_array()
            .map_or_else(Vec::new, |errors| errors.iter().map(|e| text(e, "field")).collect());
        let mut expected: Vec<&str> = fields.split(' ').filter(|field| *field != "-").collect();
        let mut found = named.clone();
        expected.sort_unstable();
        found.sort_unstable();
        if answer.status != *status || problem["code"] != *code || found != expected {
            wrong.push(format!("{method} {path} {body}\n  got {} {} {named:?}", answer.status, problem["code"]));
            continue;
        }
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("x-request-id"), problem["request_id"].as_str());
        for error in problem["errors"].as_array().expect("errors") {
            assert!(!text(error, "message").is_empty() && !text(error, "remedy").is_empty(), "{error}");
        }
        let chinese = [("content-type", "application/json"), ("accept-language", "zh-CN,zh;q=0.9,en;q=0.5")];
        let headers = if body.is_empty() { &chinese[1..] } else { &chinese[..] };
        let translated = client.send(method, &path, headers, body).await.value();
        assert_eq!(translated["code"], *code);
        assert!(!text(&translated, "title").is_ascii() && !text(&translated, "detail").is_ascii(), "{translated}");
    }
    assert!(wrong.is_empty(), "{kind:?}: {} cases\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(books(&mut client).await, before, "{kind:?}: bad input has changed something");
    headers_and_sizes(&server, &shop).await;
    server.assert_sound().await;
}

async fn headers_and_sizes(server: &Server, shop: &Shop) {
    let mut client = server.client(&shop.operator).await;
    let grants = "/v1/members/m-1/points/grants";
    let json = ("content-type", "application/json");
    let code =
        |answer: super::Answer| (answer.status.as_u16(), answer.value()["code"].as_str().unwrap_or("").to_owned());
    let plain = client.send("POST", grants, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(code(plain), (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    let none = client.send("POST", grants, &[], "{\"points\":1}").await;
    assert_eq!(code(none), (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    let large = format!("{{\"points\":1,\"remark\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(code(client.send("POST", grants, &[json], large).await), (413, "BODY_TOO_LARGE".into()));
    for key in ["", &"k".repeat(129), "a\u{e9}"] {
        let answer = client.send("POST", grants, &[json, ("idempotency-key", key)], "{\"points\":1}").await;
        assert_eq!(code(answer), (400, "INVALID_REQUEST".into()), "{key:?}");
    }
    files(&mut client).await;
    let lines = [("content-type", "application/x-ndjson")];
    let batch = |text: &str| text.to_owned();
    assert_eq!(code(client.send("POST", "/v1/batch", &lines, "").await).0, 400);
    let many = batch("{\"op\":\"release\",\"hold_id\":\"x\"}\n").repeat(10_001);
    assert_eq!(code(client.send("POST", "/v1/batch", &lines, many).await).0, 413);
    let mixed = "nonsense\n{\"op\":\"fly\"}\n{\"op\":\"grant\"}\n{\"op\":\"grant\",\"member_id\":\"z\",\"points\":1}\n";
    let answer = client.send("POST", "/v1/batch", &lines, mixed).await;
    let statuses: Vec<i64> = answer
        .body
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok()?["status"].as_i64())
        .collect();
    assert_eq!(statuses, [400, 400, 400, 201], "a bad line does not hurt its neighbours");

    let mut platform = server.client(PLATFORM_KEY).await;
    for (path, body, fields) in [
        ("/v1/tenants".to_owned(), json!({}), vec!["name"]),
        ("/v1/tenants".to_owned(), json!({ "name": "n", "currency": "euro" }), vec!["currency"]),
        ("/v1/tenants".to_owned(), json!({ "name": "n", "time_zone": "Mars/Base" }), vec!["time_zone"]),
        ("/v1/tenants".to_owned(), json!({ "name": "n", "refund_grace_days": -1 }), vec!["refund_grace_days"]),
        (format!("/v1/tenants/{}/api-keys", shop.id), json!({ "name": "k" }), vec!["scope"]),
        (format!("/v1/tenants/{}/api-keys", shop.id), json!({ "name": "k", "scope": "MEMBER" }), vec!["member_id"]),
        (
            format!("/v1/tenants/{}/api-keys", shop.id),
            json!({ "name": "k", "scope": "SERVICE", "member_id": "m" }),
            vec!["member_id"],
        ),
        (format!("/v1/tenants/{}/api-keys", shop.id), json!({ "name": "k", "scope": "ROOT" }), vec!["scope"]),
    ] {
        let problem = platform.post(&path, body.clone()).await.json(400);
        let named: Vec<&str> = problem["errors"].as_array().expect("errors").iter().map(|e| text(e, "field")).collect();
        assert_eq!(named, fields, "{path} {body}");
    }
    let keys = format!("/v1/tenants/{}/api-keys", shop.id);
    let soon = json!({ "name": "k", "scope": "SERVICE", "expires_at": "2020-01-01T00:00:00Z" });
    assert!([400, 422].contains(&platform.post(&keys, soon).await.status.as_u16()), "a key that is expired already");
    let made = platform.post(&keys, json!({ "name": "k", "scope": "SERVICE" })).await.json(201);
    let mut revoked = server.client(text(&made, "secret")).await;
    assert_eq!(revoked.get("/v1/events").await.status, 200);
    let path = format!("{keys}/{}", text(&made, "id"));
    assert_eq!(platform.send("DELETE", &path, &[], "").await.status, 204);
    assert_eq!(code(revoked.get("/v1/events").await), (401, "API_KEY_INVALID".into()));
}

/// Files of rows that cannot be used as a whole.
async fn files(client: &mut super::Client) {
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let distributions = format!("/v1/coupon-templates/{}/distributions", text(&made, "id"));
    let (csv, ndjson) = ("text/csv", "application/x-ndjson");
    for (path, kind, body, field) in [
        (distributions.as_str(), csv, "", "body"),
        (&distributions, csv, "name\nm\n", "header"),
        (&distributions, csv, "member_id\n", "body"),
        (&distributions, ndjson, "\n\n", "body"),
        (&distributions, ndjson, &"x".repeat(9_000), "body"),
        ("/v1/points-grants", csv, "member_id\nm\n", "header"),
        ("/v1/points-grants", csv, "member_id,points,points\nm,1,1\n", "header"),
    ] {
        let problem = client.send("POST", path, &[("content-type", kind)], body.to_owned()).await.json(400);
        let named: Vec<&str> = problem["errors"].as_array().expect("errors").iter().map(|e| text(e, "field")).collect();
        assert_eq!(named, [field], "{path} {body:.20}");
    }
    let many: Vec<String> = (0..10_001).map(|n| format!("m-{n}")).collect();
    let problem = client.post(&distributions, json!({ "member_ids": many })).await.json(400);
    assert_eq!(problem["errors"][0]["field"], "member_ids");
    let other = client.send("POST", &distributions, &[("content-type", "text/plain")], "m-1").await;
    assert_eq!(other.status, 415);
    let listed = client.get("/v1/distributions").await.json(200);
    assert_eq!(listed["data"], json!([]), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named_and_changes_nothing() {
    assert!(CASES.len() > 100, "{} cases", CASES.len());
    for kind in KINDS {
        check(kind).await;
    }
}
