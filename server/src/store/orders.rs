//! Reads of orders, their refunds and the cases these leave. The counterpart of [`super::read`] for what orders have.

use std::collections::HashMap;

use scrip_domain::coupon::{Compensation, CompensationStatus};
use scrip_domain::order::{Order, OrderStatus, Refund};
use scrip_domain::{CompensationId, MemberId, OrderId, OrderUid, TenantId, Timestamp};
use uuid::Uuid;

use super::read::{ListedSql, Listing};
use super::value::{Param, Row};
use super::{Store, StoreError, decode};

type Found<T> = Result<T, StoreError>;

impl Store {
    pub async fn find_order(&self, tenant: TenantId, id: &OrderId) -> Found<Option<Order>> {
        self.first(&find_order_sql(), &[tenant.into(), id.as_str().into()], decode::order).await
    }

    /// A member's orders, newest first. `status` is the one that holds at `at`.
    pub async fn list_orders(
        &self,
        tenant: TenantId,
        member: &MemberId,
        status: Option<OrderStatus>,
        at: Timestamp,
        after: Option<OrderUid>,
        limit: i64,
    ) -> Found<Vec<Order>> {
        let after = after.map_or(Uuid::max(), |id| id.0);
        let mut parameters = vec![tenant.into(), member.into(), after.into(), limit.into()];
        if status.is_some_and(depends_on_time) {
            parameters.push(at.into());
        }
        self.query(&list_orders_sql(status), &parameters, decode::order).await
    }

    /// Orders of a tenant that were paid, newest first by when they were made.
    pub async fn recent_orders(
        &self,
        tenant: TenantId,
        since: Timestamp,
        until: Timestamp,
        limit: i64,
    ) -> Found<Vec<Order>> {
        let parameters = [tenant.into(), since.into(), until.into(), limit.into()];
        self.query(&recent_orders_sql(), &parameters, decode::order).await
    }

    /// Which member each of the orders belongs to. Unknown ids are left out.
    pub async fn members_of_orders(&self, tenant: TenantId, ids: &[&OrderId]) -> Found<HashMap<OrderId, MemberId>> {
        let decode = |row: &Row| Ok((row.caller_id(0)?, row.caller_id(1)?));
        self.listed(members_of_orders_sql, &[tenant.into()], ids, decode).await
    }

    /// An order's refunds, in the order of their ids.
    pub async fn list_refunds(
        &self,
        tenant: TenantId,
        order: &OrderId,
        after: Option<&str>,
        limit: i64,
    ) -> Found<Vec<Refund>> {
        let parameters = [tenant.into(), order.as_str().into(), after.unwrap_or_default().into(), limit.into()];
        self.query(&list_refunds_sql(), &parameters, decode::refund).await
    }

    /// A tenant's compensation cases, oldest first.
    pub async fn list_compensations(
        &self,
        tenant: TenantId,
        status: Option<CompensationStatus>,
        after: Option<CompensationId>,
        limit: i64,
    ) -> Found<Vec<Compensation>> {
        let mut parameters = vec![tenant.into(), after.map_or(Uuid::nil(), |id| id.0).into(), limit.into()];
        parameters.extend(status.map(|status| Param::Text(status.as_str())));
        self.query(&list_compensations_sql(status.is_some()), &parameters, decode::compensation).await
    }
}

/// The reads that are asked all day, by name: for the test of their plans.
pub(super) fn hot_queries() -> Vec<(String, String)> {
    let mut all = vec![
        ("find_order".to_owned(), find_order_sql()),
        ("recent_orders".to_owned(), recent_orders_sql()),
        ("list_refunds".to_owned(), list_refunds_sql()),
        ("list_compensations".to_owned(), list_compensations_sql(false)),
        ("list_compensations by status".to_owned(), list_compensations_sql(true)),
    ];
    for status in [None].into_iter().chain(OrderStatus::ALL.map(Some)) {
        all.push((format!("list_orders {status:?}"), list_orders_sql(status)));
    }
    all
}

pub(super) const LISTED_QUERIES: &[(&str, ListedSql)] = &[("members_of_orders", members_of_orders_sql)];

fn members_of_orders_sql(listing: Listing) -> String {
    let listed = listing.texts("$2");
    format!(
        "SELECT r.order_id, r.member_id FROM (SELECT l.value AS order_id, (SELECT o.member_id FROM mkt_order o \
         WHERE o.tenant_id = $1 AND o.order_id = l.value) AS member_id FROM {listed} l) r WHERE r.member_id IS NOT NULL"
    )
}

fn find_order_sql() -> String {
    format!("SELECT {} FROM mkt_order WHERE tenant_id = $1 AND order_id = $2", decode::ORDER)
}

/// Whether orders show this status by the clock, not by what is stored alone.
fn depends_on_time(status: OrderStatus) -> bool {
    matches!(status, OrderStatus::Reserved | OrderStatus::Expired)
}

fn list_orders_sql(status: Option<OrderStatus>) -> String {
    let filter = match status {
        None => String::new(),
        Some(OrderStatus::Reserved) => " AND status = 'RESERVED' AND expires_at > $5".to_owned(),
        Some(OrderStatus::Expired) => {
            " AND (status = 'EXPIRED' OR (status = 'RESERVED' AND expires_at <= $5))".to_owned()
        }
        Some(other) => format!(" AND status = '{}'", other.as_str()),
    };
    format!(
        "SELECT {} FROM mkt_order WHERE tenant_id = $1 AND member_id = $2 AND id < $3{filter} ORDER BY id DESC LIMIT $4",
        decode::ORDER
    )
}

fn recent_orders_sql() -> String {
    format!(
        "SELECT {} FROM mkt_order WHERE tenant_id = $1 AND paid_at IS NOT NULL AND paid_at >= $2 AND paid_at < $3 \
         ORDER BY paid_at DESC LIMIT $4",
        decode::ORDER
    )
}

fn list_refunds_sql() -> String {
    format!(
        "SELECT {} FROM mkt_order_refund WHERE tenant_id = $1 AND order_id = $2 AND refund_id > $3 \
         ORDER BY refund_id LIMIT $4",
        decode::REFUND
    )
}

fn list_compensations_sql(by_status: bool) -> String {
    let filter = if by_status { " AND status = $4" } else { "" };
    format!(
        "SELECT {} FROM mkt_coupon_refund_compensation WHERE tenant_id = $1 AND id > $2{filter} ORDER BY id LIMIT $3",
        decode::COMPENSATION
    )
}
