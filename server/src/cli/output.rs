//! Tables for people, JSON for scripts.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints the rows as a table, or the values as JSON.
///
/// # Errors
/// When a value has no JSON form.
pub fn print<T: Serialize>(
    json: bool,
    values: &[T],
    header: &[&str],
    row: fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(values)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for value in values {
        table.add_row(row(value));
    }
    println!("{table}");
    Ok(())
}

/// An instant as RFC 3339 in UTC, to the second.
pub fn time(at: scrip_domain::Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| "-".into(), |time| format!("{time:.0}"))
}
