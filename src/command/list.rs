//! Prints lists: as lines or, on a terminal, as a table; as one JSON array; or as one JSON object
//! per line.

use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;
use serde_json::Value;
use tidings_core::model::text::visible;
use tidings_core::runtime::config::wants_no_color;

use super::ListOutput;
use super::tool::{print_line, write_all};

/// Between two columns.
const GAP: &str = "  ";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// One row: its line, its cells on a terminal, and its JSON.
pub struct Row {
    pub line: String,
    pub cells: Vec<String>,
    pub json: Value,
}

impl Row {
    /// A row that is printed as JSON only.
    pub fn of(json: Value) -> Self {
        Self {
            line: String::new(),
            cells: Vec::new(),
            json,
        }
    }
}

/// Prints a list.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(output: ListOutput, headers: &[&str], rows: &[Row]) -> io::Result<()> {
    match output {
        ListOutput::Text if io::stdout().is_terminal() && !rows.is_empty() => {
            let width = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
            let table = table(headers, rows, width, !wants_no_color());
            write_all(table.as_bytes())
        }
        ListOutput::Text => lines(rows.iter().map(|row| row.line.clone())),
        ListOutput::Jsonl => lines(rows.iter().map(|row| row.json.to_string())),
        ListOutput::Json => lines(std::iter::once(array(rows))),
    }
}

fn lines(lines: impl Iterator<Item = String>) -> io::Result<()> {
    for line in lines {
        if !print_line(&line)? {
            break;
        }
    }
    Ok(())
}

/// All rows as one array.
fn array(rows: &[Row]) -> String {
    Value::Array(rows.iter().map(|row| row.json.clone()).collect()).to_string()
}

/// The rows below their headers. Each line is cut at the width of the terminal; 0 if not known.
fn table(headers: &[&str], rows: &[Row], width: usize, with_colors: bool) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.cells
                .iter()
                .map(|cell| visible(cell).into_owned())
                .collect()
        })
        .collect();
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            let cells = cells.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count()).max();
            longest.unwrap_or_default().max(header.len())
        })
        .collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths);
        let padded: Vec<String> = padded
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        cut(padded.join(GAP).trim_end(), width)
    };
    let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let header = match with_colors {
        true => format!("{BOLD}{}{PLAIN}\n", line(&headers)),
        false => format!("{}\n", line(&headers)),
    };
    let rows = cells.iter().map(|row| line(row) + "\n");
    std::iter::once(header).chain(rows).collect()
}

fn cut(line: &str, width: usize) -> String {
    if width == 0 || line.chars().count() <= width {
        return line.to_owned();
    }
    let kept: String = line.chars().take(width - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str, detail: &str) -> Row {
        Row {
            line: name.to_owned(),
            cells: vec![name.to_owned(), detail.to_owned()],
            json: json!({"name": name}),
        }
    }

    #[test]
    fn a_table_has_headers_and_columns_and_fits_the_terminal() {
        let rows = [row("a", "first"), row("long", "a\nsecond\u{1b}[2J")];
        let headers = ["NAME", "DETAIL"];
        let plain = table(&headers, &rows, 0, false);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[..2], ["NAME  DETAIL", "a     first"]);
        assert!(
            lines[2].starts_with("long  a") && lines.len() == 3,
            "{lines:?}"
        );
        assert!(!plain.contains('\u{1b}'), "no cell controls the terminal");
        let narrow = table(&headers, &rows, 8, true);
        let lines: Vec<&str> = narrow.lines().collect();
        assert_eq!(lines[..2], ["\u{1b}[1mNAME  D…\u{1b}[0m", "a     f…"]);
    }

    #[test]
    fn an_array_is_valid_as_a_whole() {
        for rows in [vec![], vec![row("a", "")], vec![row("a", ""), row("b", "")]] {
            let parsed: Value = serde_json::from_str(&array(&rows)).unwrap();
            assert_eq!(parsed.as_array().unwrap().len(), rows.len());
        }
    }
}
