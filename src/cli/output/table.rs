//! Ruled tables, one per page of rows; a page that is wider than the terminal is written as records.

use std::io::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use remige::error::Error;

use super::{Expanded, Layout, Printer, Stop, in_utc};

/// A page ends at the first of these: widths are found within a page, so it must fit into memory.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;

pub struct TablePrinter {
    header: Vec<String>,
    right_aligned: Vec<bool>,
    page: Vec<Vec<String>>,
    page_bytes: usize,
    pages: usize,
    layout: Layout,
    /// Records written so far.
    records: usize,
}

impl TablePrinter {
    pub fn new(schema: &SchemaRef, layout: Layout) -> Self {
        TablePrinter {
            header: schema.fields().iter().map(|f| printable(f.name())).collect(),
            right_aligned: schema.fields().iter().map(|f| f.data_type().is_numeric()).collect(),
            page: Vec::new(),
            page_bytes: 0,
            pages: 0,
            layout,
            records: 0,
        }
    }

    fn flush(&mut self, out: &mut dyn Write) -> Result<(), Stop> {
        let page = std::mem::take(&mut self.page);
        match self.as_table(&page) {
            Some(table) => writeln!(out, "{table}")?,
            None => self.as_records(&page, out)?,
        }
        self.page_bytes = 0;
        self.pages += 1;
        Ok(())
    }

    /// `None` where records are wanted, or a table would be wider than the terminal.
    fn as_table(&self, page: &[Vec<String>]) -> Option<String> {
        if self.layout.expanded == Expanded::On && !page.is_empty() {
            return None;
        }
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(&self.header);
        for row in page {
            let cells = row
                .iter()
                .zip(&self.right_aligned)
                .map(|(text, right)| Cell::new(text).set_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left }));
            table.add_row(cells);
        }
        let table = table.to_string();
        let fits = |width: usize| table.lines().next().is_none_or(|rule| rule.chars().count() <= width);
        match self.layout {
            Layout { expanded: Expanded::Auto, width: Some(width) } if !page.is_empty() && !fits(width) => None,
            _ => Some(table),
        }
    }

    /// A line per column.
    fn as_records(&mut self, page: &[Vec<String>], out: &mut dyn Write) -> Result<(), Stop> {
        let width = self.header.iter().map(|h| h.chars().count()).max().unwrap_or_default();
        for row in page {
            self.records += 1;
            writeln!(out, "── {} {}", self.records, "─".repeat(width.max(12)))?;
            for (name, value) in self.header.iter().zip(row) {
                let indented = value.replace('\n', &format!("\n{}   ", " ".repeat(width)));
                writeln!(out, "{name:<width$} │ {indented}")?;
            }
        }
        Ok(())
    }
}

impl Printer for TablePrinter {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        let options = FormatOptions::default().with_null("NULL");
        let columns = in_utc(batch, false)?;
        let formatters: Vec<ArrayFormatter<'_>> =
            columns.iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>().map_err(Error::from)?;
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = formatters
                .iter()
                .map(|f| f.value(row).try_to_string().map(|text| printable(&text)))
                .collect::<Result<_, _>>()
                .map_err(Error::from)?;
            self.page_bytes += cells.iter().map(String::len).sum::<usize>();
            self.page.push(cells);
            if self.page.len() >= PAGE_ROWS || self.page_bytes >= PAGE_BYTES {
                self.flush(out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, rows: u64, cut: bool, out: &mut dyn Write) -> Result<(), Stop> {
        if !self.page.is_empty() || (self.pages == 0 && !self.header.is_empty()) {
            self.flush(out)?;
        }
        let plural = if rows == 1 { "row" } else { "rows" };
        writeln!(out, "({}{rows} {plural})", if cut { "first " } else { "" })?;
        Ok(())
    }
}

/// Data must not steer the terminal: control characters are shown as escapes.
fn printable(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_string();
    }
    text.chars().flat_map(|c| if c.is_control() && c != '\n' { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
