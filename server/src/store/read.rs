//! Reads: named columns, keyset pages, one statement each. The SQL text and the decoder serve both stores.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use jiff::tz::TimeZone;
use scrip_domain::check_in::CheckIn;
use scrip_domain::coupon::{Coupon, CouponStatus, Definition, Template};
use scrip_domain::event::{Event, EventKind};
use scrip_domain::points::{
    Account, Adjustment, AdjustmentStatus, Allocation, ExpiryPlace, Hold, HoldStatus, Lot, MILESTONE, Totals,
    Transaction, TransactionType,
};
use scrip_domain::pricing::Rules;
use scrip_domain::rules::RulesVersion;
use scrip_domain::state::IdempotencyRecord;
use scrip_domain::task::{Carried, Progress, Task};
use scrip_domain::tenant::{ApiKey, Tenant};
use scrip_domain::time::Calendar;
use scrip_domain::{
    AdjustmentId, CouponId, Day, HoldId, KeyId, LotId, MemberId, OrderId, ProgramCode, TaskKey, TemplateId, TenantId,
    Timestamp, TransactionId,
};
use serde::Serialize;
use uuid::Uuid;

use super::cache::RulesHistory;
pub use super::decode::EventPosition;
use super::gather::gathered_sql;
use super::value::{Param, Row};
use super::{Definitions, Store, StoreError, decode, projection};

type Found<T> = Result<T, StoreError>;

/// A member's points as they stand at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// What can be spent.
    pub available: i64,
    pub frozen: i64,
    pub used: i64,
    pub expired: i64,
    pub revoked: i64,
    pub total_points: i64,
    pub debt: i64,
    /// Of `frozen`, what becomes available later, and when the first of it does.
    pub pending_points: i64,
    pub next_available_at: Option<Timestamp>,
    pub merged_into: Option<MemberId>,
    /// Of `available`, what expires before the horizon asked for.
    pub expiring_points: i64,
    pub next_expires_at: Option<Timestamp>,
}

/// What a hold past its deadline still sets aside of a lot.
struct DuePart {
    member_id: MemberId,
    points: i64,
    /// When the lot ends.
    expires_at: Timestamp,
    /// The hold kept a grant until its points became available.
    pending: bool,
}

impl DuePart {
    /// How many of the points settle a debt: those of a grant do, as soon as they are available.
    fn settles(&self, debt: i64) -> i64 {
        if self.pending { self.points.min(debt) } else { 0 }
    }
}

/// A member's points in a tenant or one of its programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet {
    /// `None`: the tenant's own.
    pub program: Option<ProgramCode>,
    pub name: String,
    pub balance: Balance,
}

/// A page of events, and where the next one starts.
#[derive(Debug, Clone)]
pub struct EventPage {
    pub events: Vec<(EventPosition, Event)>,
    pub scanned_to: EventPosition,
}

/// Objects whose expiry or deadline is still to be written.
#[derive(Debug, Default)]
pub struct Due {
    pub coupons: Vec<CouponId>,
    pub members: Vec<MemberId>,
    /// Where the last of the lots stands whose members are told.
    pub last_lot: Option<ExpiryPlace>,
    /// Past their deadline, or with earned points that are due.
    pub orders: Vec<(OrderId, MemberId)>,
}

/// A read transaction: what others commit meanwhile does not show.
pub enum Snapshot {
    // A connection may move between threads, but not be shared by them.
    Sqlite(parking_lot::Mutex<rusqlite::Connection>),
    Postgres(tokio_postgres::Client),
}

impl Snapshot {
    /// Hands every row of a statement to `visit` as it arrives, so that no answer is too long to be held. A statement that
    /// fails leaves the snapshot usable.
    ///
    /// # Errors
    /// When the statement fails, or `visit` does.
    pub async fn scan(&self, sql: &str, mut visit: impl FnMut(&Row) -> Found<()> + Send) -> Found<()> {
        match self {
            // The statement may take minutes: other tasks of this thread go elsewhere meanwhile.
            Snapshot::Sqlite(connection) => {
                tokio::task::block_in_place(|| super::sqlite::scan(&connection.lock(), sql, visit))
            }
            Snapshot::Postgres(client) => {
                client.batch_execute("SAVEPOINT scan").await?;
                let scanned = super::postgres::scan(client, sql, &mut visit).await;
                if scanned.is_err() {
                    client.batch_execute("ROLLBACK TO SAVEPOINT scan").await?;
                }
                scanned
            }
        }
    }
}

/// Sorts before every id that was made at that time or later, and after those of every earlier millisecond.
fn before_ids_of(at: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis((at.0 / 1000).max(0) as u64, &[0; 10]).into_uuid()
}

/// Sorts after every id, so that a first page needs no statement of its own.
const LAST_ID: Uuid = Uuid::max();
/// Versions of a tenant's rules that are kept in memory together.
const MAX_RULES_KEPT: i64 = 100;
/// The ceiling of what one page of events scans when a filter leaves most of them out.
const EVENT_SCAN: i64 = 2_000;

impl Store {
    pub(super) async fn query<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Vec<T>> {
        match self {
            Store::Sqlite(store) => store.query(sql, parameters, decode),
            Store::Postgres(store) => store.query(sql, parameters, decode).await,
        }
    }

    /// The same for a read that is asked all day: on PostgreSQL those of many callers become one statement.
    pub(super) async fn query_gathered<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Vec<T>> {
        match self {
            Store::Sqlite(store) => store.query(sql, parameters, decode),
            Store::Postgres(store) => store.query_gathered(sql, parameters, decode).await,
        }
    }

    pub(super) fn listing(&self) -> Listing {
        match self {
            Store::Sqlite(_) => Listing::Sqlite,
            Store::Postgres(_) => Listing::Postgres,
        }
    }

    async fn first_gathered<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Option<T>> {
        Ok(self.query_gathered(sql, parameters, decode).await?.into_iter().next())
    }

    pub(super) async fn first<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Option<T>> {
        Ok(self.query(sql, parameters, decode).await?.into_iter().next())
    }

    /// Runs one statement that may take long, on a connection of its own: verification and reports.
    pub async fn stream<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Vec<T>> {
        match self {
            Store::Sqlite(store) => store.stream(sql, parameters, decode),
            Store::Postgres(store) => store.stream(sql, parameters, decode).await,
        }
    }

