//! Cases: files in `cases/` whose parts begin with `--- heading`. Some are given (`schema`, `lines`, `change`), the
//! others are what is made of those. `UPDATE_CASES=1 cargo test` writes them anew: read the difference.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use millstream_engine::time::Timestamp;

use super::{Budget, LogMapper, LogSchema, PIPELINE_ERRORS, merge};
use crate::warehouse::ddl::qualified;
use crate::warehouse::evolve::{Evolution, Known, evolve};
use crate::warehouse::types::Dialect;

/// When the run of the cases began.
const START: Timestamp = Timestamp(1_795_435_200_000_000);

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("formats/log/cases");
    let files = std::fs::read_dir(folder).expect("a folder of cases");
    let files = files.map(|entry| entry.expect("a case").path());
    let wrong: Vec<String> = files.filter_map(|case| differs(&case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a case gives, where that is not what it says.
fn differs(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).expect("a case");
    let mut case = Case::default();
    let mut got = String::new();
    for (heading, part) in parts(&text) {
        let part = case.part(heading, part);
        got.push_str(&format!("--- {heading}\n{}\n", part.trim_end_matches('\n')));
    }
    let same = got.split_whitespace().eq(text.split_whitespace()) && got.trim_end() == text.trim_end();
    if !same && std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(path, &got).expect("a writable case");
        return None;
    }
    (!same).then(|| format!("{}:\n{got}", path.display()))
}

fn parts(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("--- ").skip(1);
    parts
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .collect()
}

/// What a case has given so far.
#[derive(Default)]
struct Case {
    schema: String,
    change: String,
    lines: String,
    most: Option<u64>,
}

impl Case {
    /// The text of a part: as it is, if it is given, or as it comes out.
    fn part(&mut self, heading: &str, text: &str) -> String {
        let (word, rest) = heading.split_once(' ').unwrap_or((heading, ""));
        match word {
            "schema" => self.schema = text.into(),
            "change" => self.change = text.into(),
            "lines" => {
                self.lines = text.into();
                self.most = rest
                    .strip_prefix("max_errors=")
                    .map(|n| n.parse().expect("a number"));
            }
            _ => return self.made(word, rest),
        }
        text.into()
    }

    fn made(&self, what: &str, rest: &str) -> String {
        let schema = match LogSchema::parse("log.yaml", &self.schema) {
            Ok(schema) => schema,
            Err(problems) => return problems.0.iter().map(|d| d.render() + "\n").collect(),
        };
        let sql = |dialect| {
            let tables = schema.sql(true).into_iter();
            let tables = tables.map(|t| t.create(rest, dialect) + ";\n");
            tables.collect::<String>()
        };
        match what {
            "problems" => "none".into(),
            "warnings" => schema.warnings.iter().map(|d| d.to_string() + "\n").collect(),
            "written" => schema.write(),
            "redshift" => sql(Dialect::Redshift),
            "postgres" => sql(Dialect::Postgres),
            "arrow" => arrow_text(&schema),
            "rows" => self.rows(&schema),
            "evolution" => self.evolution(&schema, rest),
            "merged" => self.merged(&schema),
            other => panic!("no part of a case is named {other:?}"),
        }
    }

    fn rows(&self, schema: &LogSchema) -> String {
        let budget = Arc::new(Budget::new(self.most));
        let mut mapper = LogMapper::new(schema, "app/2026/11/23/a.log", START, budget);
        for line in self.lines.lines() {
            if let Err(e) = mapper.push_line(line.as_bytes()) {
                return format!("{:?}: {e}", e.class());
            }
        }
        let batches = mapper.finish().expect("batches");
        batches.iter().map(|(name, rows)| shown(name, rows)).collect()
    }

    fn evolution(&self, old: &LogSchema, namespace: &str) -> String {
        let new = LogSchema::parse("new.yaml", &self.change).unwrap_or_else(|e| panic!("{e}"));
        let mut all = Evolution::default();
        for table in new.sql(false) {
            if let Some(before) = old.sql(false).iter().find(|t| t.name == table.name) {
                let name = qualified(namespace, &table.name);
                all.append(evolve(before, Known::All, &table, &name, Dialect::Redshift));
            }
        }
        let part = |title: &str, lines: &[String]| -> String {
            lines.iter().map(|line| format!("{title} {line}\n")).collect()
        };
        let sql: Vec<String> = all.statements.into_iter().map(|s| s.sql).collect();
        part("sql", &sql) + &part("note", &all.notes) + &part("refused", &all.refused)
    }

