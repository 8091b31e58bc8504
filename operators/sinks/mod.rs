//! Sinks, one file or directory each, and the little they share: finding the columns that options name,
//! rows as JSON lines, and the name under which one life of a sink publishes.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::WriterBuilder;
use millstream_engine::sink::{Committable, SinkContext};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod cloudwatch;
pub mod console;
mod disk;
pub mod dynamodb;
pub mod firehose;
pub mod http;
pub mod kinesis;
mod outbox;
pub mod parquet;
mod puts;
pub mod redshift;
mod rejected;
mod row_outbox;
pub mod sqlite;
mod values;

/// Every timestamp is UTC, so its JSON form says so; the Arrow type carries no zone.
const JSON_TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// The column that option `key` names.
fn column<'a>(cx: &'a SinkContext, key: &str, name: &str) -> Result<(usize, &'a Field)> {
    cx.schema.column_with_name(name).ok_or_else(|| {
        let known = cx.schema.fields().iter().map(|f| f.name().as_str());
        Error::config(format!(
            "{key}: stream {:?} has no column {name:?}; {}",
            cx.input,
            suggest(name, known)
        ))
    })
}

/// As [`column`], for one whose type must satisfy `fits`; `wanted` says in words what that is.
fn column_of(
    cx: &SinkContext,
    key: &str,
    name: &str,
    wanted: &str,
    fits: fn(&Field) -> bool,
) -> Result<usize> {
    let (index, field) = column(cx, key, name)?;
    if fits(field) {
        return Ok(index);
    }
    Err(Error::config(format!(
        "{key}: column {name:?} of stream {:?} is {}, not {wanted}; cast it in the query",
        cx.input,
        field.data_type()
    )))
}

/// `did you mean "x"?` where a known name is near, else the list of them.
pub(crate) fn suggest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> String {
    /// Below this similarity (0 to 1) a suggestion confuses more than it helps.
    const NEAR: f64 = 0.6;
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|k| {
            (
                strsim::normalized_damerau_levenshtein(&typed.to_lowercase(), &k.to_lowercase()),
                k,
            )
        })
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("did you mean {name:?}?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Refuses a kind of sink in a dated run, whose output a later run of the date must be able to replace.
fn only_streams(cx: &SinkContext, kind: &str, does: &str) -> Result<()> {
    match cx.run {
        None => Ok(()),
        Some(_) => Err(Error::config(format!(
            "type: a {kind} sink {does}, so a date that is run again would be in it twice; in a pipeline with a \
             [schedule] write type = \"parquet\", \"dynamodb\", \"sqlite\" or \"redshift\", which replace the date"
        ))),
    }
}

/// Appends `rows` as JSON, one object per line, nulls spelled out.
fn write_ndjson(rows: &RecordBatch, to: &mut impl Write) -> Result<()> {
    let mut writer: LineDelimitedWriter<_> = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_format(JSON_TIMESTAMP.into())
        .build(to);
    writer.write(&in_utc(rows)?)?;
    Ok(writer.finish()?)
}

/// The rows with the zone of their timestamps in the types: the text is the same as by [`JSON_TIMESTAMP`], which is for
/// timestamps within other columns, and no format string is read for each.
fn in_utc(rows: &RecordBatch) -> Result<RecordBatch> {
    let plain = timestamp_type();
    if rows.schema_ref().fields().iter().all(|f| f.data_type() != &plain) {
        return Ok(rows.clone());
    }
    let column = |(field, column): (&Arc<Field>, &ArrayRef)| {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let Some(times) = times.filter(|_| field.data_type() == &plain) else {
            return (field.clone(), column.clone());
        };
        let times = times.clone().with_timezone("+00:00");
        let field = field.as_ref().clone().with_data_type(times.data_type().clone());
        (Arc::new(field), Arc::new(times) as ArrayRef)
    };
    let all = rows.schema_ref().fields().iter().zip(rows.columns()).map(column);
    let (fields, columns): (Vec<_>, Vec<_>) = all.unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// What a sink promises, as it stands in the checkpoint.
fn promise(what: &impl Serialize) -> Result<Committable> {
    let json = serde_json::to_value(what).map_err(|e| Error::bug(format!("a sink's promise: {e}")))?;
    Ok(Committable(json))
}

/// Reads a promise back; none from a sink that had nothing to promise.
fn promised<T: DeserializeOwned>(what: Committable, cx: &SinkContext) -> Result<Option<T>> {
    serde_json::from_value(what.0).map_err(|e| {
        Error::config(format!(
            "the last checkpoint of sink {:?} was made by another kind of sink: {e}; give this one a new name",
            cx.name
        ))
    })
}

/// Names one life of a sink: from the moment it starts without a checkpoint, through every recovery, until
/// its checkpoints are deleted. Epochs count from the start again in the next life, so what is published
/// under an epoch carries the series too, and a new life never overwrites what an earlier one published.
fn new_series() -> String {
    format!("{:x}", Timestamp::now().0)
}

/// A context for testing a sink on its own.
#[cfg(test)]
fn test_context(
    schema: arrow::datatypes::SchemaRef,
    data_dir: &std::path::Path,
    options: serde_json::Value,
) -> SinkContext {
    let event_time = schema
        .fields()
        .iter()
        .position(|f| *f.data_type() == millstream_engine::time::timestamp_type());
    SinkContext {
        run: None,
        pipeline: "ads".into(),
        name: "out".into(),
        input: "rows".into(),
        schema,
        event_time,
        options,
        data_dir: data_dir.into(),
        counters: millstream_engine::metrics::Counters::detached(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::run::DatedRun;
    use millstream_engine::sink::SinkConnector;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_adds_is_refused_in_a_dated_run() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", timestamp_type(), false)]));
        let to = |more: serde_json::Value| test_context(schema.clone(), "/nowhere".as_ref(), more);
        let count = json!([{ "name": "N", "value": "t" }]);
        let cases: [(&dyn SinkConnector, serde_json::Value, &str); 3] = [
            (
                &cloudwatch::CloudwatchConnector,
                json!({ "namespace": "N", "metrics": count }),
                "a cloudwatch sink adds to its metrics",
            ),
            (
                &kinesis::KinesisSinkConnector,
                json!({ "stream": "s" }),
                "a kinesis sink appends to its stream",
            ),
            (
                &firehose::FirehoseConnector,
                json!({ "delivery_stream": "s" }),
                "a firehose sink appends to its files",
            ),
        ];
        for (connector, options, says) in cases {
            let mut cx = to(options);
            let streaming = connector.check(&cx).map_err(|e| e.to_string());
            assert!(streaming.err().is_none_or(|e| !e.contains(says)));
            cx.run = Some(DatedRun {
                date: "2026-11-24".parse().unwrap(),
                attempt: 1,
            });
            let error = connector.check(&cx).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("\"parquet\""), "{error}");
        }
    }
}