    /// One consistent view of everything on so many connections: statements that must agree with each other, side by side.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn snapshots(&self, count: usize) -> Found<Vec<Snapshot>> {
        match self {
            Store::Sqlite(store) => {
                let connections = store.snapshots(count)?.into_iter();
                Ok(connections.map(|connection| Snapshot::Sqlite(parking_lot::Mutex::new(connection))).collect())
            }
            Store::Postgres(store) => Ok(store.snapshots(count).await?.into_iter().map(Snapshot::Postgres).collect()),
        }
    }

    pub(super) async fn execute(&self, sql: &str, parameters: &[Param<'_>]) -> Found<u64> {
        match self {
            Store::Sqlite(store) => store.execute(sql, parameters),
            Store::Postgres(store) => store.execute(sql, parameters).await,
        }
    }

    /// Answers when the store does.
    pub async fn ping(&self) -> Found<()> {
        self.first("SELECT number FROM schema_migration ORDER BY number LIMIT 1", &[], |row| row.int(0)).await?;
        Ok(())
    }

    // Tenants and keys.

    pub async fn find_key(&self, secret_digest: [u8; 32]) -> Found<Option<ApiKey>> {
        let columns = decode::API_KEY;
        let sql = format!("SELECT {columns} FROM api_key WHERE secret_digest = $1");
        self.first(&sql, &[Param::Bytes(&secret_digest)], decode::api_key).await
    }

    pub async fn platform_digest(&self) -> Found<Option<[u8; 32]>> {
        self.first("SELECT secret_digest FROM platform_key WHERE id = 1", &[], |row| row.bytes(0)).await
    }

    /// Remembers the platform key's digest unless there is one already; true when it was stored.
    pub async fn set_platform_digest(&self, digest: [u8; 32], at: Timestamp) -> Found<bool> {
        let sql = "INSERT INTO platform_key (id, secret_digest, created_at) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
        Ok(self.execute(sql, &[Param::Bytes(&digest), at.into()]).await? == 1)
    }

    pub async fn list_tenants(&self, after: Option<TenantId>, limit: i64) -> Found<Vec<Tenant>> {
        let columns = decode::TENANT;
        let sql = format!("SELECT {columns} FROM tenant WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2");
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.query(&sql, &[after.into(), limit.into()], decode::tenant).await
    }

    pub async fn find_tenant(&self, id: TenantId) -> Found<Option<Tenant>> {
        let columns = decode::TENANT;
        let sql = format!("SELECT {columns} FROM tenant WHERE tenant_id = $1");
        self.first(&sql, &[id.into()], decode::tenant).await
    }

    /// The tenant's program of that code.
    pub async fn find_program(&self, parent: TenantId, code: &ProgramCode) -> Found<Option<TenantId>> {
        self.first(FIND_PROGRAM, &[parent.into(), code.as_str().into()], |row| row.tenant(0)).await
    }

    /// The tenant's programs by their codes.
    pub async fn list_programs(
        &self,
        parent: TenantId,
        after: Option<&ProgramCode>,
        limit: i64,
    ) -> Found<Vec<(ProgramCode, Tenant)>> {
        let after = after.map_or("", ProgramCode::as_str);
        let decode = |row: &Row| {
            let program = decode::tenant(row)?;
            let code = program.program.as_ref().map(|program| program.code.clone());
            Ok((code.ok_or_else(|| StoreError::corrupt("a program without a code"))?, program))
        };
        self.query(&list_programs_sql(), &[parent.into(), after.into(), limit.into()], decode).await
    }

    /// Where the tenant is, as clocks have it.
    ///
    /// # Errors
    /// When there is no such tenant, or this machine does not know its zone.
    pub async fn zone(&self, tenant: TenantId) -> Found<TimeZone> {
        if let Some(zone) = self.definitions().zone(tenant) {
            return Ok(zone);
        }
        self.definitions().learn_zone(tenant, self.find_tenant(tenant).await?.as_ref())
    }

    /// The tenant's calendar at that time.
    ///
    /// # Errors
    /// As [`Store::zone`].
    pub async fn calendar(&self, tenant: TenantId, at: Timestamp) -> Found<Arc<Calendar>> {
        Ok(Arc::new(crate::calendar::calendar(&self.zone(tenant).await?, at)))
    }

    pub async fn list_keys(&self, tenant: TenantId, after: Option<KeyId>, limit: i64) -> Found<Vec<ApiKey>> {
        let columns = decode::API_KEY;
        let sql = format!("SELECT {columns} FROM api_key WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.query(&sql, &[tenant.into(), after.into(), limit.into()], decode::api_key).await
    }

    // Templates.

    pub async fn find_template(&self, tenant: TenantId, id: TemplateId) -> Found<Option<Template>> {
        let decode = |row: &Row| template(row, self.definitions());
        self.first_gathered(&FIND_TEMPLATE, &[tenant.into(), id.0.into()], decode).await
    }

    /// The template as it was a moment ago, for who only shows it: the caches tell how old it may be.
    pub async fn recent_template(&self, tenant: TenantId, id: TemplateId) -> Found<Option<Arc<Template>>> {
        match self.caches() {
            Some(caches) => caches.template(tenant, id, async || self.find_template(tenant, id).await).await,
            None => Ok(self.find_template(tenant, id).await?.map(Arc::new)),
        }
    }

    /// Newest first.
    pub async fn list_templates(
        &self,
        tenant: TenantId,
        enabled: Option<bool>,
        kind: Option<&'static str>,
        archived: Option<bool>,
        after: Option<TemplateId>,
        limit: i64,
    ) -> Found<Vec<Template>> {
        let sql = list_templates_sql(enabled.is_some(), kind.is_some(), archived);
        let mut parameters = vec![tenant.into(), after.map_or(LAST_ID, |id| id.0).into()];
        parameters.extend(enabled.map(Param::Bool));
        parameters.extend(kind.map(Param::Text));
        parameters.push(limit.into());
        self.query(&sql, &parameters, |row| template(row, self.definitions())).await
    }

    /// The definition of a version: from memory after the first time.
    pub async fn definition(
        &self,
        tenant: TenantId,
        template: TemplateId,
        version: i64,
    ) -> Found<Option<Arc<Definition>>> {
        if let Some(definition) = self.definitions().get(tenant, template, version) {
            return Ok(Some(definition));
        }
        let sql = "SELECT definition FROM mkt_coupon_template_version \
                   WHERE tenant_id = $1 AND template_id = $2 AND version = $3";
        let parameters = [tenant.into(), template.0.into(), version.into()];
        let found: Option<Definition> = self.first(sql, &parameters, |row| row.json(0)).await?;
        Ok(found.map(|definition| {
            let definition = Arc::new(definition);
            self.definitions().insert(tenant, template, version, definition.clone());
            definition
        }))
    }

    /// Brings the definitions of these versions into memory: one statement for all that are not there yet, so that a page of
    /// coupons of many templates costs no statement for each.
    pub async fn learn_definitions(
        &self,
        tenant: TenantId,
        versions: impl Iterator<Item = (TemplateId, i64)>,
    ) -> Found<()> {
        let known = self.definitions();
        let mut unknown: Vec<(TemplateId, i64)> =
            versions.filter(|(template, version)| known.get(tenant, *template, *version).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        match self {
            _ if unknown.is_empty() => {}
            // No round trips to save here.
            Store::Sqlite(_) => {
                for (template, version) in unknown {
                    self.definition(tenant, template, version).await?;
                }
            }
            Store::Postgres(store) => {
                for (template, version, definition) in store.query_definitions(tenant, &unknown).await? {
                    known.insert(tenant, template, version, Arc::new(definition));
                }
            }
        }
        Ok(())
    }

    /// Members that have claimed from a template, in no order, each once for every coupon.
    pub async fn claimers(&self, tenant: TenantId, template: TemplateId, limit: i64) -> Found<Vec<MemberId>> {
        let sql = "SELECT member_id FROM mkt_user_coupon WHERE tenant_id = $1 AND template_id = $2 LIMIT $3";
        self.query(sql, &[tenant.into(), template.0.into(), limit.into()], |row| row.caller_id(0)).await
    }

    // Coupons.

    pub async fn find_coupon(&self, tenant: TenantId, id: CouponId) -> Found<Option<Coupon>> {
        let sql = find_by_id_sql(decode::COUPON, "mkt_user_coupon");
        self.first_gathered(&sql, &[tenant.into(), id.0.into()], decode::coupon).await
    }

    /// A member's coupons, newest first. `status` is the one that holds at `at`.
    #[expect(clippy::too_many_arguments, reason = "a filter's parts, each of its own type")]
    pub async fn list_coupons(
        &self,
        tenant: TenantId,
        member: &MemberId,
        status: Option<CouponStatus>,
        template: Option<TemplateId>,
        at: Timestamp,
        after: Option<CouponId>,
        limit: i64,
    ) -> Found<Vec<Coupon>> {
        let sql = &LIST_COUPONS[&(status, template.is_some())];
        let mut parameters = vec![tenant.into(), member.into(), after.map_or(LAST_ID, |id| id.0).into()];
        if status.is_some_and(depends_on_time) {
            parameters.push(at.into());
        }
        parameters.extend(template.map(|template| Param::Uuid(template.0)));
        parameters.push(limit.into());
        self.query_gathered(sql, &parameters, decode::coupon).await
    }

    /// Every coupon of a tenant in the order of ids, for exports.
    pub async fn scan_coupons(&self, tenant: TenantId, after: Option<CouponId>, limit: i64) -> Found<Vec<Coupon>> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.query(&scan_coupons_sql(), &[tenant.into(), after.into(), limit.into()], decode::coupon).await
    }

    /// Every coupon of a template, by member and sequence.
    pub async fn scan_coupons_of(
        &self,
        tenant: TenantId,
        template: TemplateId,
        after: Option<(&MemberId, i64)>,
        limit: i64,
    ) -> Found<Vec<Coupon>> {
        let (member, sequence) = after.map_or(("", 0), |(member, sequence)| (member.as_str(), sequence));
        let parameters = [tenant.into(), template.0.into(), member.into(), sequence.into(), limit.into()];
        self.query(&scan_coupons_of_sql(), &parameters, decode::coupon).await
    }

    /// Uses that stand, newest first: those of a template or of all, from `from` on and before `until`.
    pub async fn list_usages(
        &self,
        tenant: TenantId,
        template: Option<TemplateId>,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
        after: Option<(Timestamp, CouponId)>,
        limit: i64,
    ) -> Found<Vec<Coupon>> {
        // The cursor stands before every use of its instant with a smaller id; `until` before all of its instant.
        let until = until.map_or((Timestamp::NEVER, LAST_ID), |until| (until, Uuid::nil()));
        let (at, id) = after.map_or(until, |(at, id)| until.min((at, id.0)));
        let from = from.unwrap_or(Timestamp(i64::MIN));
        let mut parameters = vec![tenant.into(), at.into(), id.into(), from.into()];
        parameters.extend(template.map(|template| Param::Uuid(template.0)));
        parameters.push(limit.into());
        self.query(&list_usages_sql(template.is_some()), &parameters, decode::coupon).await
    }

    /// The coupons of these ids that there are.
    pub async fn find_coupons(&self, tenant: TenantId, ids: &[CouponId]) -> Found<HashMap<CouponId, Coupon>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let decode = |row: &Row| decode::coupon(row).map(|coupon| (coupon.id, coupon));
        self.query_by_ids("mkt_user_coupon", decode::COUPON, tenant, &ids, decode).await
    }

    /// Which template each of the coupons belongs to. Unknown ids are left out.
    pub async fn templates_of_coupons(
        &self,
        tenant: TenantId,
        ids: &[CouponId],
    ) -> Found<HashMap<CouponId, TemplateId>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let decode = |row: &Row| Ok((CouponId(row.uuid(0)?), TemplateId(row.uuid(1)?)));
        self.query_by_ids("mkt_user_coupon", "id, template_id", tenant, &ids, decode).await
    }

    pub async fn members_of_holds(&self, tenant: TenantId, ids: &[HoldId]) -> Found<HashMap<HoldId, MemberId>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let decode = |row: &Row| Ok((HoldId(row.uuid(0)?), row.caller_id(1)?));
        self.query_by_ids("mkt_points_hold", "id, member_id", tenant, &ids, decode).await
    }

    pub async fn members_of_transactions(
        &self,
        tenant: TenantId,
        ids: &[TransactionId],
    ) -> Found<HashMap<TransactionId, MemberId>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let decode = |row: &Row| Ok((TransactionId(row.uuid(0)?), row.caller_id(1)?));
        self.query_by_ids("mkt_points_transaction", "id, member_id", tenant, &ids, decode).await
    }

    /// Those of the members whose accounts have lines.
    pub async fn members_with_accounts(&self, tenant: TenantId, members: &[MemberId]) -> Found<HashSet<MemberId>> {
        self.listed(members_with_accounts_sql, &[tenant.into()], members, |row| row.caller_id(0)).await
    }

    /// What a statement finds for the listed keys, which are its last parameter; without keys nothing is asked.
    pub(super) async fn listed<T, C: FromIterator<T> + Default>(
        &self,
        sql: ListedSql,
        parameters: &[Param<'_>],
        keys: impl IntoIterator<Item: Serialize>,
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<C> {
        let keys: Vec<_> = keys.into_iter().collect();
        if keys.is_empty() {
            return Ok(C::default());
        }
        let keys = serde_json::to_string(&keys).expect("keys are texts");
        let mut all = parameters.to_vec();
        all.push(keys.as_str().into());
        Ok(self.query(&sql(self.listing()), &all, decode).await?.into_iter().collect())
    }

    async fn query_by_ids<K: Eq + Hash, V>(
        &self,
        table: &str,
        columns: &str,
        tenant: TenantId,
        ids: &[Uuid],
        decode: impl Fn(&Row) -> Found<(K, V)>,
    ) -> Found<HashMap<K, V>> {
        let mut found = HashMap::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(found);
        }
        match self {
            // No round trips to save here: one look-up for each id.
            Store::Sqlite(store) => {
                let sql = find_by_id_sql(columns, table);
                for id in ids {
                    found.extend(store.query(&sql, &[tenant.into(), (*id).into()], &decode)?);
                }
            }
            Store::Postgres(store) => {
                let columns = decode::of("r", columns);
                let sql = format!(
                    "SELECT {columns} FROM unnest($2::uuid[]) AS k(id) CROSS JOIN LATERAL \
                     (SELECT * FROM {table} t WHERE t.tenant_id = $1 AND t.id = k.id) r"
                );
                found.extend(store.query_ids(&sql, tenant, ids, decode).await?);
            }
        }
        Ok(found)
    }

    // Points.

    /// A member's balance at `at`; zeros for a member never seen. What has expired by then is counted as expired, and a
    /// hold past its deadline as released, whether or not that has been written yet.
    pub async fn balance(
        &self,
        tenant: TenantId,
        member: &MemberId,
        at: Timestamp,
        horizon: Timestamp,
    ) -> Found<Balance> {
        let parameters = [at.into(), horizon.into(), tenant.into(), member.into()];
        let found = self.first_gathered(&BALANCE, &parameters, balance_as_written).await?;
        let Some((mut balance, due_holds)) = found else { return Ok(Balance::default()) };
        if due_holds > 0 {
            self.release_due_holds(&mut balance, tenant, member, at, horizon).await?;
        }
        Ok(balance)
    }

    /// The member's balance in the tenant, then in each of its programs by code: one statement, and some more for each wallet with
    /// a hold whose end is still to be written.
    pub async fn wallets(
        &self,
        tenant: TenantId,
        member: &MemberId,
        at: Timestamp,
        horizon: Timestamp,
    ) -> Found<Vec<Wallet>> {
        let decode = |row: &Row| {
            let own = BALANCE_COLUMNS;
            let found = if row.opt_text(1)?.is_some() { balance_as_written(row)? } else { Default::default() };
            Ok((row.tenant(own)?, row.opt_caller_id(own + 1)?, row.text(own + 2)?, found))
        };
        let parameters = [at.into(), horizon.into(), tenant.into(), member.into()];
        let mut wallets = Vec::new();
        for (owner, program, name, (mut balance, due_holds)) in self.query(&WALLETS, &parameters, decode).await? {
            if due_holds > 0 {
                self.release_due_holds(&mut balance, owner, member, at, horizon).await?;
            }
            wallets.push(Wallet { program, name, balance });
        }
        Ok(wallets)
    }

    /// Shows what settling would do with holds past their deadline. Rare: a sweep writes it within a minute.
    async fn release_due_holds(
        &self,
        balance: &mut Balance,
        tenant: TenantId,
        member: &MemberId,
        at: Timestamp,
        horizon: Timestamp,
    ) -> Found<()> {
        for part in self.due_parts(tenant, member, member, at).await? {
            let (settled, expires_at) = (part.settles(balance.debt), part.expires_at);
            let left = part.points - settled;
            balance.frozen -= part.points;
            balance.debt -= settled;
            balance.revoked += settled;
            if expires_at <= at {
                balance.expired += left;
                continue;
            }
            balance.available += left;
            if left > 0 && expires_at <= horizon {
                balance.expiring_points += left;
                balance.next_expires_at = Some(balance.next_expires_at.map_or(expires_at, |next| next.min(expires_at)));
            }
        }
        Ok(())
    }

    /// What holds past their deadline still set aside, of the members from `first` to `last`, in the order in which they end.
    async fn due_parts(
        &self,
        tenant: TenantId,
        first: &MemberId,
        last: &MemberId,
        at: Timestamp,
    ) -> Found<Vec<DuePart>> {
        let parameters = [tenant.into(), first.into(), last.into(), at.into()];
        let mut holds = self.query(&due_holds_sql(), &parameters, decode::hold).await?;
        holds.sort_by_key(|hold| (hold.expires_at, hold.id));
        let parts = || holds.iter().flat_map(|hold| hold.allocations.iter().map(move |part| (hold, part)));
        let ids: Vec<Uuid> = parts().map(|(_, part)| part.lot_id.0).collect();
        let decode = |row: &Row| Ok((LotId(row.uuid(0)?), row.time(1)?));
        let expiries = self.query_by_ids("mkt_points_lot", "id, expires_at", tenant, &ids, decode).await?;
        let due = |(hold, part): (&Hold, &Allocation)| DuePart {
            member_id: hold.member_id.clone(),
            points: part.points,
            expires_at: expiries.get(&part.lot_id).copied().unwrap_or(Timestamp::NEVER),
            pending: hold.pending,
        };
        Ok(parts().map(due).collect())
    }

    /// A member's balance at an earlier time, as the books tell it now: the sums of what took effect by then, and of what time
    /// had decided by then but is not written yet. What expires soon is not told.
    pub async fn past_balance(
        &self,
        tenant: TenantId,
        member: &MemberId,
        at: Timestamp,
        horizon: Timestamp,
    ) -> Found<Balance> {
        let (until, last) = (Timestamp(at.0 + 1), self.last_sequence(tenant, member).await?);
        let place = self.ledger_place(tenant, member, until, last).await?;
        let posted = self.posted_balance(tenant, member, LineTime::Occurred, until, place).await?;
        let decode = |row: &Row| Ok((row.int(0)?, row.int(1)?));
        let parameters = [tenant.into(), member.into(), at.into()];
        let found = self.first(PAST_DUE, &parameters, decode).await?;
        let (overdue, due_holds) = found.unwrap_or_default();
        let mut balance = Balance {
            available: posted.available - overdue,
            frozen: posted.frozen,
            used: posted.used,
            expired: posted.expired + overdue,
            revoked: posted.revoked,
            total_points: posted.total_points,
            debt: posted.debt,
            ..Balance::default()
        };
        if due_holds > 0 {
            self.release_due_holds(&mut balance, tenant, member, at, horizon).await?;
            balance.expiring_points = 0;
            balance.next_expires_at = None;
        }
        Ok(balance)
    }

    /// Where a time falls among the first `last` lines of a member's ledger.
    pub async fn ledger_place(
        &self,
        tenant: TenantId,
        member: &MemberId,
        at: Timestamp,
        last: i64,
    ) -> Found<LedgerPlace> {
        if last <= SHORT_LEDGER {
            return Ok(LedgerPlace { before: 0, until: last, last });
        }
        let (early, late) = (at.0.saturating_sub(CLOCKS_APART), at.0.saturating_add(CLOCKS_APART));
        let parameters = [tenant.into(), member.into(), early.into(), last.into(), late.into()];
        let found = self.query(&ledger_place_sql(), &parameters, |row| row.int(1)).await?;
        let [before, until] = found[..] else { return Err(StoreError::corrupt("a search in the ledger has no end")) };
        Ok(LedgerPlace { before, until, last })
    }

    /// What a member's ledger adds up to before `until`, whose place this is.
    pub async fn posted_balance(
        &self,
        tenant: TenantId,
        member: &MemberId,
        time: LineTime,
        until: Timestamp,
        place: LedgerPlace,
    ) -> Found<Posted> {
        // All that is before this line has been added up, and was written before `until`.
        let mut milestone = Posted::default();
        if place.before >= MILESTONE {
            let parameters = [tenant.into(), member.into(), place.before.into()];
            milestone = self.first(MILESTONE_BEFORE, &parameters, posted_at_milestone).await?.unwrap_or_default();
        }
        let mut parameters =
            vec![tenant.into(), member.into(), until.into(), milestone.lines.into(), place.until.into()];
        if time == LineTime::Occurred {
            parameters.push(place.last.into());
        }
        let decode = |row: &Row| {
            Ok(Posted {
                lines: milestone.lines + row.int(0)?,
                available: milestone.available + row.int(1)?,
                frozen: milestone.frozen + row.int(2)?,
                debt: milestone.debt + row.int(3)?,
                total_points: milestone.total_points + row.int(4)?,
                used: milestone.used + row.int(5)?,
                expired: milestone.expired + row.int(6)?,
                revoked: milestone.revoked + row.int(7)?,
            })
        };
        Ok(self.first(&posted_balance_sql(time), &parameters, decode).await?.unwrap_or_default())
    }

    /// A member's latest check-in, and those of the days `[from, until)`, oldest first.
    pub async fn check_ins(
        &self,
        tenant: TenantId,
        member: &MemberId,
        from: Day,
        until: Day,
    ) -> Found<(Option<CheckIn>, Vec<CheckIn>)> {
        let latest = self.first(&latest_check_in_sql(), &[tenant.into(), member.into()], decode::check_in).await?;
        let parameters = [tenant.into(), member.into(), from.0.into(), until.0.into()];
        Ok((latest, self.query(&check_ins_sql(), &parameters, decode::check_in).await?))
    }

    pub async fn find_adjustment(&self, tenant: TenantId, id: AdjustmentId) -> Found<Option<Adjustment>> {
        let sql = find_by_id_sql(decode::ADJUSTMENT, "mkt_points_adjustment");
        self.first(&sql, &[tenant.into(), id.0.into()], decode::adjustment).await
    }

    /// Adjustments that needed an approval, oldest first.
    pub async fn list_adjustments(
        &self,
        tenant: TenantId,
        status: Option<AdjustmentStatus>,
        after: Option<AdjustmentId>,
        limit: i64,
    ) -> Found<Vec<Adjustment>> {
        let mut parameters = vec![tenant.into(), after.map_or(Uuid::nil(), |id| id.0).into(), limit.into()];
        parameters.extend(status.map(|status| Param::Text(status.as_str())));
        self.query(&list_adjustments_sql(status.is_some()), &parameters, decode::adjustment).await
    }

    pub async fn find_task(&self, tenant: TenantId, key: &TaskKey) -> Found<Option<Task>> {
        let columns = decode::TASK;
        let sql = format!(
            "SELECT {columns} FROM mkt_points_task WHERE tenant_id = $1 AND task_key = $2 AND deleted_at IS NULL"
        );
        self.first(&sql, &[tenant.into(), key.as_str().into()], decode::task).await
    }

    /// The tasks in the order of their keys.
    pub async fn list_tasks(&self, tenant: TenantId, after: Option<&TaskKey>, limit: i64) -> Found<Vec<Task>> {
        let after = after.map_or("", TaskKey::as_str);
        self.query(&list_tasks_sql(), &[tenant.into(), after.into(), limit.into()], decode::task).await
    }

    /// The same, each with how far a member is.
    pub async fn list_member_tasks(
        &self,
        tenant: TenantId,
        member: &MemberId,
        after: Option<&TaskKey>,
        limit: i64,
    ) -> Found<Vec<(Task, Option<Progress>)>> {
        let after = after.map_or("", TaskKey::as_str);
        let decode = |row: &Row| {
            let task = decode::task(row)?;
            let first = decode::TASK_COLUMNS;
            let progress = match row.opt_int(first)? {
                None => None,
                Some(period_start) => Some(Progress {
                    member_id: member.clone(),
                    task_key: task.key.clone(),
                    period_start: Day(period_start),
                    steps: row.int(first + 1)?,
                    completions: row.int(first + 2)?,
                    total_completions: row.int(first + 3)?,
                    carried: Carried {
                        steps: row.int(first + 4)?,
                        completions: row.int(first + 5)?,
                        total_completions: row.int(first + 6)?,
                    },
                    updated_at: row.time(first + 7)?,
                }),
            };
            Ok((task, progress))
        };
        let parameters = [tenant.into(), member.into(), after.into(), limit.into()];
        self.query(&list_member_tasks_sql(), &parameters, decode).await
    }

    /// Those of the tasks that are there and that the member has never completed.
    pub async fn tasks_not_completed(
        &self,
        tenant: TenantId,
        member: &MemberId,
        tasks: &BTreeSet<&TaskKey>,
    ) -> Found<HashSet<TaskKey>> {
        let parameters = [tenant.into(), member.into()];
        self.listed(tasks_not_completed_sql, &parameters, tasks, |row| row.caller_id(0)).await
    }

    /// A member's lines behind line `after` that took effect, or were written, in `[start, end)`, in their order; `place` is that
    /// of `end`.
    pub async fn ledger(
        &self,
        tenant: TenantId,
        member: &MemberId,
        time: LineTime,
        (start, end): (Timestamp, Timestamp),
        (after, place): (i64, LedgerPlace),
        limit: i64,
    ) -> Found<Vec<Transaction>> {
        let mut parameters = vec![
            tenant.into(),
            member.into(),
            after.into(),
            place.until.into(),
            start.into(),
            end.into(),
            limit.into(),
        ];
        if time == LineTime::Occurred {
            parameters.push(place.last.into());
        }
        self.query(&ledger_sql(time), &parameters, decode::transaction).await
    }

    /// How many lines a member's ledger has.
    pub async fn last_sequence(&self, tenant: TenantId, member: &MemberId) -> Found<i64> {
        let sql = "SELECT sequence FROM mkt_points_account WHERE tenant_id = $1 AND member_id = $2";
        Ok(self.first(sql, &[tenant.into(), member.into()], |row| row.int(0)).await?.unwrap_or(0))
    }

    /// The ledger of all members in the order of ids, which is nearly that of recording: behind a line, or from the first that
    /// was recorded at `from` or later.
    pub async fn all_transactions(
        &self,
        tenant: TenantId,
        after: Option<TransactionId>,
        from: Option<Timestamp>,
        limit: i64,
    ) -> Found<Vec<Transaction>> {
        let after = after.map(|id| id.0).or(from.map(before_ids_of)).unwrap_or(Uuid::nil());
        self.query(&all_transactions_sql(), &[tenant.into(), after.into(), limit.into()], decode::transaction).await
    }

    /// All accounts in the order of members, each with what has expired by `at` and is not written yet; what a hold past its
    /// deadline had set aside is back already, or expired with its lot.
    pub async fn all_balances(
        &self,
        tenant: TenantId,
        at: Timestamp,
        after: Option<&MemberId>,
        limit: i64,
    ) -> Found<Vec<StoredBalance>> {
        let after = after.map_or("", MemberId::as_str);
        let decode = |row: &Row| {
            let after = decode::ACCOUNT_COLUMNS;
            let stored = StoredBalance { account: decode::account(row)?, overdue: row.int(after)? };
            Ok((stored, row.int(after + 1)?))
        };
        let parameters = [tenant.into(), after.into(), at.into(), limit.into()];
        let page = self.query(&all_balances_sql(), &parameters, decode).await?;
        let due = page.iter().any(|(_, due_holds)| *due_holds > 0);
        let mut page: Vec<StoredBalance> = page.into_iter().map(|(stored, _)| stored).collect();
        if let (true, Some(first), Some(last)) = (due, page.first(), page.last()) {
            let parts = self.due_parts(tenant, &first.account.member_id, &last.account.member_id, at).await?;
            let places: HashMap<MemberId, usize> =
                page.iter().enumerate().map(|(place, stored)| (stored.account.member_id.clone(), place)).collect();
            for part in parts {
                // An account made meanwhile is left out.
                let Some(place) = places.get(&part.member_id) else { continue };
                let account = &mut page[*place].account;
                let settled = part.settles(account.debt);
                account.frozen -= part.points;
                account.debt -= settled;
                account.revoked += settled;
                let left = part.points - settled;
                *(if part.expires_at <= at { &mut account.expired } else { &mut account.available }) += left;
            }
        }
        Ok(page)
    }

    /// Lots of all members with points left that expire in `(from, until]`, soonest first.
    pub async fn expiring_lots(
        &self,
        tenant: TenantId,
        from: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, LotId)>,
        limit: i64,
    ) -> Found<Vec<(MemberId, Lot)>> {
        let (expires_at, id) = after.unwrap_or((from, LotId(LAST_ID)));
        let parameters = [tenant.into(), until.into(), expires_at.into(), id.0.into(), limit.into()];
        let decode = |row: &Row| Ok((row.caller_id(1)?, decode::lot(row)?));
        self.query(&expiring_lots_sql(), &parameters, decode).await
    }

    /// Accounts that were merged and have something again, each with the member that took it over.
    pub async fn merged_accounts_to_clear(&self, tenant: TenantId, limit: i64) -> Found<Vec<(MemberId, MemberId)>> {
        let decode = |row: &Row| Ok((row.caller_id(0)?, row.caller_id(1)?));
        self.query(MERGED_TO_CLEAR, &[tenant.into(), limit.into()], decode).await
    }

    /// The enabled tasks that events report.
    pub async fn tasks_by_event(&self, tenant: TenantId) -> Found<Vec<Task>> {
        let columns = decode::TASK;
        let sql = format!(
            "SELECT {columns} FROM mkt_points_task WHERE tenant_id = $1 AND enabled AND event_type IS NOT NULL \
             ORDER BY task_key"
        );
        self.query(&sql, &[tenant.into()], decode::task).await
    }

    /// Up to where the log has been looked at for tasks, if any task needs it.
    pub async fn task_cursor(&self, tenant: TenantId) -> Found<Option<EventPosition>> {
        let decode = |row: &Row| Ok(EventPosition { tx: row.int(0)?, ordinal: row.int(1)? });
        self.first("SELECT tx, ordinal FROM task_cursor WHERE tenant_id = $1", &[tenant.into()], decode).await
    }

    /// Moves it on, unless another node has.
    pub async fn move_task_cursor(&self, tenant: TenantId, from: EventPosition, to: EventPosition) -> Found<()> {
        let sql = "UPDATE task_cursor SET tx = $1, ordinal = $2 WHERE tenant_id = $3 AND tx = $4 AND ordinal = $5";
        let parameters = [to.tx.into(), to.ordinal.into(), tenant.into(), from.tx.into(), from.ordinal.into()];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Where the log of a tenant ends now.
    pub async fn last_event(&self, tenant: TenantId) -> Found<Option<EventPosition>> {
        let decode = |row: &Row| Ok(EventPosition { tx: row.int(0)?, ordinal: row.int(1)? });
        let sql = "SELECT tx, ordinal FROM event WHERE tenant_id = $1 ORDER BY tx DESC, ordinal DESC LIMIT 1";
        self.first(sql, &[tenant.into()], decode).await
    }

    /// Makes sure that events from now on are looked at for tasks.
    pub async fn begin_task_events(&self, tenant: TenantId) -> Found<()> {
        let EventPosition { tx, ordinal } =
            self.last_event(tenant).await?.unwrap_or(EventPosition { tx: 0, ordinal: -1 });
        let sql = "INSERT INTO task_cursor (tenant_id, tx, ordinal) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.execute(sql, &[tenant.into(), tx.into(), ordinal.into()]).await?;
        Ok(())
    }

    pub async fn find_hold(&self, tenant: TenantId, id: HoldId) -> Found<Option<Hold>> {
        let sql = find_by_id_sql(decode::HOLD, "mkt_points_hold");
        self.first(&sql, &[tenant.into(), id.0.into()], decode::hold).await
    }

    /// A member's holds, newest first; `status` is the one they show at `at`.
    pub async fn list_holds(
        &self,
        tenant: TenantId,
        member: &MemberId,
        status: Option<HoldStatus>,
        at: Timestamp,
        before: Option<HoldId>,
        limit: i64,
    ) -> Found<Vec<Hold>> {
        let before = before.map_or(LAST_ID, |id| id.0);
        let mut parameters = vec![tenant.into(), member.into(), before.into()];
        if status.is_some_and(hold_depends_on_time) {
            parameters.push(at.into());
        }
        parameters.push(limit.into());
        self.query(&list_holds_sql(status), &parameters, decode::hold).await
    }

    pub async fn find_transaction(&self, tenant: TenantId, id: TransactionId) -> Found<Option<Transaction>> {
        let sql = find_by_id_sql(decode::TRANSACTION, "mkt_points_transaction");
        self.first(&sql, &[tenant.into(), id.0.into()], decode::transaction).await
    }

    /// A member's ledger, newest first.
    pub async fn list_transactions(
        &self,
        tenant: TenantId,
        member: &MemberId,
        kind: Option<TransactionType>,
        before_sequence: Option<i64>,
        limit: i64,
    ) -> Found<Vec<Transaction>> {
        let sql = list_transactions_sql(kind.is_some());
        let before = before_sequence.unwrap_or(i64::MAX);
        let mut parameters = vec![tenant.into(), member.into(), before.into()];
        parameters.extend(kind.map(|kind| Param::Text(kind.as_str())));
        parameters.push(limit.into());
        self.query(&sql, &parameters, decode::transaction).await
    }

    /// A member's lots with points left or held, in spending order.
    pub async fn list_lots(
        &self,
        tenant: TenantId,
        member: &MemberId,
        after: Option<(Timestamp, Timestamp, LotId)>,
        limit: i64,
    ) -> Found<Vec<Lot>> {
        let (expires_at, created_at, id) =
            after.unwrap_or((Timestamp(i64::MIN), Timestamp(i64::MIN), LotId(Uuid::nil())));
        let parameters =
            [tenant.into(), member.into(), expires_at.into(), created_at.into(), id.0.into(), limit.into()];
        self.query(&list_lots_sql(), &parameters, decode::lot).await
    }

    // Rules.

    /// The tenant's rules as they hold at `at`, for what happens at that time.
    pub async fn rules_at(&self, tenant: TenantId, at: Timestamp) -> Found<Arc<Rules>> {
        let decode = |row: &Row| decode::rules(row, self.definitions());
        let found = self.first(&find_rules_sql(), &[tenant.into(), at.into()], decode).await?;
        let rules = found.map_or_else(|| Arc::new(Rules::default()), |(_, rules)| rules);
        Ok(rules.at(at))
    }

    /// The version of the rules that holds at `at`.
    pub async fn find_rules(&self, tenant: TenantId, at: Timestamp) -> Found<RulesVersion> {
        let decode = |row: &Row| rules_version(row, self.definitions(), row.int(decode::RULES_COLUMNS)?);
        let found = self.first(&find_rules_sql(), &[tenant.into(), at.into()], decode).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        // Nothing holds yet, though something may be scheduled.
        let newest = self.first(NEWEST_RULES, &[tenant.into()], |row| row.int(0)).await?.unwrap_or(0);
        let rules = Arc::new(Rules::default());
        Ok(RulesVersion { rules, effective_from: Timestamp(0), created_at: Timestamp(0), newest })
    }

    /// The version that holds at `at`, as it was a moment ago, for who only shows it.
    pub async fn recent_rules(&self, tenant: TenantId, at: Timestamp) -> Found<RulesVersion> {
        let Some(caches) = self.caches() else { return self.find_rules(tenant, at).await };
        match caches.rules(tenant, async || self.rules_history(tenant).await).await? {
            Some(history) => Ok(history.at(at)),
            None => self.find_rules(tenant, at).await,
        }
    }

    /// All versions, when they are few enough to be kept.
    async fn rules_history(&self, tenant: TenantId) -> Found<Option<RulesHistory>> {
        let found = self.list_rules(tenant, None, MAX_RULES_KEPT + 1).await?;
        Ok((found.len() as i64 <= MAX_RULES_KEPT).then_some(RulesHistory(found)))
    }

    /// A tenant's versions of rules, newest first.
    pub async fn list_rules(
        &self,
        tenant: TenantId,
        before_version: Option<i64>,
        limit: i64,
    ) -> Found<Vec<RulesVersion>> {
        let before = before_version.unwrap_or(i64::MAX);
        let decode = |row: &Row| rules_version(row, self.definitions(), row.int(1)?);
        self.query(&list_rules_sql(), &[tenant.into(), before.into(), limit.into()], decode).await
    }

    // Events and what is due.

    /// Events after a position, in the order of their positions. Nothing is skipped: on PostgreSQL only transactions below
    /// the oldest one still in flight are shown, so no event can appear behind a position already read.
    pub async fn list_events(
        &self,
        tenant: TenantId,
        after: EventPosition,
        kind: Option<EventKind>,
        limit: i64,
    ) -> Found<EventPage> {
        let scan = if kind.is_some() { EVENT_SCAN } else { limit };
        let sql = match self {
            Store::Sqlite(_) => list_events_sql(""),
            Store::Postgres(_) => list_events_sql("AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"),
        };
        let parameters = [tenant.into(), after.tx.into(), after.ordinal.into(), scan.into()];
        let mut events = self.query(&sql, &parameters, decode::event).await?;
        let mut scanned_to = events.last().map_or(after, |(position, _)| *position);
        if let Some(kind) = kind {
            events.retain(|(_, event)| event.kind == kind);
            if events.len() as i64 > limit {
                events.truncate(limit as usize);
                scanned_to = events.last().map_or(after, |(position, _)| *position);
            }
        }
        Ok(EventPage { events, scanned_to })
    }

    /// Coupons, lots, locks and holds that time has ended by `at` and that are not written yet, at most `limit` each; of lots those
    /// `after` a place. Lots by the million may end at one instant, and their entries in the index stay until nobody can see them
    /// any more: a pass that began at the first one for each of its pages would go over all that it has settled.
    ///
    /// With `skip_imports`, objects recorded within the last day that were long over when they were recorded are left
    /// alone: an import or a replay is under way and will say itself when to expire them.
    pub async fn due(
        &self,
        tenant: TenantId,
        at: Timestamp,
        after: Option<ExpiryPlace>,
        limit: i64,
        skip_imports: bool,
    ) -> Found<Due> {
        let day_ago = at.0 - scrip_domain::time::MICROS_PER_DAY;
        let (newest, oldest) =
            if skip_imports { (before_ids_of(Timestamp(day_ago)), day_ago) } else { (LAST_ID, i64::MIN) };
        let parameters = [tenant.into(), at.into(), newest.into(), oldest.into(), limit.into()];
        let mut due = Due::default();
        for sql in DUE_COUPONS {
            due.coupons.extend(self.query(sql, &parameters, |row| Ok(CouponId(row.uuid(0)?))).await?);
        }
        for sql in DUE_ORDERS {
            due.orders.extend(self.query(sql, &parameters, |row| Ok((row.caller_id(0)?, row.caller_id(1)?))).await?);
        }
        due.members = self.query(DUE_HOLDS, &parameters, |row| row.caller_id::<MemberId>(0)).await?;
        let (expires_at, id) = after.unwrap_or((Timestamp(i64::MIN), LotId(Uuid::nil())));
        let [tenant, at, newest, oldest, limit] = parameters;
        let parameters = [tenant, at, newest, oldest, limit, expires_at.into(), id.0.into()];
        let place = |row: &Row| Ok((row.caller_id::<MemberId>(0)?, (row.time(1)?, LotId(row.uuid(2)?))));
        for (member, place) in self.query(DUE_LOTS, &parameters, place).await? {
            due.members.push(member);
            due.last_lot = Some(place);
        }
        due.members.sort_unstable();
        due.members.dedup();
        Ok(due)
    }

    /// Up to which lot members were reminded so many days before.
    pub async fn reminded(&self, tenant: TenantId, days_before: u32) -> Found<Option<ExpiryPlace>> {
        let sql = "SELECT expires_at, lot_id FROM points_reminder WHERE tenant_id = $1 AND days_before = $2";
        let decode = |row: &Row| Ok((row.time(0)?, LotId(row.uuid(1)?)));
        self.first(sql, &[tenant.into(), i64::from(days_before).into()], decode).await
    }

    /// Up to when a tenant's issue windows are announced.
    pub async fn windows_announced(&self, tenant: TenantId) -> Found<Option<Timestamp>> {
        self.first("SELECT announced_until FROM template_window WHERE tenant_id = $1", &[tenant.into()], |row| {
            row.time(0)
        })
        .await
    }

    /// Templates whose issue window begins or ends after `from` and up to `until`.
    pub async fn windows_between(&self, tenant: TenantId, from: Timestamp, until: Timestamp) -> Found<Vec<TemplateId>> {
        let mut templates = Vec::new();
        for sql in WINDOWS_BETWEEN {
            let parameters = [tenant.into(), from.into(), until.into()];
            templates.extend(self.query(sql, &parameters, |row| Ok(TemplateId(row.uuid(0)?))).await?);
        }
        templates.sort_unstable();
        templates.dedup();
        Ok(templates)
    }

    /// What was answered to an earlier request with this key.
    pub async fn find_outcome(&self, tenant: TenantId, key: [u8; 16]) -> Found<Option<IdempotencyRecord>> {
        let sql = "SELECT fingerprint, outcome FROM idempotency WHERE tenant_id = $1 AND key = $2";
        let decode = |row: &Row| Ok(IdempotencyRecord { fingerprint: row.bytes(0)?, outcome: row.text(1)? });
        let found = self.first(sql, &[tenant.into(), Param::Bytes(&key)], decode).await?;
        if let (Some(_), Store::Postgres(store)) = (&found, self) {
            // Perhaps by another node: what its answer tells must show in what the caller reads next.
            store.has_written(None).await;
        }
        Ok(found)
    }

    /// Those of the keys under which an answer is recorded.
    pub async fn answered_keys(&self, tenant: TenantId, keys: &[[u8; 16]]) -> Found<HashSet<[u8; 16]>> {
        let sql = "SELECT key FROM idempotency WHERE tenant_id = $1 AND key = $2";
        match self {
            Store::Sqlite(store) => {
                let mut found = HashSet::new();
                for key in keys {
                    found.extend(store.query(sql, &[tenant.into(), Param::Bytes(key)], |row| row.bytes(0))?);
                }
                Ok(found)
            }
            Store::Postgres(_) if keys.is_empty() => Ok(HashSet::new()),
            Store::Postgres(store) => {
                let sql = "SELECT r.key FROM unnest($2::bytea[]) AS k(key) CROSS JOIN LATERAL \
                           (SELECT i.key FROM idempotency i WHERE i.tenant_id = $1 AND i.key = k.key) r";
                let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
                Ok(store.query_digests(sql, tenant, &keys, |row| row.bytes(0)).await?.into_iter().collect())
            }
        }
    }

    /// Deletes idempotency records made before `before`, at most `limit` and those of the same instant as the last; how many there
    /// were.
    pub async fn purge_idempotency(&self, tenant: TenantId, before: Timestamp, limit: i64) -> Found<u64> {
        self.execute(PURGE_IDEMPOTENCY, &[tenant.into(), before.into(), (limit - 1).into()]).await
    }
}

