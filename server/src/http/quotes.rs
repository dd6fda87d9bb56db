//! Quotes: what an order would cost and why, without a trace in the store. Orders are priced by the same code.
//!
//! A quote costs a statement for the rules, one for the coupons (named, or of the member's wallet) if any, and one for the
//! balance when points are to pay; definitions and the tenant's time zone are in memory after their first use.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use scrip_domain::coupon::{self, Coupon, CouponStatus, Definition, MAX_AMOUNT};
use scrip_domain::order::Quoted;
use scrip_domain::points::{MAX_POINTS, RedeemLimit};
use scrip_domain::pricing::{self, Attributes, Basket, Candidate, CouponQuote, Line, LineQuote, Offer, Quote, Rules};
use scrip_domain::{CouponId, MemberId, OrderId, Rejection, TemplateId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::AnyKey;
use super::baskets::{self, LineRequest};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Input, Object};
use super::fields::FieldErrors;
use super::problem::{Language, Problem};
use super::quote_token;
use super::schema::{self, Problems};
use super::time::Time;
use crate::store::Store;

/// How many of a member's available coupons `best` looks at, the newest.
const MAX_WALLET: i64 = 200;

/// What somebody would buy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuoteRequest {
    /// Coupons that this order has locked count as available.
    #[schema(value_type = Option<schema::OrderId>)]
    order_id: Option<OrderId>,
    #[schema(value_type = schema::MemberId)]
    member_id: Option<MemberId>,
    /// Sent, it must be one of those a coupon's template names.
    #[schema(min_length = 1, max_length = 64)]
    member_level: Option<String>,
    #[schema(value_type = Vec<LineRequest>, min_items = 1, max_items = 200)]
    lines: Option<Vec<Object<LineRequest>>>,
    /// In minor units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    freight: Option<i64>,
    /// Default: none; with `best`, all that are available.
    #[schema(value_type = Option<Vec<schema::CouponId>>, max_items = 20)]
    coupon_ids: Option<Vec<CouponId>>,
    /// To pay with. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Whether to choose the coupons that take the most off. Default: false.
    best: Option<bool>,
    /// What conditions of coupons ask of the order.
    #[schema(value_type = Option<schema::Attributes>)]
    attributes: Option<Attributes>,
    /// What conditions of coupons ask of the member.
    #[schema(value_type = Option<schema::Attributes>)]
    member_attributes: Option<Attributes>,
    /// Operators only: price as of another time, also one to come.
    as_of: Option<Time>,
}

pub struct Wish {
    order_id: Option<OrderId>,
    member_id: MemberId,
    member_level: Option<String>,
    lines: Vec<Line>,
    freight: i64,
    coupon_ids: Vec<CouponId>,
    points: i64,
    best: bool,
    attributes: Attributes,
    member_attributes: Attributes,
    as_of: Option<Timestamp>,
}

impl Checked for QuoteRequest {
    type Value = Wish;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Wish> {
        let member_id = errors.required("member_id", self.member_id);
        errors.optional_text("member_level", self.member_level.as_deref(), 1..=64);
        let lines = baskets::check_lines(errors, self.lines);
        let freight = errors.within("freight", self.freight.unwrap_or(0), 0..=MAX_AMOUNT);
        let coupon_ids = self.coupon_ids.unwrap_or_default();
        baskets::check_coupon_ids(errors, &coupon_ids);
        let points = errors.within("points", self.points.unwrap_or(0), 0..=MAX_POINTS);
        let attributes = self.attributes.unwrap_or_default();
        baskets::check_attributes(errors, "attributes", &attributes);
        let member_attributes = self.member_attributes.unwrap_or_default();
        baskets::check_attributes(errors, "member_attributes", &member_attributes);
        Some(Wish {
            order_id: self.order_id,
            member_id: member_id?,
            member_level: self.member_level,
            lines: lines?,
            freight: freight?,
            coupon_ids,
            points: points?,
            best: self.best.unwrap_or(false),
            attributes,
            member_attributes,
            as_of: self.as_of.map(|at| at.0),
        })
    }
}

/// A coupon with what prices it.
struct Held {
    coupon: Coupon,
    definition: Arc<Definition>,
    refusal: Option<Rejection>,
}

