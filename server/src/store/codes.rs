//! Reads of coupon codes, and the register of the keys they were made with.

use std::collections::{HashMap, HashSet};

use scrip_domain::coupon::{Code, CodeAtHand, CodeBatch, CodeDigest};
use scrip_domain::{CodeBatchId, MemberId, TemplateId, TenantId, Timestamp};
use uuid::Uuid;

use super::value::{Param, Row};
use super::{Store, StoreError, decode};

type Found<T> = Result<T, StoreError>;

const OPEN_BATCHES: &str = "SELECT tenant_id, id FROM mkt_coupon_code_batch \
     WHERE completed_at IS NULL AND kind = 'UNIQUE' AND status <> 'REVOKED' ORDER BY tenant_id, id LIMIT $1";
const NUMBERS: &str = "SELECT number FROM mkt_coupon_code WHERE tenant_id = $1 AND batch_id = $2 AND number > $3 \
     ORDER BY number LIMIT $4";
const USABLE: &str = "SELECT c.digest, c.batch_id, b.template_id, c.member_id FROM mkt_coupon_code c JOIN mkt_coupon_code_batch b \
     ON b.tenant_id = c.tenant_id AND b.id = c.batch_id WHERE c.tenant_id = $1 AND c.digest = $2 \
     AND c.status = 'ACTIVE' AND (c.max_uses IS NULL OR c.use_count < c.max_uses) AND b.status = 'ACTIVE'";
const KNOWN: &str = "SELECT digest FROM mkt_coupon_code WHERE tenant_id = $1 AND digest = $2";

fn find_batch_sql() -> String {
    format!("SELECT {} FROM mkt_coupon_code_batch WHERE tenant_id = $1 AND id = $2", decode::CODE_BATCH)
}

fn list_batches_sql(by_template: bool) -> String {
    let (filter, limit) = if by_template { (" AND template_id = $3", "$4") } else { ("", "$3") };
    format!(
        "SELECT {} FROM mkt_coupon_code_batch WHERE tenant_id = $1 AND id < $2{filter} ORDER BY id DESC LIMIT {limit}",
        decode::CODE_BATCH
    )
}

/// `usable` leaves out, in the store, what the member $3 cannot claim with: such a code then takes as long as one that nobody
/// made.
fn find_code_sql(usable: bool) -> String {
    let filter = if usable {
        " AND c.status = 'ACTIVE' AND (c.max_uses IS NULL OR c.use_count < c.max_uses) AND b.status = 'ACTIVE' \
         AND (c.member_id IS NULL OR c.member_id = $3)"
    } else {
        ""
    };
    let (code, batch) = (decode::of("c", decode::CODE), decode::of("b", decode::CODE_BATCH));
    format!(
        "SELECT {code}, {batch} FROM mkt_coupon_code c JOIN mkt_coupon_code_batch b \
         ON b.tenant_id = c.tenant_id AND b.id = c.batch_id WHERE c.tenant_id = $1 AND c.digest = $2{filter}"
    )
}

/// The reads of codes, by name: for the test of the plans.
pub(super) fn hot_queries() -> Vec<(&'static str, String)> {
    vec![
        ("open_code_batches", OPEN_BATCHES.to_owned()),
        ("code_numbers", NUMBERS.to_owned()),
        ("known_codes", KNOWN.to_owned()),
        ("usable_codes", USABLE.to_owned()),
        ("find_code_batch", find_batch_sql()),
        ("list_code_batches", list_batches_sql(false)),
        ("list_code_batches of a template", list_batches_sql(true)),
        ("find_code", find_code_sql(false)),
        ("find_usable_code", find_code_sql(true)),
    ]
}

impl Store {
    /// The keys that codes were made with: number and check value.
    pub async fn code_keys(&self) -> Found<Vec<(i64, [u8; 16])>> {
        self.query("SELECT id, check_value FROM code_key ORDER BY id", &[], |row| Ok((row.int(0)?, row.bytes(1)?)))
            .await
    }

    /// Remembers a key unless there is one of that number already.
    pub async fn remember_code_key(&self, id: i64, check_value: [u8; 16], at: Timestamp) -> Found<()> {
        let sql = "INSERT INTO code_key (id, check_value, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.execute(sql, &[id.into(), Param::Bytes(&check_value), at.into()]).await?;
        Ok(())
    }

    /// Batches whose unique codes are not all there yet.
    pub async fn open_code_batches(&self, limit: i64) -> Found<Vec<(TenantId, CodeBatchId)>> {
        self.query(OPEN_BATCHES, &[limit.into()], |row| Ok((row.tenant(0)?, CodeBatchId(row.uuid(1)?)))).await
    }