const PURGE_IDEMPOTENCY: &str = "DELETE FROM idempotency WHERE tenant_id = $1 AND created_at < $2 \
     AND created_at <= coalesce((SELECT created_at FROM idempotency WHERE tenant_id = $1 AND created_at < $2 \
     ORDER BY created_at LIMIT 1 OFFSET $3), $2)";

/// What deletes pages of a large table, and the column that bounds them: for the test of their plans. Where a sub-select says
/// which keys, the planner of a PostgreSQL with a row or two reads the whole table and asks of each row whether it is among
/// them, and keeps that plan while the table grows.
pub fn page_deletes() -> [(&'static str, &'static str); 3] {
    [(PURGE_IDEMPOTENCY, "created_at"), (super::webhooks::PURGE_DELIVERIES, "id"), (super::bulk::DROP_CHUNKS, "number")]
}

/// The reads that are asked all day, by name: for the test of their plans.
pub fn hot_queries() -> Vec<(String, String)> {
    let named = |name: &str, sql: String| (name.to_owned(), sql);
    let mut all = vec![
        named("find_template", find_template_sql()),
        named("find_coupon", find_by_id_sql(decode::COUPON, "mkt_user_coupon")),
        named("find_hold", find_by_id_sql(decode::HOLD, "mkt_points_hold")),
        named("find_transaction", find_by_id_sql(decode::TRANSACTION, "mkt_points_transaction")),
        named("balance", BALANCE.clone()),
        named("wallets", WALLETS.clone()),
        named("find_program", FIND_PROGRAM.to_owned()),
        named("list_programs", list_programs_sql()),
        named("list_transactions", list_transactions_sql(false)),
        named("list_lots", list_lots_sql()),
        named("list_events", list_events_sql("")),
        named("find_rules", find_rules_sql()),
        named("newest_rules", NEWEST_RULES.to_owned()),
        named("list_rules", list_rules_sql()),
        named("scan_coupons", scan_coupons_sql()),
        named("scan_coupons_of", scan_coupons_of_sql()),
        named("list_usages", list_usages_sql(false)),
        named("list_usages of a template", list_usages_sql(true)),
        named("ledger_place", ledger_place_sql()),
        named("milestone_before", MILESTONE_BEFORE.to_owned()),
        named("posted_balance", posted_balance_sql(LineTime::Occurred)),
        named("posted_balance by recording", posted_balance_sql(LineTime::Recorded)),
        named("past_due", PAST_DUE.to_owned()),
        named("ledger", ledger_sql(LineTime::Occurred)),
        named("ledger by recording", ledger_sql(LineTime::Recorded)),
        named("all_transactions", all_transactions_sql()),
        named("all_balances", all_balances_sql()),
        named("due_holds", due_holds_sql()),
        named("expiring_lots", expiring_lots_sql()),
        named("merged_accounts_to_clear", MERGED_TO_CLEAR.to_owned()),
        named("latest_check_in", latest_check_in_sql()),
        named("check_ins", check_ins_sql()),
        named("list_adjustments", list_adjustments_sql(false)),
        named("list_adjustments by status", list_adjustments_sql(true)),
        named("list_tasks", list_tasks_sql()),
        named("list_member_tasks", list_member_tasks_sql()),
    ];
    for (enabled, kind) in [(false, false), (true, false), (false, true)] {
        all.push((format!("list_templates {enabled} {kind}"), list_templates_sql(enabled, kind, Some(false))));
    }
    for status in [None].into_iter().chain(CouponStatus::ALL.map(Some)) {
        for by_template in [false, true] {
            all.push((format!("list_coupons {status:?} {by_template}"), list_coupons_sql(status, by_template)));
        }
    }
    for status in [None].into_iter().chain(HoldStatus::ALL.map(Some)) {
        all.push((format!("list_holds {status:?}"), list_holds_sql(status)));
    }
    all.extend(projection::HOT_QUERIES.map(|(name, sql)| named(name, sql.to_owned())));
    all.extend(super::job::hot_queries());
    all.extend(super::webhooks::hot_queries().into_iter().map(|(name, sql)| named(name, sql)));
    all.extend(super::codes::hot_queries().into_iter().map(|(name, sql)| named(name, sql)));
    all.extend(super::orders::hot_queries());
    all.extend(super::bulk::hot_queries());
    all.extend(WINDOWS_BETWEEN.map(|sql| named("windows_between", sql.to_owned())));
    let due = DUE_COUPONS.into_iter().chain(DUE_ORDERS).chain([DUE_HOLDS, DUE_LOTS]);
    all.extend(due.enumerate().map(|(number, sql)| (format!("due {number}"), sql.to_owned())));
    all
}

