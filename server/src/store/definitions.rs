//! Template definitions by version. A version never changes, so an entry is never stale; the cache is bounded by count.

use std::sync::Arc;

use quick_cache::sync::Cache;
use scrip_domain::coupon::Definition;
use scrip_domain::{TemplateId, TenantId};

/// The most versions kept in memory; about 1 KB each.
const CAPACITY: usize = 10_000;

type Key = (TenantId, TemplateId, i64);

pub struct Definitions(Cache<Key, Arc<Definition>>);

impl Default for Definitions {
    fn default() -> Self {
        Definitions(Cache::new(CAPACITY))
    }
}

impl Definitions {
    pub fn get(&self, tenant: TenantId, template: TemplateId, version: i64) -> Option<Arc<Definition>> {
        self.0.get(&(tenant, template, version))
    }

    pub fn insert(&self, tenant: TenantId, template: TemplateId, version: i64, definition: Arc<Definition>) {
        self.0.insert((tenant, template, version), definition);
    }
}