    pub async fn find_code_batch(&self, tenant: TenantId, id: CodeBatchId) -> Found<Option<CodeBatch>> {
        self.first(&find_batch_sql(), &[tenant.into(), id.0.into()], decode::code_batch).await
    }

    /// Newest first.
    pub async fn list_code_batches(
        &self,
        tenant: TenantId,
        template: Option<TemplateId>,
        after: Option<CodeBatchId>,
        limit: i64,
    ) -> Found<Vec<CodeBatch>> {
        let mut parameters = vec![tenant.into(), after.map_or(Uuid::max(), |id| id.0).into()];
        parameters.extend(template.map(|template| Param::Uuid(template.0)));
        parameters.push(limit.into());
        self.query(&list_batches_sql(template.is_some()), &parameters, decode::code_batch).await
    }

    /// The code with one of these digests, and its batch; only one that this member can claim with, if one is named. Every
    /// digest is asked for whatever is found, so that the time tells nothing.
    pub async fn find_code(
        &self,
        tenant: TenantId,
        digests: &[CodeDigest],
        usable_by: Option<&MemberId>,
    ) -> Found<Option<(Code, CodeBatch)>> {
        let sql = find_code_sql(usable_by.is_some());
        let mut found = None;
        for digest in digests {
            let decode = |row: &Row| Ok((decode::code(row)?, decode::code_batch_from(row, decode::CODE_COLUMNS)?));
            let mut parameters = vec![tenant.into(), Param::Bytes(digest)];
            parameters.extend(usable_by.map(|member| Param::Text(member.as_str())));
            found = self.first(&sql, &parameters, decode).await?.or(found);
        }
        Ok(found)
    }

    /// What those of these codes stand for that can be claimed with, and who alone may, if somebody.
    pub async fn find_usable_codes(
        &self,
        tenant: TenantId,
        digests: &[CodeDigest],
    ) -> Found<HashMap<CodeDigest, (CodeAtHand, Option<MemberId>)>> {
        let decode = |row: &Row| {
            let digest = row.bytes(0)?;
            let (batch_id, template_id) = (CodeBatchId(row.uuid(1)?), TemplateId(row.uuid(2)?));
            Ok((digest, (CodeAtHand { digest, batch_id, template_id }, row.opt_caller_id(3)?)))
        };
        match self {
            Store::Sqlite(store) => {
                let mut found = HashMap::new();
                for digest in digests {
                    found.extend(store.query(USABLE, &[tenant.into(), Param::Bytes(digest)], decode)?);
                }
                Ok(found)
            }
            Store::Postgres(store) => {
                let usable = USABLE.replace("$2", "k.digest");
                let sql = format!("SELECT r.* FROM unnest($2::bytea[]) AS k(digest) CROSS JOIN LATERAL ({usable}) r");
                let digests: Vec<&[u8]> = digests.iter().map(|digest| digest.as_slice()).collect();
                Ok(store.query_digests(&sql, tenant, &digests, decode).await?.into_iter().collect())
            }
        }
    }

    /// The numbers of a batch's codes after one of them, in order.
    pub async fn code_numbers(&self, tenant: TenantId, batch: CodeBatchId, after: i64, limit: i64) -> Found<Vec<i64>> {
        self.query(NUMBERS, &[tenant.into(), batch.0.into(), after.into(), limit.into()], |row| row.int(0)).await
    }

    /// Which of these codes exist.
    pub async fn known_codes(&self, tenant: TenantId, digests: &[CodeDigest]) -> Found<HashSet<CodeDigest>> {
        match self {
            // No round trips to save here.
            Store::Sqlite(store) => {
                let mut known = HashSet::new();
                for digest in digests {
                    known.extend(store.query(KNOWN, &[tenant.into(), Param::Bytes(digest)], |row| row.bytes(0))?);
                }
                Ok(known)
            }
            Store::Postgres(store) => {
                let sql = "SELECT r.digest FROM unnest($2::bytea[]) AS k(digest) CROSS JOIN LATERAL \
                           (SELECT * FROM mkt_coupon_code c WHERE c.tenant_id = $1 AND c.digest = k.digest) r";
                let digests: Vec<&[u8]> = digests.iter().map(|digest| digest.as_slice()).collect();
                Ok(store.query_digests(sql, tenant, &digests, |row| row.bytes(0)).await?.into_iter().collect())
            }
        }
    }
}
