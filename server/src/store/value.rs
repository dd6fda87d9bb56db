//! Parameters and rows of both stores behind one face, so that a read operation is one SQL text and one decoder.
//!
//! Statements number their parameters `$1, $2, ...`, as PostgreSQL has it; for SQLite those are names.

use scrip_domain::{InvalidId, MemberId, TenantId, Timestamp};
use std::error::Error as StdError;
use std::str::FromStr;
use tokio_postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use uuid::Uuid;

use super::StoreError;

/// A statement's parameter.
#[derive(Debug, Clone)]
pub enum Param<'a> {
    Uuid(Uuid),
    Text(&'a str),
    Int(i64),
    Bool(bool),
    Bytes(&'a [u8]),
    Json(String),
    OptBytes(Option<&'a [u8]>),
    OptUuid(Option<Uuid>),
    OptInt(Option<i64>),
    OptText(Option<&'a str>),
}

/// A value as the type of its column, for stores that send columns as arrays. A value of another type is a slip in
/// [`super::table`], which every write of every test would show.
impl Param<'_> {
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Param::Uuid(value) => Some(*value),
            Param::OptUuid(value) => *value,
            other => unreachable!("a UUID column got {other:?}"),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Param::Text(value) => Some(value),
            Param::OptText(value) => *value,
            Param::Json(value) => Some(value),
            other => unreachable!("a text column got {other:?}"),
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Param::Int(value) => Some(*value),
            Param::OptInt(value) => *value,
            other => unreachable!("an integer column got {other:?}"),
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Param::Bool(value) => Some(*value),
            other => unreachable!("a boolean column got {other:?}"),
        }
    }

    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Param::Bytes(value) => Some(value),
            Param::OptBytes(value) => *value,
            other => unreachable!("a column of bytes got {other:?}"),
        }
    }
}

impl From<TenantId> for Param<'_> {
    fn from(id: TenantId) -> Self {
        Param::Uuid(id.0)
    }
}

impl From<Uuid> for Param<'_> {
    fn from(id: Uuid) -> Self {
        Param::Uuid(id)
    }
}

impl<'a> From<&'a MemberId> for Param<'a> {
    fn from(id: &'a MemberId) -> Self {
        Param::Text(id.as_str())
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Param::Text(text)
    }
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Param::Int(value)
    }
}

impl From<Timestamp> for Param<'_> {
    fn from(time: Timestamp) -> Self {
        Param::Int(time.0)
    }
}

impl From<Option<i64>> for Param<'_> {
    fn from(value: Option<i64>) -> Self {
        Param::OptInt(value)
    }
}

impl From<Option<Timestamp>> for Param<'_> {
    fn from(time: Option<Timestamp>) -> Self {
        Param::OptInt(time.map(|time| time.0))
    }
}

impl From<Option<Uuid>> for Param<'_> {
    fn from(id: Option<Uuid>) -> Self {
        Param::OptUuid(id)
    }
}

