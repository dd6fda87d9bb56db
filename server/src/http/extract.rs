//! Reading requests: bodies, path ids, query parameters. What cannot be read becomes a problem that names every bad field.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use scrip_domain::{
    AdjustmentId, BulkId, CodeBatchId, CompensationId, CouponId, HoldId, Idempotency, JobId, KeyId, MemberId, OrderId,
    OrderUid, ProgramCode, RefundId, TaskKey, TemplateId, TenantId, Timestamp, TransactionId, WebhookId,
};
use serde::de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::AppState;
use super::fields::{FieldErrors, MAX_ERRORS};
use super::idempotency;
use super::problem::{Code, Problem};
use crate::clock;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request body: its form, and what must hold beyond the form. Every field of such a type is optional for serde, so that
/// a missing one is found by `check`, beside everything else that is wrong.
pub trait Checked: DeserializeOwned + Send {
    type Value: Send;

    /// The checked body; `None` when `errors` says why not.
    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value>;
}

/// A checked JSON body, and what else every command needs to know of its request.
pub struct Input<T: Checked> {
    pub value: T::Value,
    pub idempotency: Option<Idempotency>,
    pub now: Timestamp,
}

impl<T: Checked> FromRequest<AppState> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if has_body(&parts.headers) && !content_type(&parts.headers).is_some_and(is_json) {
            return Err(Problem::new(Code::UnsupportedMediaType).with("expected", "application/json"));
        }
        let bytes = read_body(&parts.headers, body, app.limits.max_body_bytes).await?;
        let idempotency = idempotency::of_request(&parts, &bytes)?;
        let now = clock::now();
        // A command without options needs no body; some clients write that as null.
        let bytes = if bytes.is_empty() || bytes.trim_ascii() == b"null" { b"{}" } else { bytes.as_ref() };
        Ok(Input { value: parse::<T>(bytes, now)?, idempotency, now })
    }
}

/// No body at all is fine without a content type.
fn has_body(headers: &HeaderMap) -> bool {
    match headers.get(CONTENT_LENGTH) {
        Some(length) => length.as_bytes() != b"0",
        None => headers.contains_key(CONTENT_TYPE) || headers.contains_key("transfer-encoding"),
    }
}

/// The media type, without parameters.
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim())
}

fn is_json(media_type: &str) -> bool {
    media_type.eq_ignore_ascii_case("application/json")
        || media_type.eq_ignore_ascii_case("application/merge-patch+json")
}

/// The whole body, when it is no longer than `limit` and arrives in time.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let limit = if limit.is_multiple_of(1024) { format!("{} KiB", limit / 1024) } else { format!("{limit} bytes") };
        Problem::new(Code::BodyTooLarge).with("limit", limit)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(malformed("it broke off")),
        Err(_) => Err(Problem::new(Code::RequestTimeout).with("seconds", BODY_TIMEOUT.as_secs())),
    }
}

pub fn malformed(reason: impl fmt::Display) -> Problem {
    Problem::new(Code::MalformedBody).with("reason", reason)
}

/// Reads and checks a JSON object.
///
/// # Errors
/// A problem with every bad field: those of a wrong type, those unknown, and those whose values are not allowed.
pub fn parse<T: Checked>(bytes: &[u8], now: Timestamp) -> Result<T::Value, Problem> {
    match serde_json::from_slice::<Object<T>>(bytes) {
        Ok(Object(body)) => check(body, FieldErrors::default(), now),
        // Not by what kind of error it is: a number where a name is due counts as bad JSON with serde.
        Err(_) => {
            let value = serde_json::from_slice::<Value>(bytes).map_err(malformed)?;
            Err(explain::<T>(value, Some(bytes), FieldErrors::default(), now))
        }
    }
}

/// The same for a value made here, of whose origin something may be wrong already.
pub fn parse_value<T: Checked>(value: Value, errors: FieldErrors, now: Timestamp) -> Result<T::Value, Problem> {
    match Object::<T>::deserialize(&value) {
        Ok(Object(body)) => check(body, errors, now),
        Err(_) => Err(explain::<T>(value, None, errors, now)),
    }
}

fn check<T: Checked>(body: T, mut errors: FieldErrors, now: Timestamp) -> Result<T::Value, Problem> {
    match body.check(&mut errors, now) {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(errors.into()),
    }
}