impl Held {
    fn offer(&self) -> Offer<'_> {
        Offer {
            coupon_id: self.coupon.id,
            template_id: self.coupon.template_id,
            definition: &self.definition,
            refused: self.refusal.clone(),
        }
    }
}

/// What an order would cost
///
/// Tells for every coupon what it takes off or why it does not apply, for every line what it gets, and how many points it earns.
/// Nothing is locked or written. With `best`, chooses among the member's available coupons, or among `coupon_ids`.
#[utoipa::path(post, path = "/v1/quotes", tag = "Orders", security(("key" = ["MEMBER"])), request_body = QuoteRequest,
    params(ConsistencyToken),
    responses((status = 200, description = "The price and its explanation", body = QuoteView<'static>), Problems))]
pub async fn create_quote(
    State(app): State<AppState>,
    caller: AnyKey,
    reads: Reads,
    headers: HeaderMap,
    input: Input<QuoteRequest>,
) -> Result<Response, Problem> {
    let wish = input.value;
    let caller = caller.on_behalf_of(&wish.member_id)?;
    let (tenant, at) = (caller.tenant(), caller.operators_time("as_of", wish.as_of, input.now)?);
    let (held, all_seen) = held(&reads, tenant, &wish, at).await?;
    let available = match wish.points {
        0 => 0,
        _ => reads.balance(tenant, &wish.member_id, at, at).await?.available,
    };
    let rules = match wish.as_of {
        Some(_) => reads.rules_at(tenant, at).await?,
        // Its token holds the price: no replica may say which rules make it.
        None => app.store.rules_at(tenant, at).await?,
    };
    let basket = Basket {
        lines: wish.lines,
        freight: wish.freight,
        member_level: wish.member_level,
        local_time: app.local_time(tenant, at).await?,
        attributes: wish.attributes,
        member_attributes: wish.member_attributes,
    };
    let language = Language::of(headers.get(header::ACCEPT_LANGUAGE));
    let names: HashMap<CouponId, &str> = held.iter().map(|one| (one.coupon.id, &*one.definition.name)).collect();
    let view = |quote: &CouponQuote| CouponQuoteView::of(quote, names.get(&quote.coupon_id).copied(), language);

    let (offers, best) = if wish.best {
        let (chosen, best) = choose(&basket, &held, all_seen, &rules, view)?;
        (chosen, Some(best))
    } else {
        (held.iter().map(Held::offer).collect(), None)
    };
    let quote = pricing::price_within(&basket, &offers, wish.points, available, &rules)?;
    let mut coupons: Vec<CouponQuoteView> = quote.coupons.iter().map(view).collect();
    // Those named that are not the member's, in their places.
    for (place, id) in wish.coupon_ids.iter().enumerate().filter(|(_, id)| !names.contains_key(id)) {
        coupons.insert(place.min(coupons.len()), CouponQuoteView::unknown(*id, language));
    }
    let (mut token, mut expires_at) = (None, None);
    if wish.as_of.is_none() {
        let until = Timestamp(at.0 + quote_token::VALID_MINUTES * 60_000_000);
        let applied = quote.coupons.iter().filter(|coupon| coupon.refusal.is_none()).map(|coupon| coupon.coupon_id);
        let asked = quote_token::asked(&wish.member_id, &basket, applied, wish.points);
        let quoted = Quoted { rules_version: rules.version, at, expires_at: until };
        (token, expires_at) = (Some(app.quote_key.sign(tenant, quoted, asked)), Some(Time(until)));
    }
    answer::ok(&QuoteView {
        quote_token: token,
        expires_at,
        amounts: AmountsView::from(&quote),
        coupons,
        lines: quote.lines.iter().map(LineQuoteView::from).collect(),
        best,
        rules_version: rules.version,
        as_of: Time(at),
    })
}

/// The coupons in question that are the member's, and whether they are all there are.
async fn held(store: &Store, tenant: TenantId, wish: &Wish, at: Timestamp) -> Result<(Vec<Held>, bool), Problem> {
    let (coupons, all_seen) = if wish.best && wish.coupon_ids.is_empty() {
        let status = Some(CouponStatus::Available);
        let member = &wish.member_id;
        let mut wallet = store.list_coupons(tenant, member, status, None, at, None, MAX_WALLET + 1).await?;
        let all_seen = super::cut(&mut wallet, MAX_WALLET, |_| String::new()).is_none();
        (wallet, all_seen)
    } else {
        let mut found = store.find_coupons(tenant, &wish.coupon_ids).await?;
        found.retain(|_, coupon| coupon.member_id == wish.member_id);
        (wish.coupon_ids.iter().filter_map(|id| found.remove(id)).collect(), true)
    };
    let versions = coupons.iter().map(|coupon| (coupon.template_id, coupon.template_version));
    store.learn_definitions(tenant, versions).await?;
    let mut held = Vec::with_capacity(coupons.len());
    for coupon in coupons {
        let (template, version) = (coupon.template_id, coupon.template_version);
        let definition = store.definition(tenant, template, version).await?;
        let missing = || Problem::internal(format!("version {version} of the template {template} is missing"));
        let definition = definition.ok_or_else(missing)?;
        let refusal = coupon::refusal_at(&coupon, wish.order_id.as_ref(), at);
        held.push(Held { coupon, definition, refusal });
    }
    Ok((held, all_seen))
}

/// The best combination, and what each coupon would do alone, the largest discount first.
fn choose<'a, 'n>(
    basket: &Basket,
    held: &'a [Held],
    all_seen: bool,
    rules: &Rules,
    view: impl Fn(&CouponQuote) -> CouponQuoteView<'n>,
) -> Result<(Vec<Offer<'a>>, BestView<'n>), Problem> {
    let valid_until = |one: &Held| one.coupon.valid_until;
    let candidates: Vec<Candidate> =
        held.iter().map(|one| Candidate { offer: one.offer(), valid_until: valid_until(one) }).collect();
    let mut best = pricing::best(basket, &candidates, rules)?;
    best.alone.sort_by_key(|quote| Reverse(quote.discount));
    let considered = candidates.len();
    let offers = candidates.into_iter().map(|candidate| candidate.offer);
    let chosen = offers.filter(|offer| best.coupon_ids.contains(&offer.coupon_id)).collect();
    let exhaustive = best.exhaustive && all_seen;
    Ok((chosen, BestView { exhaustive, considered, candidates: best.alone.iter().map(view).collect() }))
}

/// What an order costs, in minor units and points.
#[derive(Serialize, ToSchema)]
pub struct AmountsView {
    /// The goods at item prices.
    original_amount: i64,
    /// Off the goods.
    coupon_discount: i64,
    /// Off the freight.
    freight_discount: i64,
    points_discount: i64,
    total_discount: i64,
    /// Before `freight_discount`.
    freight: i64,
    /// `original_amount` + `freight` - `total_discount`.
    pay_amount: i64,
    points_requested: i64,
    /// How many of them pay.
    points_effective: i64,
    /// What kept `points_effective` below `points_requested`; null when they are equal.
    #[schema(required, value_type = Option<schema::RedeemLimit>)]
    points_limited_by: Option<RedeemLimit>,
    points_to_earn: i64,
    /// Whether `earn.max_points_per_order` has made them less.
    points_to_earn_capped: bool,
}

impl From<&Quote> for AmountsView {
    fn from(quote: &Quote) -> Self {
        AmountsView {
            original_amount: quote.original_amount,
            coupon_discount: quote.coupon_discount,
            freight_discount: quote.freight_discount,
            points_discount: quote.points_discount,
            total_discount: quote.total_discount,
            freight: quote.freight,
            pay_amount: quote.pay_amount,
            points_requested: quote.points_requested,
            points_effective: quote.points_effective,
            points_limited_by: quote.points_limited_by,
            points_to_earn: quote.points_to_earn,
            points_to_earn_capped: quote.points_to_earn_capped,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Quote)]
pub struct QuoteView<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    amounts: AmountsView,
    /// Those named, in their order; with `best`, those chosen.
    #[schema(value_type = Vec<CouponQuoteView<'static>>)]
    coupons: Vec<CouponQuoteView<'a>>,
    #[schema(value_type = Vec<LineQuoteView<'static>>)]
    lines: Vec<LineQuoteView<'a>>,
    /// Null unless asked for.
    #[schema(required, value_type = Option<BestView<'static>>)]
    best: Option<BestView<'a>>,
    /// Of the tenant's rules; 0 are the defaults.
    rules_version: i64,
    as_of: Time,
    /// Brought with the order that it is a quote for, keeps this price until `expires_at`. Null for another time than now.
    #[schema(required)]
    quote_token: Option<String>,
    /// Until when the token holds.
    #[schema(required)]
    expires_at: Option<Time>,
}

/// How the coupons were chosen.
#[derive(Serialize, ToSchema)]
#[schema(as = BestCoupons)]
pub struct BestView<'a> {
    /// True when no other combination takes more off; false when a bound ended the search.
    exhaustive: bool,
    /// How many coupons were looked at.
    considered: usize,
    /// Every one of them, as it would apply alone, the largest discount first.
    #[schema(value_type = Vec<CouponQuoteView<'static>>)]
    candidates: Vec<CouponQuoteView<'a>>,
}

/// What a coupon does for an order, or why nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponQuote)]
pub struct CouponQuoteView<'a> {
    #[schema(value_type = schema::CouponId)]
    id: CouponId,
    /// Null when the coupon is unknown, or another member's.
    #[schema(required, value_type = Option<schema::TemplateId>)]
    template_id: Option<TemplateId>,
    #[schema(required, value_type = Option<String>)]
    name: Option<&'a str>,
    applied: bool,
    /// Off goods or freight, in minor units.
    discount: i64,
    /// Why it does not apply, as an error code; null when it does.
    #[schema(required, value_type = Option<String>, example = "COUPON_BELOW_THRESHOLD")]
    code: Option<&'static str>,
    /// The same in words.
    #[schema(required, value_type = Option<String>)]
    reason: Option<Cow<'static, str>>,
    /// The values in `reason`, by name.
    #[schema(value_type = BTreeMap<String, String>)]
    params: BTreeMap<&'static str, String>,
    /// By how much the eligible goods would have to cost more for the coupon to apply, or to reach its next step.
    #[schema(required)]
    unlock_amount: Option<i64>,
}

