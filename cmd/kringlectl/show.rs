//! How data leaves: a table for people, JSON or CSV for programs. The one place that writes to standard output.
//!
//! What a verb shows is objects, which JSON has as they are and of which a table picks columns. Into a pipe a table goes
//! as wide as it is; on a terminal it is fitted to the width, and what others wrote cannot move the cursor.

use crate::arguments::Form;
use crate::exit::Failed;
use crate::terminal;
use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};
use serde_json::Value;
use std::io::Write;

/// How a column's values are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// As it is.
    Text,
    /// A part of 1, shown in percent.
    Share,
    /// Bytes, shown in KiB and so on.
    Bytes,
    /// Milliseconds, shown in the unit that fits.
    Millis,
}

/// A column: the name of a field, and its unit.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub Unit);

/// Objects, of which these columns are shown.
pub struct Table<'a> {
    /// In this order.
    pub columns: &'a [Column],
    /// A field that is absent is empty.
    pub rows: &'a [Value],
}

/// Standard output, in one form.
#[derive(Clone, Copy)]
pub struct Show {
    form: Form,
}

impl Show {
    /// In this form.
    pub fn new(form: Form) -> Show {
        Show { form }
    }

    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// A line of text.
    pub fn line(&self, text: &str) -> Result<(), Failed> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// One JSON value on a line.
    pub fn json(&self, value: &Value) -> Result<(), Failed> {
        self.line(&value.to_string())
    }

    /// `json` for programs that read it, else the table.
    pub fn data(&self, json: &Value, table: &Table<'_>) -> Result<(), Failed> {
        match self.form {
            Form::Json => self.json(json),
            Form::Csv => self.bytes(table.csv(true).as_bytes()),
            Form::Table => self.bytes(table.text(terminal::width()).as_bytes()),
        }
    }

    /// One object of many that come one after another: a line in every form, `text` of it in the table's.
    pub fn item(&self, json: &Value, columns: &[Column], text: impl FnOnce() -> String) -> Result<(), Failed> {
        match self.form {
            Form::Json => self.json(json),
            Form::Csv => self.bytes(Table { columns, rows: std::slice::from_ref(json) }.csv(false).as_bytes()),
            Form::Table => self.line(&text()),
        }
    }

    /// What stands above such lines: the names of the columns in CSV, nothing elsewhere.
    pub fn head(&self, columns: &[Column]) -> Result<(), Failed> {
        match self.form {
            Form::Csv => self.bytes(Table { columns, rows: &[] }.csv(true).as_bytes()),
            Form::Json | Form::Table => Ok(()),
        }
    }
}

impl Table<'_> {
    /// For people, within `width` columns if there is one; every line ends.
    pub fn text(&self, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        let headings = self.columns.iter().map(Column::heading);
        table.set_header(headings.collect::<Vec<_>>());
        for row in self.rows {
            table.add_row(self.columns.iter().map(|column| column.cell(row)).collect::<Vec<_>>());
        }
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.discover_columns();
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index + 1 == self.columns.len() { 0 } else { 2 }));
            if self.rows.iter().any(|row| row[self.columns[index].0].is_number()) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for (index, line) in table.lines().enumerate() {
            match (index, terminal::is_colourful()) {
                (0, true) => text += &format!("\x1b[1m{}\x1b[0m\n", line.trim_end()),
                _ => text += &format!("{}\n", line.trim_end()),
            }
        }
        text
    }

    /// As RFC 4180 has it, but for line ends of one byte.
    pub fn csv(&self, with_head: bool) -> String {
        let mut text = String::new();
        if with_head {
            text += &self.columns.iter().map(|Column(name, _)| *name).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        for row in self.rows {
            let cells = self.columns.iter().map(|Column(name, _)| quoted(&plain(&row[*name])));
            text += &cells.collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        text
    }
}

impl Column {
    /// Its name for people, without the unit that every cell has.
    fn heading(&self) -> String {
        let name = if self.1 == Unit::Millis { self.0.trim_end_matches("_ms") } else { self.0 };
        name.to_uppercase().replace('_', " ")
    }

    fn cell(&self, row: &Value) -> Cell {
        let value = &row[self.0];
        let number = value.as_f64();
        let text = match (self.1, number) {
            _ if value.is_null() => "-".into(),
            (Unit::Share, Some(share)) => format!("{:.1}%", share * 100.0),
            (Unit::Bytes, Some(bytes)) => of_bytes(bytes),
            (Unit::Millis, Some(millis)) => of_millis(millis),
            _ => printable(plain(value).as_bytes()),
        };
        Cell::new_owned(text)
    }
}

/// A value without JSON's quotes; nothing for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// A number of things, by their name.
pub fn counted(count: u64, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in the unit that fits.
pub fn of_bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut rest = bytes;
    for unit in UNITS {
        if rest < 1024.0 || unit == "TiB" {
            return if unit == "B" { format!("{rest:.0} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1024.0;
    }
    String::new()
}

/// Milliseconds in the unit that fits.
pub fn of_millis(millis: f64) -> String {
    match millis {
        ..1.0 => format!("{millis:.2} ms"),
        ..1_000.0 => format!("{millis:.0} ms"),
        ..60_000.0 => format!("{:.1} s", millis / 1_000.0),
        ..3_600_000.0 => format!("{:.0} min", millis / 60_000.0),
        ..86_400_000.0 => format!("{:.1} h", millis / 3_600_000.0),
        _ => format!("{:.1} d", millis / 86_400_000.0),
    }
}

/// Text that moves no cursor: control characters and what is no UTF-8 are written as escapes.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] =
        &[Column("node", Unit::Text), Column("owns", Unit::Share), Column("last_sync", Unit::Millis)];

    #[test]
    fn a_table_fits_the_width_it_is_given() {
        let node = "http://a-very-long-name.of-a-node.in-a-distant.example:8001/".repeat(3);
        let rows = [json!({ "node": node, "owns": 0.25, "last_sync": 1500 }), json!({ "node": "b" })];
        let text = Table { columns: COLUMNS, rows: &rows }.text(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("25.0%") && text.contains("1.5 s"), "{text}");
        let text = Table { columns: COLUMNS, rows: &rows }.text(None);
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn csv_quotes_what_would_break_it() {
        let rows = [json!({ "node": "a,\"b\"\n", "owns": 0.5, "last_sync": null })];
        let csv = Table { columns: COLUMNS, rows: &rows }.csv(true);
        assert_eq!(csv, "node,owns,last_sync\n\"a,\"\"b\"\"\n\",0.5,\n");
    }

    #[test]
    fn what_is_shown_moves_no_cursor() {
        assert_eq!(printable(b"a\x1b[2J\n\xffz"), "a\\u{1b}[2J\\n\\xffz");
        assert_eq!(printable("grüße".as_bytes()), "grüße");
    }

    #[test]
    fn sizes_and_spans_are_told_in_a_unit_that_fits() {
        assert_eq!(of_bytes(10.0), "10 B");
        assert_eq!(of_bytes(1536.0), "1.5 KiB");
        assert_eq!(of_bytes(5e15), "4547.5 TiB");
        assert_eq!(of_millis(0.5), "0.50 ms");
        assert_eq!(of_millis(90_000.0), "2 min");
    }
}
