//! What people see: tables that fit the terminal; and what programs see: JSON.

use std::io::{self, IsTerminal, Write};

use pillarbox::broker::{Table, Value};
use serde_json::{Map, Value as Json};

use super::Failure;

/// Columns of a table without a terminal to fit in.
const WIDE: usize = 10_000;
/// The narrowest a column is made.
const COLUMN_MIN: usize = 8;

/// Prints rows as a table, or as a JSON array.
pub(super) fn rows(rows: &[Table], columns: &[&str], json: bool) -> Result<(), Failure> {
    if json {
        let rows: Vec<Json> = rows.iter().map(table).collect();
        return print(&Json::Array(rows));
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|name| row.get(name).map(text).unwrap_or_default()).collect())
        .collect();
    let numbers: Vec<bool> = columns
        .iter()
        .map(|name| rows.iter().all(|row| row.get(name).is_none_or(|it| it.as_i64().is_some())))
        .collect();
    let heads: Vec<String> =
        columns.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
    let width = terminal_width();
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // The widest text gives way until the line fits.
    while widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1) > width {
        let widest = widths.iter_mut().zip(&numbers).filter(|(_, number)| !**number);
        match widest.map(|(width, _)| width).max() {
            Some(widest) if *widest > COLUMN_MIN => *widest -= 1,
            _ => break,
        }
    }
    let mut out = io::stdout().lock();
    let mut write = |row: &[String]| {
        let mut line = String::new();
        for ((cell, width), number) in row.iter().zip(&widths).zip(&numbers) {
            let cell = cut(cell, *width);
            let gap = " ".repeat(width - cell.chars().count());
            line += &if *number { format!("{gap}{cell}  ") } else { format!("{cell}{gap}  ") };
        }
        writeln!(out, "{}", line.trim_end())
    };
    write(&heads).map_err(|error| Failure::output(&error))?;
    for row in &cells {
        write(row).map_err(|error| Failure::output(&error))?;
    }
    Ok(())
}

/// Prints one thing: its fields below each other, or a JSON object.
pub(super) fn one(row: &Table, json: bool) -> Result<(), Failure> {
    if json {
        return print(&table(row));
    }
    let width = row.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    for (name, value) in row.iter() {
        let name = String::from_utf8_lossy(name).replace('_', " ");
        writeln!(out, "{name:width$}  {}", text(value)).map_err(|error| Failure::output(&error))?;
    }
    Ok(())
}

/// Says what was done: a sentence, or a JSON object.
pub(super) fn done(sentence: &str, fields: Json, json: bool) -> Result<(), Failure> {
    if json {
        return print(&fields);
    }
    line(sentence)
}

pub(super) fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::output(&error))
}

/// JSON on one line.
pub(super) fn json_line(json: &Json) -> Result<(), Failure> {
    line(&json.to_string())
}

fn print(json: &Json) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(json).map_err(Failure::failed)?;
    line(&text)
}

pub(super) fn table(table: &Table) -> Json {
    let pair = |(name, value): (&_, &Value)| {
        let name: &bytes::Bytes = name;
        (String::from_utf8_lossy(name).into_owned(), json(value))
    };
    Json::Object(table.iter().map(pair).collect::<Map<_, _>>())
}

pub(super) fn json(value: &Value) -> Json {
    match value {
        Value::Bool(it) => Json::Bool(*it),
        Value::F32(it) => Json::from(*it),
        Value::F64(it) => Json::from(*it),
        Value::Decimal { scale, value } => {
            Json::from(f64::from(*value) / 10f64.powi((*scale).into()))
        }
        Value::Text(it) | Value::Binary(it) => Json::from(String::from_utf8_lossy(it)),
        Value::Timestamp(it) => Json::from(*it),
        Value::Table(it) => table(it),
        Value::Array(it) => Json::Array(it.iter().map(json).collect()),
        Value::Void => Json::Null,
        number => number.as_i64().map_or(Json::Null, Json::from),
    }
}

fn text(value: &Value) -> String {
    match json(value) {
        Json::String(text) => text,
        Json::Bool(yes) => if yes { "yes" } else { "no" }.into(),
        Json::Null => String::new(),
        Json::Array(all) if all.iter().all(Json::is_string) => {
            all.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", ")
        }
        Json::Object(all) if all.is_empty() => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

pub(super) fn terminal_width() -> usize {
    if !io::stdout().is_terminal() {
        return WIDE;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
    let size = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    columns.or(size).unwrap_or(80)
}
