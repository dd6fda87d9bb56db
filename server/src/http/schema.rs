//! What openapi.json says of the domain's types, which know nothing of OpenAPI; and the parts that all operations share.

use std::collections::BTreeMap;

use scrip_domain::coupon::{self, Benefit};
use scrip_domain::event::EventKind;
use scrip_domain::{bulk, job, order, points, pricing, tenant, webhook};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, ComponentsBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, License, OpenApi, OpenApiBuilder, Ref, RefOr, Required};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::problem::{Code, ProblemBody};
use crate::projection::{Metric, Period};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

macro_rules! schemas {
    ($($name:ident = $schema:expr;)*) => {
    $(
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let object: ObjectBuilder = $schema;
                object.into()
            }
        }

        impl ToSchema for $name {}
    )*

    /// Paths and queries refer to these without bringing them along.
    fn with_schemas(components: ComponentsBuilder) -> ComponentsBuilder {
        components$(.schema_from::<$name>())*
    }};
}

fn id(prefix: &str) -> ObjectBuilder {
    text()
        .pattern(Some(format!("^{prefix}[0-9a-f]{{32}}$")))
        .examples([format!("{prefix}0190f3a1c6de7a53b0a1c2d3e4f50617")])
}

fn caller_id(of: &str, example: &str) -> ObjectBuilder {
    let description = format!("Your id of the {of}: 1-64 printable ASCII characters without spaces.");
    text().pattern(Some("^[!-~]{1,64}$")).description(Some(description)).examples([example])
}

fn names(names: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text().enum_values(Some(names))
}

fn types(fits: fn(points::TransactionType) -> bool) -> ObjectBuilder {
    names(points::TransactionType::ALL.into_iter().filter(|kind| fits(*kind)).map(|kind| kind.as_str()))
}

schemas! {
    TenantId = id(scrip_domain::TenantId::PREFIX);
    ProgramCode = caller_id("program", "MILES");
    KeyId = id(scrip_domain::KeyId::PREFIX);
    TemplateId = id(scrip_domain::TemplateId::PREFIX);
    CouponId = id(scrip_domain::CouponId::PREFIX);
    CodeBatchId = id(scrip_domain::CodeBatchId::PREFIX);
    CodeKind = names(coupon::CodeKind::ALL.map(|kind| kind.as_str()));
    CodeStatus = names(coupon::CodeStatus::ALL.map(|status| status.as_str()));
    HoldId = id(scrip_domain::HoldId::PREFIX);
    TransactionId = id(scrip_domain::TransactionId::PREFIX);
    LotId = id(scrip_domain::LotId::PREFIX);
    EventId = id(scrip_domain::EventId::PREFIX);
    JobId = id(scrip_domain::JobId::PREFIX);
    WebhookId = id(scrip_domain::WebhookId::PREFIX);
    DisabledReason = names(webhook::DisabledReason::ALL.map(|reason| reason.as_str()));
    DeliveryKind = names(crate::store::DELIVERY_KINDS);
    BulkId = id(scrip_domain::BulkId::PREFIX);
    BulkKind = names(bulk::BulkKind::ALL.map(|kind| kind.as_str()));
    BulkStatus = names(bulk::BulkStatus::ALL.map(|status| status.as_str()));
    RowOutcome = names(crate::bulk::RowOutcome::ALL.map(|outcome| outcome.as_str()));
    ResultFormat = names(["json", "csv"]);
    TaskId = id(scrip_domain::TaskId::PREFIX);
    TaskKey = caller_id("task", "share");
    CompletionId = caller_id("report", "o-1");
    StatementBasis = names(crate::store::read::LineTime::ALL.map(|time| time.as_str()));
    FileFormat = names(["json", "csv"]);
    TaskPeriod = names(scrip_domain::task::Period::ALL.map(|period| period.as_str()));
    TaskEventType = names(super::tasks::event_types());
    MemberId = caller_id("member", "m-1");
    OrderId = caller_id("order", "o-1");
    RefundId = caller_id("refund", "r-1");
    OrderUid = id(scrip_domain::OrderUid::PREFIX);
    CompensationId = id(scrip_domain::CompensationId::PREFIX);
    OrderStatus = names(order::OrderStatus::ALL.map(|status| status.as_str()));
    CompensationStatus = names(coupon::CompensationStatus::ALL.map(|status| status.as_str()));
    CompensationOutcome = names(["RESOLVED", "DISMISSED"]);
    CompensationReason = names(coupon::CompensationReason::ALL.map(|reason| reason.as_str()));
    BenefitType = names(Benefit::KINDS);
    PercentBase = names(pricing::PercentBase::ALL.map(|base| base.as_str()));
    Rounding = names(pricing::Rounding::ALL.map(|rounding| rounding.as_str()));
    Stacking = names(coupon::Stacking::ALL.map(|stacking| stacking.as_str()));
    Weekday = names(scrip_domain::time::Weekday::ALL.map(|day| day.as_str()));
    CapPeriod = names(scrip_domain::time::CapPeriod::ALL.map(|period| period.as_str()));
    RedeemLimit = names(points::RedeemLimit::ALL.map(|limit| limit.as_str()));
    Attributes = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("At most 50 names with strings (up to 200 characters), integers or truth values."));
    CouponStatus = names(coupon::CouponStatus::ALL.map(|status| status.as_str()));
    CouponSource = names(coupon::CouponSource::ALL.map(|source| source.as_str()));
    AdjustmentStatus = names(points::AdjustmentStatus::ALL.map(|status| status.as_str()));
    AdjustmentId = id(scrip_domain::AdjustmentId::PREFIX);
    HoldStatus = names(points::HoldStatus::ALL.map(|status| status.as_str()));
    TransactionType = names(points::TransactionType::ALL.map(|kind| kind.as_str()));
    PointsStatisticType =
        names(points::TransactionType::ALL.map(|kind| kind.as_str()).into_iter().chain([crate::projection::FORGIVEN]));
    DebtPolicy = names(points::DebtPolicy::ALL.map(|policy| policy.as_str()));
    GrantType = types(points::TransactionType::is_earn);
    DebitType = types(points::TransactionType::is_debit);
    KeyScope = names(tenant::Scope::ALL.map(|scope| scope.as_str()));
    EventType = names(EventKind::ALL.iter().map(|kind| kind.as_str()));
    JobKind = names(job::JobKind::ALL.iter().map(|kind| kind.as_str()));
    JobState = names(job::JobState::ALL.iter().map(|state| state.as_str()));
    FinishedJobState = names(["DONE", "DEAD", "CANCELLED"]);
    GrantMode = names(["sync", "async"]);
    BoardMetric = names(Metric::ALL.map(Metric::as_str));
    BoardPeriod = names(Period::ALL.map(Period::as_str));
    LocalDate = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))).examples(["2026-03-01"]);
    PercentMeaning = names(["off", "pay"]).description(Some(
        "What `discount_percent` means: `off` (10 is ten percent off) or `pay` (90 is ninety percent to pay).",
    ));
    ExportFormat = names(["csv", "xlsx"]);
    Metadata = ObjectBuilder::new().schema_type(Type::Object).description(Some("Any JSON object of at most 4 KiB."));
}