/// What makes rows of a parameter that is a JSON list, with a column `value`: how one statement looks many keys up, on both
/// stores. The statement asks for each of them in a sub-select of its own, which keeps it on the index whatever the planner
/// believes about a fresh table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listing {
    Sqlite,
    Postgres,
}

impl Listing {
    /// Of a list of texts.
    pub(super) fn texts(self, parameter: &str) -> String {
        match self {
            Listing::Sqlite => format!("json_each({parameter})"),
            Listing::Postgres => format!("jsonb_array_elements_text({parameter}::text::jsonb)"),
        }
    }

    /// Of a list of lists: `value ->> 0` is the first text of each.
    pub(super) fn lists(self, parameter: &str) -> String {
        match self {
            Listing::Sqlite => format!("json_each({parameter})"),
            Listing::Postgres => format!("jsonb_array_elements({parameter}::text::jsonb)"),
        }
    }
}

/// The text of a statement that takes a list.
pub(super) type ListedSql = fn(Listing) -> String;

/// What is asked with lists, by name, as SQLite and as PostgreSQL is asked it: for the test of the plans.
pub fn listed_queries() -> Vec<(&'static str, [String; 2])> {
    let both = |sql: ListedSql| [Listing::Sqlite, Listing::Postgres].map(sql);
    let mut all = vec![
        ("members_with_accounts", both(members_with_accounts_sql)),
        ("tasks_not_completed", both(tasks_not_completed_sql)),
    ];
    all.extend(
        super::orders::LISTED_QUERIES.iter().chain(projection::LISTED_QUERIES).map(|(name, sql)| (*name, both(*sql))),
    );
    all
}