impl<'a> From<Option<&'a str>> for Param<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Param::OptText(text)
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Param::Uuid(value) => value.to_sql(ty, out),
            Param::Text(value) => value.to_sql(ty, out),
            Param::Int(value) => value.to_sql(ty, out),
            Param::Bool(value) => value.to_sql(ty, out),
            Param::Bytes(value) => value.to_sql(ty, out),
            Param::Json(value) => value.to_sql(ty, out),
            Param::OptBytes(value) => value.to_sql(ty, out),
            Param::OptUuid(value) => value.to_sql(ty, out),
            Param::OptInt(value) => value.to_sql(ty, out),
            Param::OptText(value) => value.to_sql(ty, out),
        }
    }

    // Whether a parameter fits is known only from its value; the variants above check it when they write.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, Value, ValueRef};
        Ok(match self {
            Param::Uuid(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value.as_bytes())),
            Param::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Param::Int(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Param::Bool(value) => ToSqlOutput::Owned(Value::Integer((*value).into())),
            Param::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Param::Json(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Param::OptBytes(value) => match value {
                Some(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
                None => ToSqlOutput::Owned(Value::Null),
            },
            Param::OptUuid(value) => match value {
                Some(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
                None => ToSqlOutput::Owned(Value::Null),
            },
            Param::OptInt(value) => ToSqlOutput::Owned(value.map_or(Value::Null, Value::Integer)),
            Param::OptText(value) => match value {
                Some(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
                None => ToSqlOutput::Owned(Value::Null),
            },
        })
    }
}

/// A result row of either store. Columns are read by position.
pub enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

type Read<T> = Result<T, StoreError>;

impl Row<'_> {
    pub fn int(&self, column: usize) -> Read<i64> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn opt_int(&self, column: usize) -> Read<Option<i64>> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn bool(&self, column: usize) -> Read<bool> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn text(&self, column: usize) -> Read<String> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn opt_text(&self, column: usize) -> Read<Option<String>> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn uuid(&self, column: usize) -> Read<Uuid> {
        match self {
            Row::Sqlite(row) => Ok(Uuid::from_bytes(row.get(column)?)),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub fn opt_uuid(&self, column: usize) -> Read<Option<Uuid>> {
        match self {
            Row::Sqlite(row) => Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes)),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// A digest of known length.
    pub fn bytes<const N: usize>(&self, column: usize) -> Read<[u8; N]> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => row
                .try_get::<_, &[u8]>(column)?
                .try_into()
                .map_err(|_| StoreError::corrupt(format!("column {column}: expected {N} bytes"))),
        }
    }

    pub fn opt_bytes<const N: usize>(&self, column: usize) -> Read<Option<[u8; N]>> {
        match self {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(row) => match row.try_get::<_, Option<&[u8]>>(column)? {
                Some(bytes) => bytes
                    .try_into()
                    .map(Some)
                    .map_err(|_| StoreError::corrupt(format!("column {column}: expected {N} bytes"))),
                None => Ok(None),
            },
        }
    }

    pub fn time(&self, column: usize) -> Read<Timestamp> {
        self.int(column).map(Timestamp)
    }

    pub fn opt_time(&self, column: usize) -> Read<Option<Timestamp>> {
        Ok(self.opt_int(column)?.map(Timestamp))
    }

    pub fn tenant(&self, column: usize) -> Read<TenantId> {
        self.uuid(column).map(TenantId)
    }

    /// A member or order id.
    pub fn caller_id<T: FromStr<Err = InvalidId>>(&self, column: usize) -> Read<T> {
        parse(&self.borrowed_text(column)?)
    }

    pub fn opt_caller_id<T: FromStr<Err = InvalidId>>(&self, column: usize) -> Read<Option<T>> {
        self.opt_text(column)?.as_deref().map(parse).transpose()
    }

    /// A stored name of an enum's variant.
    pub fn name<T>(&self, column: usize, parse: fn(&str) -> Option<T>) -> Read<T> {
        let text = self.borrowed_text(column)?;
        parse(&text).ok_or_else(|| StoreError::corrupt(format!("column {column}: unknown name {text:?}")))
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Read<T> {
        let text = self.borrowed_text(column)?;
        serde_json::from_str(&text).map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
    }

    pub fn opt_json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Read<Option<T>> {
        let text = self.opt_text(column)?;
        let value = text.as_deref().map(serde_json::from_str).transpose();
        value.map_err(|error| StoreError::corrupt(format!("column {column}: {error}")))
    }

    fn borrowed_text(&self, column: usize) -> Read<std::borrow::Cow<'_, str>> {
        match self {
            Row::Sqlite(row) => {
                let text = row.get_ref(column)?.as_str().map_err(|error| StoreError::corrupt(error.to_string()))?;
                Ok(text.into())
            }
            Row::Postgres(row) => Ok(row.try_get::<_, &str>(column)?.into()),
        }
    }
}

fn parse<T: FromStr<Err = InvalidId>>(text: &str) -> Read<T> {
    text.parse().map_err(|error: InvalidId| StoreError::corrupt(format!("{text:?}: {error}")))
}