/// What every operation with a credential may answer beside its own responses.
pub struct Problems;

const SHARED: &[(&str, &str)] = &[
    ("400", "Malformed: `errors` names every bad field"),
    ("401", "No valid API key"),
    ("403", "The key's scope does not reach"),
    ("404", "Unknown, or another tenant's"),
    ("408", "The body took too long"),
    ("409", "Conflicts with the object's state"),
    ("413", "Too large"),
    ("415", "Wrong content type"),
    ("422", "Refused by a business rule"),
    ("429", "Too many requests; `Retry-After` says when to come back"),
    ("500", "A fault of the server"),
    ("503", "Overloaded, stopping or without its store; `Retry-After` says when to come back"),
];

/// Those of edits that need `If-Match`.
pub struct EditProblems;

const EDITS: &[(&str, &str)] = &[("412", "Changed meanwhile: `If-Match` is stale"), ("428", "`If-Match` is missing")];

fn references(statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let reference = |status: &str| RefOr::Ref(Ref::from_response_name(format!("Problem{status}")));
    statuses.iter().map(|(status, _)| ((*status).to_owned(), reference(status))).collect()
}

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        references(SHARED)
    }
}

impl IntoResponses for EditProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        references(EDITS)
    }
}

/// That of a server that serves nothing now.
pub struct Unready;

impl IntoResponses for Unready {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        references(&[("503", "")])
    }
}

/// That of a server whose metrics are off.
pub struct Unmeasured;

impl IntoResponses for Unmeasured {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        references(&[("404", "")])
    }
}

/// The document without its paths.
pub fn document() -> OpenApi {
    let mut components = with_schemas(ComponentsBuilder::new())
        .schema_from::<ProblemBody<'static>>()
        .security_scheme(
            "key",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("A tenant's API key, or the platform key. Operations name the least scope they admit: MEMBER, SERVICE, OPERATOR; or PLATFORM.\n\nEvery operation takes the header `Scrip-Program: <code>` beside a tenant's key: it is then about that program of the tenant, a further currency of points, instead of the tenant itself. An unknown code is 404 PROGRAM_NOT_FOUND, a malformed one 400; operations on programs, wallets and, with the platform key, tenants refuse the header: 400 PROGRAM_MISPLACED."))
                    .build(),
            ),
        );
    for (status, description) in SHARED.iter().chain(EDITS) {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(*description).content("application/problem+json", content);
        components = components.response(format!("Problem{status}"), response.build());
    }
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".into());
    let description = format!(
        "Coupons and loyalty points. docs/API.md tells the conventions; /docs/errors explains all {} error codes.",
        Code::ALL.len()
    );
    let info = InfoBuilder::new()
        .title("Scrip")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description))
        .license(Some(license))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components.build())).build()
}

/// Says that the variants of tagged objects have no further fields, which a derived schema leaves open.
pub fn close_variants(document: &mut OpenApi) {
    let schemas = document.components.iter_mut().flat_map(|components| components.schemas.values_mut());
    for schema in schemas {
        let RefOr::T(Schema::OneOf(variants)) = schema else { continue };
        for variant in &mut variants.items {
            if let RefOr::T(Schema::Object(object)) = variant {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

fn parameter(name: &str, place: ParameterIn, required: bool, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(if required { Required::True } else { Required::False })
        .description(Some(description))
        .schema(Some(Object::from(schema)))
        .build()
}

/// A header that need not be there.
pub fn header(name: &str, description: &str, pattern: &str) -> Parameter {
    parameter(name, ParameterIn::Header, false, description, text().pattern(Some(pattern)))
}

/// The header of a request to be decided once.
pub struct IdempotencyKey;

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description =
            "The same key with the same request answers as the first time, with `Idempotency-Replayed: true`.";
        vec![header("Idempotency-Key", description, "^[ -~]{1,128}$")]
    }
}

/// The query of a list.
pub struct PageQuery;

impl IntoParams for PageQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200));
        let limit = limit.default(Some(50.into()));
        vec![
            parameter("limit", ParameterIn::Query, false, "How many at most.", limit),
            parameter("cursor", ParameterIn::Query, false, "The `next_cursor` of the page before.", text()),
        ]
    }
}