/// The statements of gathered reads ([`super::gather`]): for the test of their plans.
pub fn gathered_statements() -> Vec<String> {
    let by_id = ["uuid", "uuid"];
    let mut all = vec![
        gathered_sql(&find_template_sql(), &by_id),
        gathered_sql(&find_by_id_sql(decode::COUPON, "mkt_user_coupon"), &by_id),
        gathered_sql(&BALANCE, &["bigint", "bigint", "uuid", "text"]),
    ];
    for status in CouponStatus::ALL.into_iter().map(Some).chain([None]) {
        for by_template in [false, true] {
            let mut types = vec!["uuid", "text", "uuid"];
            types.extend(status.is_some_and(depends_on_time).then_some("bigint"));
            types.extend(by_template.then_some("uuid"));
            types.push("bigint");
            all.push(gathered_sql(&list_coupons_sql(status, by_template), &types));
        }
    }
    all
}

fn find_by_id_sql(columns: &str, table: &str) -> String {
    format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND id = $2")
}

const DUE_COUPONS: [&str; 2] = [
    "SELECT id FROM mkt_user_coupon WHERE tenant_id = $1 AND status = 'AVAILABLE' AND valid_until <= $2 \
     AND (id < $3 OR valid_until >= $4) ORDER BY valid_until LIMIT $5",
    "SELECT id FROM mkt_user_coupon WHERE tenant_id = $1 AND status = 'LOCKED' AND locked_until IS NOT NULL \
     AND locked_until <= $2 AND (id < $3 OR locked_until >= $4) ORDER BY locked_until LIMIT $5",
];