/// Finds everything that is wrong: takes out one bad field after the other until the rest can be read and checked.
fn explain<T: Checked>(mut value: Value, bytes: Option<&[u8]>, mut errors: FieldErrors, now: Timestamp) -> Problem {
    for _ in 0..MAX_ERRORS {
        match serde_path_to_error::deserialize::<_, Object<T>>(&value) {
            Ok(Object(body)) => {
                if let (true, Some(bytes)) = (errors.is_empty(), bytes) {
                    // What only the text shows: a field given twice.
                    let source = &mut serde_json::Deserializer::from_slice(bytes);
                    if let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(source) {
                        note(&mut errors, &error);
                    }
                }
                body.check(&mut errors, now);
                break;
            }
            Err(error) => {
                let path = note(&mut errors, &error);
                if !remove(&mut value, &path) {
                    break;
                }
            }
        }
    }
    errors.into()
}

/// Records an error of the form; gives the names that lead to the field.
fn note(errors: &mut FieldErrors, error: &serde_path_to_error::Error<serde_json::Error>) -> Vec<String> {
    let mut path = Vec::new();
    let mut field = String::new();
    for segment in error.path() {
        match segment {
            Segment::Map { key } => {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(key);
                path.push(key.clone());
            }
            // The whole list goes: taking one entry out would shift those behind it.
            Segment::Seq { index } => field.push_str(&format!("[{index}]")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let text = error.inner().to_string();
    if let Some((name, known)) = named(&text, "unknown field") {
        if path.last().map(String::as_str) != Some(name) {
            field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            path.push(name.to_owned());
        }
        errors.add(field, "is not a known field", format!("Leave it out. Known are: {known}."));
    } else if let Some((name, known)) = named(&text, "unknown variant") {
        errors.add(field, format!("is {name}"), format!("Send one of: {known}."));
    } else if let Some((name, _)) = named(&text, "duplicate field") {
        errors.add(name.to_owned(), "is given more than once", "Send it once.");
    } else {
        let message = text.split(", expected").next().unwrap_or_default().trim_start_matches("expected ");
        let expected = text.rsplit_once("expected ").map_or("a valid value", |(_, expected)| plain(expected));
        let message = if message == expected { "has the wrong form".to_owned() } else { message.to_owned() };
        let field = if field.is_empty() { "body".to_owned() } else { field };
        errors.add(field, message, format!("Send {expected}."));
    }
    path
}

/// Of "unknown field `a`, expected one of `b`, `c`": `a`, and "b, c".
fn named<'a>(text: &'a str, what: &str) -> Option<(&'a str, String)> {
    let (name, rest) = text.strip_prefix(what)?.trim_start().strip_prefix('`')?.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(", ");
    Some((name, known))
}

/// Serde's names of types, in the API's words.
fn plain(expected: &str) -> &str {
    match expected.split(" at line ").next().unwrap_or(expected) {
        "i64" | "u64" | "u32" | "u8" => "an integer",
        "a sequence" => "a list",
        "a map" => "an object",
        "string or map" => "one of its names, a string",
        other => other,
    }
}

fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |value, name| value.get_mut(name));
    parent.and_then(Value::as_object_mut).is_some_and(|object| object.remove(last).is_some())
}

/// Reads `T` from a JSON object only; serde would take a list of its fields as well.
#[derive(Debug, Clone, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData)).map(Object)
    }
}

/// A body of nothing but, for operators, the time it takes effect.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {
    effective_at: Option<super::time::Time>,
}

impl Checked for NoOptions {
    type Value = Option<Timestamp>;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        Some(errors.effective_at(self.effective_at, now))
    }
}

/// What stands for an object in a path.
pub trait PathParameter: FromStr + Send {
    /// The name in braces.
    const NAME: &'static str;
    /// What a malformed one is: an object that does not exist, or a bad field of the caller's own.
    fn unreadable() -> Problem;
}

macro_rules! path_ids {
    ($($id:ident = $name:literal, $code:ident;)*) => {$(
        impl PathParameter for $id {
            const NAME: &'static str = $name;

            fn unreadable() -> Problem {
                Problem::new(Code::$code)
            }
        }
    )*};
}

path_ids! {
    TenantId = "tenant_id", TenantNotFound;
    KeyId = "key_id", KeyNotFound;
    TemplateId = "template_id", TemplateNotFound;
    CouponId = "coupon_id", CouponNotFound;
    CodeBatchId = "batch_id", BatchNotFound;
    HoldId = "hold_id", HoldNotFound;
    TransactionId = "transaction_id", TransactionNotFound;
    JobId = "job_id", JobNotFound;
    WebhookId = "webhook_id", WebhookNotFound;
    OrderId = "order_id", OrderNotFound;
    CompensationId = "compensation_id", CompensationNotFound;
    AdjustmentId = "adjustment_id", AdjustmentNotFound;
    BulkId = "bulk_id", BulkNotFound;
}

