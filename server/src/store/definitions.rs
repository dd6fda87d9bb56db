//! Definitions by version: templates', and tenants' rules. A version never changes, so an entry is never stale. Beside them
//! tenants' time zones, which are looked up anew after a while. All bounded by count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use quick_cache::sync::Cache;
use scrip_domain::coupon::Definition;
use scrip_domain::pricing::Rules;
use scrip_domain::tenant::Tenant;
use scrip_domain::{TemplateId, TenantId};

use super::StoreError;

/// The most versions of each kind kept in memory; about 1 KB each.
const CAPACITY: usize = 10_000;
/// How long a tenant's time zone is taken for the one it was.
const ZONE_FOR: Duration = Duration::from_secs(60);

pub struct Definitions {
    templates: Cache<(TenantId, TemplateId, i64), Arc<Definition>>,
    rules: Cache<(TenantId, i64), Arc<Rules>>,
    zones: Cache<TenantId, (TimeZone, Instant)>,
}

impl Default for Definitions {
    fn default() -> Self {
        Definitions { templates: Cache::new(CAPACITY), rules: Cache::new(CAPACITY), zones: Cache::new(CAPACITY) }
    }
}

impl Definitions {
    pub fn get(&self, tenant: TenantId, template: TemplateId, version: i64) -> Option<Arc<Definition>> {
        self.templates.get(&(tenant, template, version))
    }

    pub fn insert(&self, tenant: TenantId, template: TemplateId, version: i64, definition: Arc<Definition>) {
        self.templates.insert((tenant, template, version), definition);
    }

    pub fn rules(&self, tenant: TenantId, version: i64) -> Option<Arc<Rules>> {
        self.rules.get(&(tenant, version))
    }

    pub fn zone(&self, tenant: TenantId) -> Option<TimeZone> {
        self.zones.get(&tenant).filter(|(_, known_at)| known_at.elapsed() < ZONE_FOR).map(|(zone, _)| zone)
    }

    /// The zone of a tenant that was looked up; it is known from now on.
    ///
    /// # Errors
    /// When there is no such tenant, or this machine does not know its zone.
    pub fn learn_zone(&self, tenant: TenantId, found: Option<&Tenant>) -> Result<TimeZone, StoreError> {
        let settings = found.ok_or_else(|| StoreError::corrupt(format!("the tenant {tenant} is missing")))?;
        let zone = TimeZone::get(&settings.time_zone)
            .map_err(|error| StoreError::Fault(format!("time zone {}: {error}", settings.time_zone)))?;
        self.zones.insert(tenant, (zone.clone(), Instant::now()));
        Ok(zone)
    }

    pub fn insert_rules(&self, tenant: TenantId, rules: Arc<Rules>) {
        self.rules.insert((tenant, rules.version), rules);
    }
}
