//! Rows as aligned text: numbers to the right, everything else to the left.

use std::fmt;

/// Between columns.
const GAP: &str = "  ";

/// A table with a mark in front of each row.
pub struct Table {
    /// Whether each column stands to the right; the first is the mark.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; each column has a name and says whether it holds numbers.
    pub fn new<'a>(columns: impl Iterator<Item = (&'a str, bool)>) -> Table {
        let (mut names, mut right) = (vec![String::new()], vec![false]);
        for (name, number) in columns {
            names.push(name.into());
            right.push(number);
        }
        Table {
            right,
            rows: vec![names],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, mark: &str, cells: impl Iterator<Item = String>) {
        let row = std::iter::once(mark.to_owned()).chain(cells);
        self.rows.push(row.collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        (0..self.right.len()).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (n, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                line.push_str(GAP);
                if *right {
                    line.push_str(&format!("{cell:>width$}"));
                } else {
                    line.push_str(&format!("{cell:<width$}"));
                }
            }
            if n > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}