impl PathParameter for TaskKey {
    const NAME: &'static str = "task_key";

    fn unreadable() -> Problem {
        Problem::new(Code::TaskNotFound)
    }
}

impl PathParameter for MemberId {
    const NAME: &'static str = "member_id";

    fn unreadable() -> Problem {
        Problem::field(Self::NAME, "is no member id", "Send 1-64 printable ASCII characters without spaces.")
    }
}

/// The path's parameter of this type.
pub struct InPath<T>(pub T);

impl<T: PathParameter> FromRequestParts<AppState> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, app).await.map_err(|_| T::unreadable())?;
        let found = parameters.iter().find(|(name, _)| *name == T::NAME);
        found.and_then(|(_, text)| text.parse().ok()).map(InPath).ok_or_else(T::unreadable)
    }
}

/// The query's parameters, taken one by one; what is left at the end is unknown.
pub struct Parameters {
    pairs: Vec<(String, String)>,
    errors: FieldErrors,
}

/// How much of a list to show, and after what.
pub struct PageOf<C> {
    pub limit: i64,
    pub cursor: Option<C>,
}

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

impl Parameters {
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(pairs) = Query::try_from_uri(uri)
            .map_err(|_| Problem::field("query", "cannot be read", "Send name=value pairs, percent-encoded."))?;
        Ok(Parameters { pairs, errors: FieldErrors::default() })
    }

    /// The parameter read by `read`, when it is there and not empty.
    pub fn take<T>(&mut self, name: &'static str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        let (_, text) = self.pairs.swap_remove(at);
        if text.is_empty() {
            return None;
        }
        let value = read(&text);
        if value.is_none() {
            self.errors.add(name, "cannot be read", format!("Send {expected}."));
        }
        value
    }

    pub fn page<C: Cursor>(&mut self) -> PageOf<C> {
        let limit = self.take("limit", "an integer from 1 to 200", |text| {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        let cursor = self.take("cursor", "a next_cursor of an earlier answer, unchanged", C::read);
        PageOf { limit: limit.unwrap_or(DEFAULT_LIMIT), cursor }
    }

    /// An instant.
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let time = self.take(name, "a time like 2026-03-01T00:00:00Z", |text| {
            serde_json::from_value::<super::time::Time>(Value::String(text.to_owned())).ok()
        });
        time.map(|time| time.0)
    }

    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.errors.add(name, "is not a known parameter, or is given twice", "Leave it out.");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors.into()) }
    }
}

/// Where a page ends, as text that callers hand back unread.
pub trait Cursor: Sized {
    fn write(&self) -> String;
    fn read(text: &str) -> Option<Self>;
}