const DUE_ORDERS: [&str; 2] = [
    "SELECT order_id, member_id FROM mkt_order WHERE tenant_id = $1 AND status = 'RESERVED' AND expires_at <= $2 \
     AND (id < $3 OR expires_at >= $4) ORDER BY expires_at LIMIT $5",
    "SELECT order_id, member_id FROM mkt_order WHERE tenant_id = $1 AND earn_due_at IS NOT NULL AND earn_due_at <= $2 \
     AND (id < $3 OR earn_due_at >= $4) ORDER BY earn_due_at LIMIT $5",
];

const DUE_HOLDS: &str = "SELECT member_id FROM mkt_points_hold WHERE tenant_id = $1 AND status = 'OPEN' AND expires_at <= $2 \
     AND (id < $3 OR expires_at >= $4) ORDER BY expires_at LIMIT $5";

const DUE_LOTS: &str = "SELECT member_id, expires_at, id FROM mkt_points_lot WHERE tenant_id = $1 AND open \
     AND expires_at <= $2 AND (id < $3 OR expires_at >= $4) AND remaining > 0 AND (expires_at, id) > ($6, $7) \
     ORDER BY expires_at, id LIMIT $5";

const WINDOWS_BETWEEN: [&str; 2] = [
    "SELECT id FROM mkt_coupon_template WHERE tenant_id = $1 AND distribution_starts_at > $2 AND distribution_starts_at <= $3",
    "SELECT id FROM mkt_coupon_template WHERE tenant_id = $1 AND distribution_ends_at IS NOT NULL \
     AND distribution_ends_at > $2 AND distribution_ends_at <= $3",
];

const TEMPLATE_FROM: &str = "FROM mkt_coupon_template t JOIN mkt_coupon_template_version v \
     ON v.tenant_id = t.tenant_id AND v.template_id = t.id AND v.version = t.version";
const TEMPLATE_USED: &str = "CAST((SELECT coalesce(sum(u.used_count), 0) FROM mkt_coupon_template_use u \
     WHERE u.tenant_id = t.tenant_id AND u.template_id = t.id) AS BIGINT)";

/// Reading a definition takes longer than finding it: only its first time counts.
fn template(row: &Row, known: &Definitions) -> Found<Template> {
    let (tenant, id, version) = (row.tenant(0)?, TemplateId(row.uuid(1)?), row.int(2)?);
    let definition = match known.get(tenant, id, version) {
        Some(definition) => definition,
        None => {
            let definition: Arc<Definition> = Arc::new(row.json(decode::TEMPLATE_COLUMNS)?);
            known.insert(tenant, id, version, definition.clone());
            definition
        }
    };
    decode::template(row, definition, row.int(decode::TEMPLATE_COLUMNS + 1)?)
}

/// Asked all day, so their texts are made once.
static FIND_TEMPLATE: LazyLock<String> = LazyLock::new(find_template_sql);
static LIST_COUPONS: LazyLock<HashMap<(Option<CouponStatus>, bool), String>> = LazyLock::new(|| {
    let statuses = [None].into_iter().chain(CouponStatus::ALL.map(Some));
    let filters = statuses.flat_map(|status| [(status, false), (status, true)]);
    filters.map(|(status, by_template)| ((status, by_template), list_coupons_sql(status, by_template))).collect()
});

fn find_template_sql() -> String {
    let columns = decode::of("t", decode::TEMPLATE);
    format!("SELECT {columns}, v.definition, {TEMPLATE_USED} {TEMPLATE_FROM} WHERE t.tenant_id = $1 AND t.id = $2")
}

fn list_templates_sql(by_enabled: bool, by_kind: bool, archived: Option<bool>) -> String {
    let columns = decode::of("t", decode::TEMPLATE);
    let mut filter = match archived {
        None => String::new(),
        Some(true) => " AND t.archived_at IS NOT NULL".to_owned(),
        Some(false) => " AND t.archived_at IS NULL".to_owned(),
    };
    let mut next = 3;
    for (wanted, column) in [(by_enabled, "enabled"), (by_kind, "type")] {
        if wanted {
            filter.push_str(&format!(" AND t.{column} = ${next}"));
            next += 1;
        }
    }
    format!(
        "SELECT {columns}, v.definition, {TEMPLATE_USED} {TEMPLATE_FROM} \
         WHERE t.tenant_id = $1 AND t.id < $2{filter} ORDER BY t.id DESC LIMIT ${next}"
    )
}

/// Whether coupons show this status by the clock, not by what is stored alone.
fn depends_on_time(status: CouponStatus) -> bool {
    matches!(status, CouponStatus::Available | CouponStatus::Locked | CouponStatus::Expired)
}

/// One sub-select for each stored status that may show as the wanted one: each walks its own stretch of
/// `idx_user_coupon_member` from the newest, so a page costs its own rows, not the member's.
fn list_coupons_sql(status: Option<CouponStatus>, by_template: bool) -> String {
    let columns = decode::COUPON;
    let any = |status: CouponStatus| (status, "");
    let stretches: Vec<(CouponStatus, &str)> = match status {
        None => CouponStatus::ALL.into_iter().map(any).collect(),
        Some(CouponStatus::Available) => vec![
            (CouponStatus::Available, " AND valid_until > $4"),
            (CouponStatus::Locked, " AND locked_until <= $4 AND valid_until > $4"),
        ],
        Some(CouponStatus::Expired) => vec![
            (CouponStatus::Available, " AND valid_until <= $4"),
            (CouponStatus::Locked, " AND locked_until <= $4 AND valid_until <= $4"),
            any(CouponStatus::Expired),
        ],
        Some(CouponStatus::Locked) => {
            vec![(CouponStatus::Locked, " AND (locked_until IS NULL OR locked_until > $4)")]
        }
        Some(other) => vec![any(other)],
    };
    let mut next = if status.is_some_and(depends_on_time) { 5 } else { 4 };
    let mut template = String::new();
    if by_template {
        template = format!(" AND template_id = ${next}");
        next += 1;
    }
    let selects = stretches.iter().map(|(status, filter)| {
        let status = status.as_str();
        format!(
            "SELECT * FROM (SELECT {columns} FROM mkt_user_coupon WHERE tenant_id = $1 AND member_id = $2 \
             AND status = '{status}' AND id < $3{filter}{template} ORDER BY id DESC LIMIT ${next}) AS s"
        )
    });
    format!("{} ORDER BY id DESC LIMIT ${next}", selects.collect::<Vec<_>>().join(" UNION ALL "))
}