    fn merged(&self, base: &LogSchema) -> String {
        let other = LogSchema::parse("new.yaml", &self.change).unwrap_or_else(|e| panic!("{e}"));
        let merged = merge::merge(base, &other);
        let notes: String = merged.notes.iter().map(|n| format!("# {n}\n")).collect();
        match merged.refused.as_slice() {
            [] => notes + &merged.tree.write(),
            refused => {
                notes
                    + &refused
                        .iter()
                        .map(|r| format!("refused {r}\n"))
                        .collect::<String>()
            }
        }
    }
}

fn arrow_text(schema: &LogSchema) -> String {
    let mut out = String::new();
    for (name, schema) in schema.arrow() {
        let sortkey = schema.metadata().get("sortkey").map_or("", String::as_str);
        out.push_str(&format!("{name} [{sortkey}]\n"));
        for field in schema.fields() {
            let null = if field.is_nullable() { "" } else { " not null" };
            let sql = &field.metadata()["sql"];
            let noop = if field.metadata().contains_key("noop") {
                ", noop"
            } else {
                ""
            };
            out.push_str(&format!(
                "  {} {}{null} ({sql}{noop})\n",
                field.name(),
                field.data_type()
            ));
        }
    }
    out
}

/// The rows of a table, one a line; texts in quotes, so that null, missing and "" differ.
fn shown(name: &str, rows: &RecordBatch) -> String {
    let mut out = format!("{name}\n");
    for row in 0..rows.num_rows() {
        let values = rows.schema_ref().fields().iter().zip(rows.columns());
        let values = values.filter(|(f, _)| {
            name != PIPELINE_ERRORS || !matches!(f.name().as_str(), "starttime" | "filename")
        });
        let values = values.map(|(field, column)| {
            let value = match (column.is_null(row), field.data_type()) {
                (true, _) => "null".to_owned(),
                (_, arrow::datatypes::DataType::Utf8) => {
                    format!("{:?}", array_value_to_string(column, row).expect("a value"))
                }
                _ => array_value_to_string(column, row).expect("a value"),
            };
            format!("{}={value}", field.name())
        });
        out.push_str(&format!("  {}\n", values.collect::<Vec<_>>().join(" ")));
    }
    out
}

#[test]
fn long_lines_are_cut_between_characters_and_kept_once() {
    let schema = "version: 1\ntables:\n  t:\n    src: l\n    src_type: list\n    columns:\n    - {log_key: value, sql_attr: int2}\n";
    let schema = LogSchema::parse("log.yaml", schema).expect("a schema");
    let budget = Arc::new(Budget::new(None));
    let mut mapper = LogMapper::new(&schema, "a.log", START, Arc::clone(&budget)).resume(7);
    let long = format!(
        "{{\"l\":[{}],\"x\":\"{}\"}}",
        ["99999"; 3].join(","),
        "é".repeat(65_535)
    );
    mapper.push_line(long.as_bytes()).expect("no budget");
    mapper.push_line(&[b'{', 0xff, 0, b'}']).expect("no budget");
    let batches = mapper.finish().expect("batches");
    assert_eq!(batches.len(), 1);
    let (name, rows) = &batches[0];
    let column = |name: &str| rows.column_by_name(name).expect("a column").clone();
    let text = |name: &str, row: usize| array_value_to_string(&column(name), row).expect("a value");
    assert_eq!(
        (name.as_str(), rows.num_rows(), budget.spent()),
        (PIPELINE_ERRORS, 4, 4)
    );
    assert_eq!(text("line_number", 0), "8");
    assert_eq!(text("line_number", 3), "9");
    let kept = text("raw_line", 0);
    assert!(
        long.starts_with(&kept) && (65_530..=65_535).contains(&kept.len()),
        "{}",
        kept.len()
    );
    assert!(column("raw_line").is_null(1) && column("raw_line").is_null(2));
    assert_eq!(text("raw_line", 3), "{\u{fffd}\u{fffd}}");
    assert_eq!(text("starttime", 0), "2026-11-23T12:00:00");
    assert_eq!(text("filename", 0), "a.log");
}