impl<'a> CouponQuoteView<'a> {
    fn of(quote: &CouponQuote, name: Option<&'a str>, language: Language) -> Self {
        let problem = quote.refusal.clone().map(Problem::from);
        CouponQuoteView {
            id: quote.coupon_id,
            template_id: Some(quote.template_id),
            name,
            applied: problem.is_none(),
            discount: quote.discount,
            code: problem.as_ref().map(|problem| problem.code.entry().code),
            reason: problem.as_ref().map(|problem| problem.detail(language)),
            params: problem.iter().flat_map(Problem::values).cloned().collect(),
            unlock_amount: quote.unlock_amount,
        }
    }

    /// One that is unknown, or another member's.
    fn unknown(id: CouponId, language: Language) -> Self {
        let problem = Problem::from(Rejection::CouponNotFound);
        CouponQuoteView {
            id,
            template_id: None,
            name: None,
            applied: false,
            discount: 0,
            code: Some(problem.code.entry().code),
            reason: Some(problem.detail(language)),
            params: BTreeMap::new(),
            unlock_amount: None,
        }
    }
}

impl ShareView {
    pub fn new(id: CouponId, discount: i64) -> Self {
        ShareView { id, discount }
    }
}

/// A line's part of everything, in minor units and points.
#[derive(Serialize, ToSchema)]
#[schema(as = LineQuote)]
pub struct LineQuoteView<'a> {
    #[schema(value_type = String)]
    item_id: &'a str,
    quantity: i64,
    /// At item prices.
    amount: i64,
    coupon_discount: i64,
    points_discount: i64,
    /// The points that pay `points_discount`.
    points_spent: i64,
    pay_amount: i64,
    points_to_earn: i64,
    /// What each coupon takes off this line.
    coupons: Vec<ShareView>,
}

/// A coupon's part of a line.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponShare)]
pub struct ShareView {
    #[schema(value_type = schema::CouponId)]
    id: CouponId,
    discount: i64,
}

impl<'a> From<&'a LineQuote> for LineQuoteView<'a> {
    fn from(line: &'a LineQuote) -> Self {
        LineQuoteView {
            item_id: &line.item_id,
            quantity: line.quantity,
            amount: line.amount,
            coupon_discount: line.coupon_discount,
            points_discount: line.points_discount,
            points_spent: line.points_spent,
            pay_amount: line.pay_amount,
            points_to_earn: line.points_to_earn,
            coupons: line.coupons.iter().map(|(id, discount)| ShareView::new(*id, *discount)).collect(),
        }
    }
}