fn scan_coupons_sql() -> String {
    format!("SELECT {} FROM mkt_user_coupon WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3", decode::COUPON)
}

fn scan_coupons_of_sql() -> String {
    format!(
        "SELECT {} FROM mkt_user_coupon WHERE tenant_id = $1 AND template_id = $2 AND (member_id, sequence) > ($3, $4) \
         ORDER BY member_id, sequence LIMIT $5",
        decode::COUPON
    )
}

fn list_usages_sql(by_template: bool) -> String {
    let (filter, limit) = if by_template { (" AND template_id = $5", "$6") } else { ("", "$5") };
    format!(
        "SELECT {} FROM mkt_user_coupon WHERE tenant_id = $1 AND status = 'USED' AND (used_at, id) < ($2, $3) \
         AND used_at >= $4{filter} ORDER BY used_at DESC, id DESC LIMIT {limit}",
        decode::COUPON
    )
}

const FIND_PROGRAM: &str = "SELECT tenant_id FROM tenant WHERE parent_id = $1 AND program = $2";

fn list_programs_sql() -> String {
    let columns = decode::TENANT;
    format!("SELECT {columns} FROM tenant WHERE parent_id = $1 AND program > $2 ORDER BY program LIMIT $3")
}

/// What time has made of an account's lots by $1 and will have made by $2: what has expired, what will, and when first.
const OF_LOTS: &[(&str, &str)] = &[
    ("overdue", "sum(remaining) FILTER (WHERE expires_at <= $1)"),
    ("expiring", "sum(remaining) FILTER (WHERE expires_at > $1)"),
    ("next_expires_at", "min(expires_at) FILTER (WHERE expires_at > $1 AND remaining > 0)"),
];
/// And of its holds: how many are past their deadline, what becomes available, and when first.
const OF_HOLDS: &[(&str, &str)] = &[
    ("due", "count(*) FILTER (WHERE expires_at <= $1)"),
    ("pending", "sum(points) FILTER (WHERE pending AND expires_at > $1)"),
    ("next_available_at", "min(expires_at) FILTER (WHERE pending AND expires_at > $1)"),
];

/// The open lots that tell, and the open holds, of the member $4 in a tenant.
fn open_lots_and_holds(tenant: &str) -> [String; 2] {
    [
        format!("mkt_points_lot WHERE open AND expires_at <= $2 AND tenant_id = {tenant} AND member_id = $4"),
        format!("mkt_points_hold WHERE status = 'OPEN' AND tenant_id = {tenant} AND member_id = $4"),
    ]
}

/// An account, and what time makes of it: the columns that [`balance_as_written`] reads.
fn balance_columns(of: impl Fn(&str) -> String) -> String {
    let account = decode::of("a", decode::ACCOUNT);
    let sum = |name: &str| format!("CAST(coalesce({}, 0) AS BIGINT)", of(name));
    let (overdue, expiring, pending) = (sum("overdue"), sum("expiring"), sum("pending"));
    let (due, next_expires_at, next_available_at) = (of("due"), of("next_expires_at"), of("next_available_at"));
    format!("{account}, {overdue}, {expiring}, {next_expires_at}, {due}, {pending}, {next_available_at}")
}
const BALANCE_COLUMNS: usize = decode::ACCOUNT_COLUMNS + 6;

static BALANCE: LazyLock<String> = LazyLock::new(|| {
    let named = |what: &[(&str, &str)]| {
        let all: Vec<String> = what.iter().map(|(name, sql)| format!("{sql} AS {name}")).collect();
        all.join(", ")
    };
    let columns = balance_columns(|name| {
        let of = if OF_LOTS.iter().any(|(lot, _)| *lot == name) { "l" } else { "held" };
        format!("{of}.{name}")
    });
    let [lots, holds] = open_lots_and_holds("$3");
    format!(
        "SELECT {columns} FROM mkt_points_account a CROSS JOIN (SELECT {} FROM {lots}) l \
         CROSS JOIN (SELECT {} FROM {holds}) held WHERE a.tenant_id = $3 AND a.member_id = $4",
        named(OF_LOTS),
        named(OF_HOLDS)
    )
});

/// The same in the tenant $3 and in each of its programs, whether the member has an account there or not.
static WALLETS: LazyLock<String> = LazyLock::new(|| {
    let [lots, holds] = open_lots_and_holds("t.tenant_id");
    let columns = balance_columns(|name| {
        let of = |what: &[(&str, &str)], rows: &str| {
            let found = what.iter().find(|(known, _)| *known == name);
            found.map(|(_, sql)| format!("(SELECT {sql} FROM {rows})"))
        };
        of(OF_LOTS, &lots).or_else(|| of(OF_HOLDS, &holds)).unwrap_or_default()
    });
    format!(
        "SELECT {columns}, t.tenant_id, t.program, t.name FROM tenant t LEFT JOIN mkt_points_account a \
         ON a.tenant_id = t.tenant_id AND a.member_id = $4 WHERE t.tenant_id = $3 OR t.parent_id = $3 \
         ORDER BY t.program IS NOT NULL, t.program"
    )
});

/// A balance but for what holds past their deadline still set aside, and how many these are.
fn balance_as_written(row: &Row) -> Found<(Balance, i64)> {
    let account = decode::account(row)?;
    let after = decode::ACCOUNT_COLUMNS;
    let overdue = row.int(after)?;
    let balance = Balance {
        available: account.available - overdue,
        frozen: account.frozen,
        used: account.used,
        expired: account.expired + overdue,
        revoked: account.revoked,
        total_points: account.total_points,
        debt: account.debt,
        pending_points: row.int(after + 4)?,
        next_available_at: row.opt_time(after + 5)?,
        merged_into: account.merged_into,
        expiring_points: row.int(after + 1)?,
        next_expires_at: row.opt_time(after + 2)?,
    };
    Ok((balance, row.int(after + 3)?))
}

/// By which of its times a line is placed: when it took effect, or when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTime {
    Occurred,
    Recorded,
}

impl LineTime {
    pub const ALL: [LineTime; 2] = [LineTime::Occurred, LineTime::Recorded];

    pub fn as_str(self) -> &'static str {
        match self {
            LineTime::Occurred => "OCCURRED",
            LineTime::Recorded => "RECORDED",
        }
    }

    pub fn parse(text: &str) -> Option<LineTime> {
        LineTime::ALL.into_iter().find(|time| time.as_str() == text)
    }

    fn column(self) -> &'static str {
        match self {
            LineTime::Occurred => "occurred_at",
            LineTime::Recorded => "recorded_at",
        }
    }
}

/// An account as it is written, and what time has taken from it since.
#[derive(Debug, Clone)]
pub struct StoredBalance {
    pub account: Account,
    pub overdue: i64,
}

/// What the lines of a ledger add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Posted {
    pub lines: i64,
    pub available: i64,
    pub frozen: i64,
    pub debt: i64,
    pub total_points: i64,
    pub used: i64,
    pub expired: i64,
    pub revoked: i64,
}

/// Lines of an account up to which nothing is searched: it is no more than what would be added up anyhow.
const SHORT_LEDGER: i64 = 2 * MILESTONE;
/// How much earlier a line may say it was written than the one before it: commands bear the time at which a node got them, and
/// the clocks of nodes differ.
const CLOCKS_APART: i64 = 600_000_000;

/// Where a time falls in a member's ledger. Lines stand in the order in which they were written, so all but a few lie clearly
/// before or behind it. What is written before a time took effect before it; what is written later took effect later, unless
/// it was written late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerPlace {
    /// Lines up to this one were written before the time.
    pub before: i64,
    /// Lines behind this one were written at the time or later.
    pub until: i64,
    /// Those behind this one are left out.
    pub last: i64,
}

/// Halves the lines between which a time falls, until none is left: for a time a little earlier, and one a little later.
fn ledger_place_sql() -> String {
    let middle = "(span.low + span.high) / 2";
    let is_before = format!(
        "(SELECT t.recorded_at < span.at FROM mkt_points_transaction t \
          WHERE t.tenant_id = $1 AND t.member_id = $2 AND t.sequence = {middle})"
    );
    format!(
        "WITH RECURSIVE span(at, low, high) AS (SELECT s.at, CAST(0 AS BIGINT), CAST($4 AS BIGINT) + 1 \
          FROM (SELECT CAST($3 AS BIGINT) AS at UNION ALL SELECT CAST($5 AS BIGINT)) s \
         UNION ALL SELECT span.at, CASE WHEN {is_before} THEN {middle} ELSE span.low END, \
          CASE WHEN {is_before} THEN span.high ELSE {middle} END FROM span WHERE span.high - span.low > 1) \
         SELECT span.at, max(span.low) FROM span GROUP BY span.at ORDER BY span.at"
    )
}

const MILESTONE_BEFORE: &str = "SELECT sequence, balance_after, frozen_after, debt_after, totals FROM mkt_points_transaction \
     WHERE tenant_id = $1 AND member_id = $2 AND sequence <= $3 AND totals IS NOT NULL ORDER BY sequence DESC LIMIT 1";

fn posted_at_milestone(row: &Row) -> Found<Posted> {
    let Totals { total_points, used, expired, revoked } = row.json(4)?;
    let (lines, available, frozen, debt) = (row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?);
    Ok(Posted { lines, available, frozen, debt, total_points, used, expired, revoked })
}

/// The lines that were written late, behind line `after`: an index has these only.
fn written_late(after: &str, last: &str) -> String {
    format!("t.sequence > {after} AND t.sequence <= {last} AND t.occurred_at < t.recorded_at")
}

