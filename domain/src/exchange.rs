//! A member pays points for a coupon.
//!
//! One decision, so one transaction: every check of a claim in its order, then whether the points suffice, and only then the debit
//! and the coupon. Either both are there or neither, and the row of the exchange names both.
//!
//! A template with a price is for points only: a plain claim of it is refused. What an operator gives (a distribution, a code) is
//! no claim of the member's own and costs nothing.
//!
//! Deliberately absent: what becomes of the points when the coupon ends. A coupon that is revoked or expires takes nothing back with
//! it, as its stock does not return either; an operator who owes the member something reverses the debit.

use serde::{Deserialize, Serialize};

use crate::command::{Envelope, Movement};
use crate::coupon::{self, Coupon, CouponSource};
use crate::decide::{Interrupt, Outcome};
use crate::id::{CouponId, Ids, MemberId, TemplateId};
use crate::points::{self, Transaction, TransactionType};
use crate::rejection::Rejection;
use crate::state::State;

/// A coupon, and the debit that paid for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    #[serde(rename = "c")]
    pub coupon: Coupon,
    #[serde(rename = "t")]
    pub transaction: Transaction,
}

/// Takes the template's price from the member's points and makes the coupon.
///
/// # Errors
/// A rejection, or what is not at hand; nothing is changed then but what time had decided.
pub fn exchange(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    template_id: TemplateId,
    member_id: &MemberId,
    member_level: Option<&str>,
) -> Result<Outcome, Interrupt> {
    let template = state.template(envelope.tenant, template_id)?;
    let price = template.definition.points_price.ok_or(Rejection::TemplateNotForPoints)?;
    let admission = coupon::admit(state, envelope, template_id, member_id, member_level)?;
    // Before any id is drawn for the exchange: a refusal leaves what settling alone would have written, to the id.
    points::require_lots(state, envelope, member_id, price)?;
    points::require_activity(state, envelope, member_id, None)?;
    points::settle(state, envelope, ids, member_id)?;
    let coupon_id = CouponId(ids.draw());
    let movement = Movement {
        points: price,
        kind: TransactionType::UseCoupon,
        reference: Some(coupon_id.to_string()),
        remark: None,
    };
    let transaction = points::debit_points(state, envelope, ids, member_id, &movement)?;
    let details = format!(",\"transaction_id\":\"{}\"", transaction.id);
    let source = CouponSource::Exchange;
    let coupon = coupon::make(state, envelope, ids, coupon_id, template_id, member_id, admission, source, &details);
    let exchange = Exchange { coupon, transaction };
    state.insert_exchange(envelope.tenant, exchange.clone());
    Ok(Outcome::Exchange(Box::new(exchange)))
}
