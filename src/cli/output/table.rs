//! Ruled tables, one per page of rows.

use std::io::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use remige::error::Error;

use super::{Printer, Stop, in_utc};

/// A page ends at the first of these: widths are found within a page, so it must fit into memory.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;

pub struct TablePrinter {
    header: Vec<String>,
    right_aligned: Vec<bool>,
    page: Vec<Vec<String>>,
    page_bytes: usize,
    pages: usize,
}

impl TablePrinter {
    pub fn new(schema: &SchemaRef) -> Self {
        TablePrinter {
            header: schema.fields().iter().map(|f| printable(f.name())).collect(),
            right_aligned: schema.fields().iter().map(|f| f.data_type().is_numeric()).collect(),
            page: Vec::new(),
            page_bytes: 0,
            pages: 0,
        }
    }

    fn flush(&mut self, out: &mut dyn Write) -> Result<(), Stop> {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(&self.header);
        for row in self.page.drain(..) {
            let cells = row
                .into_iter()
                .zip(&self.right_aligned)
                .map(|(text, right)| Cell::new(text).set_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left }));
            table.add_row(cells);
        }
        writeln!(out, "{table}")?;
        self.page_bytes = 0;
        self.pages += 1;
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