/// Sums of changes behind line $4, so that it does not matter whether lines were written in the order of their times.
fn posted_balance_sql(time: LineTime) -> String {
    let sum = |what: &str| format!("CAST(coalesce(sum({what}), 0) AS BIGINT)");
    let uses = "('USE_ORDER', 'USE_COUPON', 'USE_PRODUCT')";
    let revokes = "l.type IN ('CLAWBACK', 'DEDUCT_ADMIN') OR (l.type = 'REFUND' AND l.reversed = 'DEDUCT_ADMIN')";
    let since_the_line_before = |column: &str| {
        format!(
            "t.{column} - coalesce((SELECT p.{column} FROM mkt_points_transaction p WHERE p.tenant_id = t.tenant_id \
             AND p.member_id = t.member_id AND p.sequence = t.sequence - 1), 0)"
        )
    };
    let lines = |of: &str| {
        format!(
            "SELECT t.type, t.points, t.balance_after - t.balance_before AS change, {} AS frozen, {} AS debt, \
             (SELECT o.type FROM mkt_points_transaction o WHERE o.tenant_id = t.tenant_id AND o.id = t.reverses_id) AS reversed \
             FROM mkt_points_transaction t WHERE t.tenant_id = $1 AND t.member_id = $2 AND t.{} < $3 AND {of}",
            since_the_line_before("frozen_after"),
            since_the_line_before("debt_after"),
            time.column()
        )
    };
    let mut all = lines("t.sequence > $4 AND t.sequence <= $5");
    if time == LineTime::Occurred {
        all = format!("{all} UNION ALL {}", lines(&written_late("$5", "$6")));
    }
    format!(
        "SELECT count(*), {}, {}, {}, {}, {}, {}, {} FROM ({all}) l",
        sum("l.change"),
        sum("l.frozen"),
        sum("l.debt"),
        sum("CASE WHEN l.type LIKE 'EARN%' OR l.type = 'TRANSFER' THEN l.points END"),
        sum(&format!("CASE WHEN l.type IN {uses} OR (l.type = 'REFUND' AND l.reversed IN {uses}) THEN -l.points END")),
        sum("CASE WHEN l.type = 'EXPIRE' THEN -l.points END"),
        sum(&format!("CASE WHEN {revokes} THEN -l.points END")),
    )
}

/// What was due at $3 and is not written yet: left in lots, and how many holds.
const PAST_DUE: &str = "SELECT CAST(coalesce(sum(l.remaining), 0) AS BIGINT), \
     (SELECT count(*) FROM mkt_points_hold h WHERE h.tenant_id = $1 AND h.member_id = $2 \
      AND h.status = 'OPEN' AND h.expires_at <= $3) \
     FROM mkt_points_lot l WHERE l.open AND l.tenant_id = $1 AND l.member_id = $2 AND l.expires_at <= $3 \
     AND l.created_at <= $3";

fn ledger_sql(time: LineTime) -> String {
    let (columns, column) = (decode::TRANSACTION, time.column());
    let lines = |of: &str| {
        format!(
            "SELECT {columns} FROM mkt_points_transaction t WHERE t.tenant_id = $1 AND t.member_id = $2 AND {of} \
             AND t.{column} >= $5 AND t.{column} < $6 ORDER BY t.sequence LIMIT $7"
        )
    };
    let most = lines("t.sequence > $3 AND t.sequence <= $4");
    if time == LineTime::Recorded {
        return most;
    }
    let late = lines(&written_late("CASE WHEN $3 > $4 THEN $3 ELSE $4 END", "$8"));
    format!("SELECT * FROM ({most}) s UNION ALL SELECT * FROM ({late}) s ORDER BY sequence LIMIT $7")
}

fn all_transactions_sql() -> String {
    let columns = decode::TRANSACTION;
    format!("SELECT {columns} FROM mkt_points_transaction WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3")
}

fn all_balances_sql() -> String {
    let columns = decode::of("a", decode::ACCOUNT);
    format!(
        "SELECT {columns}, CAST((SELECT coalesce(sum(l.remaining), 0) FROM mkt_points_lot l WHERE l.open \
          AND l.tenant_id = a.tenant_id AND l.member_id = a.member_id AND l.expires_at <= $3) AS BIGINT), \
         (SELECT count(*) FROM mkt_points_hold h WHERE h.tenant_id = a.tenant_id AND h.member_id = a.member_id \
          AND h.status = 'OPEN' AND h.expires_at <= $3) \
         FROM mkt_points_account a WHERE a.tenant_id = $1 AND a.member_id > $2 ORDER BY a.member_id LIMIT $4"
    )
}

fn due_holds_sql() -> String {
    let columns = decode::HOLD;
    format!(
        "SELECT {columns} FROM mkt_points_hold WHERE tenant_id = $1 AND member_id >= $2 AND member_id <= $3 \
         AND status = 'OPEN' AND expires_at <= $4"
    )
}

fn expiring_lots_sql() -> String {
    let columns = decode::LOT;
    format!(
        "SELECT {columns} FROM mkt_points_lot WHERE tenant_id = $1 AND open AND expires_at <= $2 \
         AND (expires_at, id) > ($3, $4) AND remaining > 0 ORDER BY expires_at, id LIMIT $5"
    )
}

const MERGED_TO_CLEAR: &str = "SELECT member_id, merged_into FROM mkt_points_account WHERE tenant_id = $1 \
     AND merged_into IS NOT NULL AND (available > 0 OR debt > 0) ORDER BY member_id LIMIT $2";

fn list_adjustments_sql(by_status: bool) -> String {
    let (columns, filter) = (decode::ADJUSTMENT, if by_status { " AND status = $4" } else { "" });
    format!("SELECT {columns} FROM mkt_points_adjustment WHERE tenant_id = $1 AND id > $2{filter} ORDER BY id LIMIT $3")
}

fn latest_check_in_sql() -> String {
    let columns = decode::CHECK_IN;
    format!(
        "SELECT {columns} FROM mkt_points_check_in WHERE tenant_id = $1 AND member_id = $2 ORDER BY day DESC LIMIT 1"
    )
}

fn check_ins_sql() -> String {
    let columns = decode::CHECK_IN;
    format!(
        "SELECT {columns} FROM mkt_points_check_in WHERE tenant_id = $1 AND member_id = $2 AND day >= $3 AND day < $4 \
         ORDER BY day"
    )
}

fn list_tasks_sql() -> String {
    let columns = decode::TASK;
    format!(
        "SELECT {columns} FROM mkt_points_task WHERE tenant_id = $1 AND task_key > $2 AND deleted_at IS NULL \
         ORDER BY task_key LIMIT $3"
    )
}

fn list_member_tasks_sql() -> String {
    let columns = decode::of("t", decode::TASK);
    format!(
        "SELECT {columns}, p.period_start, p.steps, p.completions, p.total_completions, \
         p.carried_steps, p.carried_completions, p.carried_total, p.updated_at \
         FROM mkt_points_task t LEFT JOIN mkt_user_task_progress p \
         ON p.tenant_id = t.tenant_id AND p.member_id = $2 AND p.task_key = t.task_key \
         WHERE t.tenant_id = $1 AND t.task_key > $3 AND t.deleted_at IS NULL ORDER BY t.task_key LIMIT $4"
    )
}

fn members_with_accounts_sql(listing: Listing) -> String {
    let listed = listing.texts("$2");
    format!(
        "SELECT l.value FROM {listed} l WHERE (SELECT a.sequence > 0 FROM mkt_points_account a \
         WHERE a.tenant_id = $1 AND a.member_id = l.value)"
    )
}

fn tasks_not_completed_sql(listing: Listing) -> String {
    let listed = listing.texts("$3");
    format!(
        "SELECT l.value FROM {listed} l \
         WHERE (SELECT t.deleted_at IS NULL FROM mkt_points_task t WHERE t.tenant_id = $1 AND t.task_key = l.value) \
         AND coalesce((SELECT p.total_completions FROM mkt_user_task_progress p \
          WHERE p.tenant_id = $1 AND p.member_id = $2 AND p.task_key = l.value), 0) = 0"
    )
}

fn list_transactions_sql(by_kind: bool) -> String {
    let columns = decode::TRANSACTION;
    let (filter, limit) = if by_kind { (" AND type = $4", "$5") } else { ("", "$4") };
    format!(
        "SELECT {columns} FROM mkt_points_transaction \
         WHERE tenant_id = $1 AND member_id = $2 AND sequence < $3{filter} ORDER BY sequence DESC LIMIT {limit}"
    )
}

/// Whether holds show this status by the clock, not by what is stored alone.
fn hold_depends_on_time(status: HoldStatus) -> bool {
    matches!(status, HoldStatus::Open | HoldStatus::Expired)
}

/// As [`list_coupons_sql`]: a stretch of `idx_points_hold_status` for each stored status that may show as the wanted one.
fn list_holds_sql(status: Option<HoldStatus>) -> String {
    let columns = decode::HOLD;
    let any = |status: HoldStatus| (status, "");
    let stretches: Vec<(HoldStatus, &str)> = match status {
        None => HoldStatus::ALL.into_iter().map(any).collect(),
        Some(HoldStatus::Open) => vec![(HoldStatus::Open, " AND expires_at > $4")],
        Some(HoldStatus::Expired) => vec![(HoldStatus::Open, " AND expires_at <= $4"), any(HoldStatus::Expired)],
        Some(other) => vec![any(other)],
    };
    let limit = if status.is_some_and(hold_depends_on_time) { "$5" } else { "$4" };
    let selects = stretches.iter().map(|(status, filter)| {
        let status = status.as_str();
        format!(
            "SELECT * FROM (SELECT {columns} FROM mkt_points_hold WHERE tenant_id = $1 AND member_id = $2 \
             AND status = '{status}' AND id < $3{filter} ORDER BY id DESC LIMIT {limit}) AS s"
        )
    });
    format!("{} ORDER BY id DESC LIMIT {limit}", selects.collect::<Vec<_>>().join(" UNION ALL "))
}

fn list_lots_sql() -> String {
    let columns = decode::LOT;
    format!(
        "SELECT {columns} FROM mkt_points_lot WHERE tenant_id = $1 AND member_id = $2 AND open \
         AND (expires_at, created_at, id) > ($3, $4, $5) ORDER BY expires_at, created_at, id LIMIT $6"
    )
}

fn rules_version(row: &Row, known: &Definitions, newest: i64) -> Found<RulesVersion> {
    let (effective_from, rules) = decode::rules(row, known)?;
    Ok(RulesVersion { rules, effective_from, created_at: row.time(4)?, newest })
}

const NEWEST_RULES: &str = "SELECT version FROM mkt_points_rule WHERE tenant_id = $1 ORDER BY version DESC LIMIT 1";

fn find_rules_sql() -> String {
    let columns = decode::RULES;
    format!(
        "SELECT {columns}, (SELECT max(n.version) FROM mkt_points_rule n WHERE n.tenant_id = $1) FROM mkt_points_rule \
         WHERE tenant_id = $1 AND effective_from <= $2 ORDER BY effective_from DESC, version DESC LIMIT 1"
    )
}

fn list_rules_sql() -> String {
    let columns = decode::RULES;
    format!(
        "SELECT {columns} FROM mkt_points_rule WHERE tenant_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3"
    )
}

fn list_events_sql(horizon: &str) -> String {
    let columns = decode::EVENT;
    format!(
        "SELECT {columns} FROM event WHERE tenant_id = $1 AND (tx, ordinal) > ($2, $3) {horizon} \
         ORDER BY tx, ordinal LIMIT $4"
    )
}