macro_rules! id_cursors {
    ($($id:ident)*) => {$(
        impl Cursor for $id {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

id_cursors! {
    TenantId ProgramCode KeyId TemplateId CouponId CodeBatchId JobId WebhookId OrderUid CompensationId RefundId BulkId TaskKey HoldId AdjustmentId
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        amount: Option<i64>,
        names: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        member_id: Option<MemberId>,
        points: Option<i64>,
        inner: Option<Object<Inner>>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Known,
    }

    impl Checked for Sample {
        type Value = (MemberId, i64);

        fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Self::Value> {
            let member_id = errors.required("member_id", self.member_id);
            let points = errors.integer("points", self.points, 1..=10);
            let inner = self.inner.unwrap_or_default().0;
            assert!(matches!(self.kind, None | Some(Kind::Known)));
            if let Some(amount) = inner.amount {
                errors.within("inner.amount", amount, 1..=10);
            }
            errors.names("inner.names", &inner.names.unwrap_or_default());
            Some((member_id?, points?))
        }
    }

    fn errors_of(body: &str) -> Vec<(String, String)> {
        let problem = parse::<Sample>(body.as_bytes(), Timestamp(0)).expect_err("a bad body");
        let body = serde_json::to_value(problem.body(super::super::problem::Language::English, "r")).unwrap();
        let list = body["errors"].as_array().unwrap();
        list.iter().map(|e| (e["field"].as_str().unwrap().into(), e["message"].as_str().unwrap().into())).collect()
    }

    fn fields_of(body: &str) -> Vec<String> {
        errors_of(body).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn a_good_body_is_read() {
        let (member, points) = parse::<Sample>(br#"{"member_id":"m-1","points":3}"#, Timestamp(0)).unwrap();
        assert_eq!((member.as_str(), points), ("m-1", 3));
    }

    #[test]
    fn all_bad_fields_are_named_at_once() {
        let body = json!({
            "member_id": "a b", "points": "x", "pionts": 1, "other": null,
            "inner": { "amount": 99, "names": ["a", 5, ""], "more": 1 },
        });
        let mut fields = fields_of(&body.to_string());
        fields.sort_unstable();
        assert_eq!(fields, ["inner.amount", "inner.more", "inner.names[1]", "member_id", "other", "pionts", "points"]);
        assert_eq!(fields_of("{}"), ["member_id", "points"]);
        assert_eq!(fields_of(r#"{"points":0,"member_id":null}"#), ["member_id", "points"]);
    }

    #[test]
    fn errors_are_told_in_the_words_of_the_api() {
        let of = |body: &str| {
            let problem = parse::<Sample>(body.as_bytes(), Timestamp(0)).expect_err("a bad body");
            serde_json::to_value(problem.body(super::super::problem::Language::English, "r")).unwrap()["errors"][0]
                .clone()
        };
        let error = of(r#"{"member_id":"m","points":1.5}"#);
        assert_eq!(error["message"], "invalid type: floating point `1.5`");
        assert_eq!(error["remedy"], "Send an integer.");
        let error = of(r#"{"member_id":"","points":1}"#);
        assert_eq!(error["message"], "has the wrong form");
        assert_eq!(error["remedy"], "Send 1-64 printable ASCII characters without spaces.");
        let error = of(r#"{"member_id":"m","points":1,"x":1}"#);
        assert_eq!(error["field"], "x");
        assert_eq!(error["remedy"], "Leave it out. Known are: member_id, points, inner, kind.");
        let error = of(r#"{"member_id":"m","points":1,"points":2}"#);
        assert_eq!((&error["field"], &error["message"]), (&json!("points"), &json!("is given more than once")));
        let error = of(r#"{"member_id":"m","points":1,"kind":"Known","points":2}"#);
        assert_eq!(error["field"], "points");
        for (kind, message) in [("\"x\"", "is x"), ("3", "invalid type: integer `3`"), ("[]", "invalid type: sequence")]
        {
            let error = of(&format!(r#"{{"member_id":"m","points":1,"kind":{kind}}}"#));
            assert_eq!((&error["field"], &error["message"]), (&json!("kind"), &json!(message)));
        }
        let error = of(r#"["m",1,null]"#);
        assert_eq!(error["field"], "body");
        assert_eq!(error["remedy"], "Send a JSON object.");
        let error = of(r#"{"member_id":"m","points":1,"inner":[1,[]]}"#);
        assert_eq!((&error["field"], &error["remedy"]), (&json!("inner"), &json!("Send a JSON object.")));
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for bad in ["", "{", "{} x", "nope", "{\"points\":1e999}", "\u{feff}{}"] {
            let problem = parse::<Sample>(bad.as_bytes(), Timestamp(0)).expect_err(bad);
            assert_eq!(problem.code, Code::MalformedBody, "{bad}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse::<Sample>(deep.as_bytes(), Timestamp(0)).is_err());
    }

    #[test]
    fn many_unknown_fields_are_cut_off() {
        let body = format!("{{{}}}", (0..500).map(|n| format!("\"f{n}\":1")).collect::<Vec<_>>().join(","));
        assert_eq!(fields_of(&body).len(), MAX_ERRORS);
    }

    #[test]
    fn queries_are_read_strictly() {
        let read = |text: &str| {
            let mut parameters = Parameters::of(&text.parse().unwrap())?;
            let page = parameters.page::<TemplateId>();
            parameters.finish().map(|()| (page.limit, page.cursor))
        };
        let id = TemplateId(uuid::Uuid::from_u128(7));
        assert_eq!(read("/x").unwrap(), (50, None));
        assert_eq!(read("/x?limit=&cursor=").unwrap(), (50, None));
        assert_eq!(read(&format!("/x?limit=200&cursor={id}")).unwrap(), (200, Some(id)));
        for bad in ["/x?limit=0", "/x?limit=201", "/x?limit=1&limit=2", "/x?cursor=y", "/x?page=2", "/x?limit=%FF"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
