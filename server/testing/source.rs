//! A source of rows in memory: one partition, one batch per row, offset = rows read so far.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceConnector, SourceContext, Tables,
};
use millstream_engine::{Error, Result};
use millstream_operators::formats::json::decode_rows;

/// The rows of a test, decoded as the source's connector would.
pub struct Rows {
    schema: SchemaRef,
    rows: Vec<(RecordBatch, Tables)>,
}

impl Rows {
    /// Decodes the rows; the first that does not fit the schema is named by its number, from 1.
    pub fn new(schema: SchemaRef, rows: &[BTreeMap<String, toml::Value>]) -> Result<Rows> {
        let all = decode(schema.clone(), rows)?;
        let rows = (0..all.num_rows()).map(|row| (all.slice(row, 1), Tables::new()));
        Ok(Rows {
            schema,
            rows: rows.collect(),
        })
    }

    /// The rows as lines, of which the connector makes rows of its tables.
    pub fn of_tables(
        connector: &dyn SourceConnector,
        cx: &SourceContext,
        rows: &[BTreeMap<String, toml::Value>],
    ) -> Result<Rows> {
        let lines: Vec<String> = rows.iter().map(|row| json(row).to_string()).collect();
        let none = RecordBatch::new_empty(cx.schema.clone());
        let tables = connector.tables_of(cx, &lines)?;
        Ok(Rows {
            schema: cx.schema.clone(),
            rows: tables.into_iter().map(|tables| (none.clone(), tables)).collect(),
        })
    }
}

#[async_trait]
impl Source for Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        Ok(Partitions::fixed([PartitionId("test".into())], read))
    }

    fn read(&self, _: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        let read = match from.map_or(Ok(0), |Offset(read)| read.parse::<usize>()) {
            Ok(read) => read,
            Err(e) => {
                return stream::iter([Err(Error::bug(format!("offset of a test source: {e}")))]).boxed();
            }
        };
        let rest: Vec<_> = self.rows.iter().cloned().enumerate().skip(read).collect();
        let batch = |(n, (rows, tables)): (usize, (RecordBatch, Tables))| SourceBatch {
            tables,
            rows,
            invalid: None,
            offset: Offset((n + 1).to_string()),
        };
        stream::iter(rest).map(move |row| Ok(batch(row))).boxed()
    }

    async fn commit(&self, _: &Offsets) -> Result<()> {
        Ok(())
    }
}

/// The rows of a test as one batch; the first that does not fit the schema is named by its number, from 1.
pub fn decode(schema: SchemaRef, rows: &[BTreeMap<String, toml::Value>]) -> Result<RecordBatch> {
    decode_rows(schema, &rows.iter().map(json).collect::<Vec<_>>())
}

fn json(row: &BTreeMap<String, toml::Value>) -> serde_json::Value {
    row.iter().map(|(k, v)| (k.clone(), json_value(v))).collect()
}

/// TOML's times become text: JSON has none.
fn json_value(of: &toml::Value) -> serde_json::Value {
    use toml::Value::*;
    match of {
        String(text) => text.as_str().into(),
        Integer(n) => (*n).into(),
        Float(x) => (*x).into(),
        Boolean(b) => (*b).into(),
        Datetime(at) => at.to_string().into(),
        Array(all) => all.iter().map(json_value).collect(),
        Table(inner) => inner.iter().map(|(k, v)| (k.clone(), json_value(v))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_becomes_json() {
        let row: BTreeMap<String, toml::Value> = toml::from_str(
            "at = 2026-11-23T12:00:00Z\nlocal = 2026-11-23 12:00:00\nn = 1\nx = 0.5\nok = true\ns = \"a\"\nl = [1, \"b\"]",
        )
        .expect("toml");
        let expect = serde_json::json!({"at": "2026-11-23T12:00:00Z", "local": "2026-11-23T12:00:00",
            "n": 1, "x": 0.5, "ok": true, "s": "a", "l": [1, "b"]});
        assert_eq!(json(&row), expect);
    }
}
