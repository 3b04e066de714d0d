//! The fact tables: tab-separated files, one entity kind each.
//!
//! First line that is no comment = header; first column = the entity's name; every other column = one relation. A cell
//! holds one value or several separated by `;`; an empty cell states nothing; lines that begin with `#` are comments.

use rust_embed::RustEmbed;
use std::path::Path;

/// The tables that ship inside the binary (`server/lm/data/atlas/*.tsv`).
#[derive(RustEmbed)]
#[folder = "data/atlas"]
struct Embedded;

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The folder or a file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was read.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("{0}.tsv is not UTF-8")]
    Utf8(String),
    /// A row has more cells than the header.
    #[error("{table}.tsv, line {line}: {cells} cells, but the header names {columns}")]
    Width {
        /// Table.
        table: String,
        /// 1-based line.
        line: usize,
        /// Cells found.
        cells: usize,
        /// Cells expected at most.
        columns: usize,
    },
    /// Two rows have the same name.
    #[error("{table}.tsv, line {line}: {name} is there twice")]
    Twice {
        /// Table.
        table: String,
        /// 1-based line.
        line: usize,
        /// The entity.
        name: String,
    },
    /// There is no table at all.
    #[error("no .tsv file found")]
    Empty,
}

/// One entity: its name and, for each relation column, its values (empty = no fact).
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The entity.
    pub name: String,
    /// As many as the table has columns.
    pub cells: Vec<Vec<String>>,
}

/// One kind of entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// File name without `.tsv`, e.g. `countries`.
    pub name: String,
    /// The relation columns' names, without the first.
    pub columns: Vec<String>,
    /// In file order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Parses one file. See the module's text for the format.
    pub fn parse(name: &str, text: &str) -> Result<Self, TableError> {
        let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
        let Some((_, header)) = lines.next() else {
            return Err(TableError::Empty);
        };
        let columns: Vec<String> = header.split('\t').skip(1).map(|c| c.trim().to_owned()).collect();
        let mut seen = std::collections::HashSet::new();
        let mut rows = Vec::new();
        for (index, line) in lines {
            let mut parts = line.split('\t');
            let entity = parts.next().unwrap_or_default().trim().to_owned();
            let mut cells: Vec<Vec<String>> = parts
                .map(|cell| cell.split(';').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect())
                .collect();
            if cells.len() > columns.len() {
                return Err(TableError::Width {
                    table: name.into(),
                    line: index + 1,
                    cells: cells.len() + 1,
                    columns: columns.len() + 1,
                });
            }
            cells.resize(columns.len(), Vec::new());
            if !seen.insert(entity.clone()) {
                return Err(TableError::Twice { table: name.into(), line: index + 1, name: entity });
            }
            rows.push(Row { name: entity, cells });
        }
        Ok(Self { name: name.into(), columns, rows })
    }

    /// Number of cells that state something.
    pub fn facts(&self) -> usize {
        self.rows.iter().flat_map(|r| &r.cells).filter(|c| !c.is_empty()).count()
    }
}

/// The tables in the binary, in the order of their names.
pub fn embedded() -> Result<Vec<Table>, TableError> {
    let mut names: Vec<_> = Embedded::iter().filter(|f| f.ends_with(".tsv")).collect();
    names.sort();
    let tables = names
        .iter()
        .filter_map(|file| Embedded::get(file).map(|f| (file.trim_end_matches(".tsv").to_owned(), f.data)))
        .map(|(name, data)| {
            let text = std::str::from_utf8(&data).map_err(|_| TableError::Utf8(name.clone()))?;
            Table::parse(&name, text)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if tables.is_empty() { Err(TableError::Empty) } else { Ok(tables) }
}

/// All `*.tsv` of a folder, in the order of their names.
pub fn from_dir(dir: &Path) -> Result<Vec<Table>, TableError> {
    let fail = |source| TableError::Read { path: dir.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "tsv") {
            paths.push(path);
        }
    }
    paths.sort();
    let tables = paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)
                .map_err(|source| TableError::Read { path: path.display().to_string(), source })?;
            let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            Table::parse(&name, &text)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if tables.is_empty() { Err(TableError::Empty) } else { Ok(tables) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_comments_lists_and_gaps() {
        let t = Table::parse("x", "# c\nname\ta\tb\nKenya\tNairobi\tUganda; Somalia\nMali\t\n").expect("valid");
        assert_eq!(t.columns, ["a", "b"]);
        assert_eq!(t.rows[0].cells, [vec!["Nairobi".to_owned()], vec!["Uganda".into(), "Somalia".into()]]);
        assert_eq!(t.rows[1].cells, [Vec::<String>::new(), vec![]]);
        assert_eq!(t.facts(), 2);
    }

    #[test]
    fn refuses_wide_rows_and_repeated_names() {
        assert!(matches!(Table::parse("x", "name\ta\nK\t1\t2"), Err(TableError::Width { line: 2, .. })));
        assert!(matches!(Table::parse("x", "name\ta\nK\t1\nK\t2"), Err(TableError::Twice { line: 3, .. })));
    }
}
