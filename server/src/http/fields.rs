//! Collecting what is wrong with a request's fields, all of it, each with what would be right.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use scrip_domain::Timestamp;
use scrip_domain::condition::{self, Condition, ConditionError};
use serde::Serialize;
use utoipa::ToSchema;

use super::percent::Percent;
use super::time::Time;

/// The most errors one answer lists.
pub const MAX_ERRORS: usize = 50;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its path, like `benefit.amount`; a header or query parameter by its name.
    #[schema(value_type = String)]
    pub field: Cow<'static, str>,
    pub message: String,
    pub remedy: String,
}

#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Adds an error, unless the field or one around it has one already: the first says more than what follows from it.
    pub fn add(&mut self, field: impl Into<Cow<'static, str>>, message: impl Into<String>, remedy: impl Into<String>) {
        let field = field.into();
        if self.0.len() < MAX_ERRORS && !self.0.iter().any(|known| covers(&known.field, &field)) {
            self.0.push(FieldError { field, message: message.into(), remedy: remedy.into() });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_list(self) -> Vec<FieldError> {
        self.0
    }

    /// The value, which must be there.
    pub fn required<T>(&mut self, field: impl Into<Cow<'static, str>>, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.add(field, "is required", "Send it.");
        }
        value
    }

    /// The number, when it lies in the range.
    pub fn within(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        value: i64,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = (range.start(), range.end());
        self.add(field, format!("is {value}"), format!("Send an integer from {least} to {most}."));
        None
    }

    /// The number, when it is there and lies in the range.
    pub fn integer(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        value: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let field = field.into();
        self.required(field.clone(), value).and_then(|value| self.within(field, value, range))
    }

    /// The percentage in basis points, when it lies in the range, which is in basis points too.
    pub fn percent(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        value: Percent,
        range: RangeInclusive<i64>,
    ) -> Option<u16> {
        if range.contains(&value.0) {
            return u16::try_from(value.0).ok();
        }
        let (least, most) = (Percent(*range.start()), Percent(*range.end()));
        self.add(field, format!("is {value}"), format!("Send a number from {least} to {most}."));
        None
    }

    /// Checks a text's length in characters, and that it has no control characters but line breaks and tabs: stores and
    /// screens choke on them.
    pub fn text(&mut self, field: impl Into<Cow<'static, str>>, text: &str, length: RangeInclusive<usize>) {
        let (least, most) = (*length.start(), *length.end());
        // Every character has at least one byte, so a short text needs no counting.
        if text.len() < least || (text.len() > most && text.chars().count() > most) {
            let message = format!("has {} characters", text.chars().count());
            self.add(field, message, format!("Send {least} to {most} characters."));
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.add(field, "has control characters", "Leave them out; line breaks and tabs are allowed.");
        }
    }

    pub fn optional_text(&mut self, field: &'static str, text: Option<&str>, length: RangeInclusive<usize>) {
        if let Some(text) = text {
            self.text(field, text, length);
        }
    }

    /// Checks a list of short names.
    pub fn names(&mut self, field: impl Into<Cow<'static, str>>, names: &[String]) {
        let field = field.into();
        if names.len() > MAX_NAMES {
            self.add(field.clone(), format!("has {} entries", names.len()), format!("Send at most {MAX_NAMES}."));
        }
        for (index, name) in names.iter().enumerate().take(MAX_NAMES) {
            self.text(Cow::Owned(format!("{field}[{index}]")), name, 1..=64);
        }
    }

    pub fn condition(&mut self, field: impl Into<Cow<'static, str>>, source: &str) -> Option<Condition> {
        let field = field.into();
        self.text(field.clone(), source, 1..=condition::MAX_LENGTH);
        match Condition::compile(source) {
            Ok(condition) => Some(condition),
            Err(ConditionError { position, message, remedy }) => {
                self.add(field, format!("at character {position}: {message}"), remedy);
                None
            }
        }
    }

    /// The time the command takes effect, when it is given and not in the future.
    pub fn effective_at(&mut self, at: Option<Time>, now: Timestamp) -> Option<Timestamp> {
        let at = at?.0;
        if at > now {
            let now = Time(now);
            self.add("effective_at", "lies in the future", format!("Send a time up to now, which is {now}."));
        }
        Some(at)
    }
}

/// Entries of a list of names, at most.
const MAX_NAMES: usize = 1_000;

/// Whether `outer` is `inner` or contains it.
fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_reported_once() {
        let mut errors = FieldErrors::default();
        errors.add("benefit", "wrong", "");
        errors.add("benefit.amount", "is required", "");
        errors.add("benefits", "another", "");
        let fields: Vec<_> = errors.into_list().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["benefit", "benefits"]);
    }

    #[test]
    fn texts_are_counted_in_characters() {
        let mut errors = FieldErrors::default();
        errors.text("a", "积分积分", 1..=4);
        errors.text("b", "line\nbreak", 1..=10);
        assert!(errors.is_empty());
        errors.text("c", "", 1..=4);
        errors.text("d", "积分积分积", 1..=4);
        errors.text("e", "\0", 1..=4);
        assert_eq!(errors.into_list().len(), 3);
    }
}
