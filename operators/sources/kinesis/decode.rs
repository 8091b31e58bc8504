//! Records to batches of rows.
//!
//! Nothing that a record holds stops the stream: what is no row goes to the invalid rows, with where it stood
//! as `shard/sequence number[/place in the aggregate]/row`, counted from 0 in an aggregate, as the Kinesis
//! libraries do, and rows from 1.

use std::collections::VecDeque;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use millstream_engine::Result;
use millstream_engine::source::SourceBatch;
use millstream_engine::time::Timestamp;

use super::aggregate;
use super::position::Position;
use super::unpack::unpacked;
use crate::formats::json::Decoder;
use crate::sources::invalid::InvalidRows;

/// Rows and bytes after which a batch is closed: some milliseconds of work, so that barriers are not kept
/// waiting, and enough that a pass through the pipeline costs little beside it.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 4 << 20;

/// A record of a shard.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub sequence: String,
    pub arrived: Timestamp,
    pub data: Bytes,
}

/// Decodes the records of one shard.
pub(super) struct Decoding {
    shard: String,
    decoder: Decoder,
    invalid: InvalidRows,
}

impl Decoding {
    /// Rows of `schema`, which stand under the key `records`, if one is named.
    pub fn new(shard: &str, schema: SchemaRef, records: Option<String>) -> Result<Decoding> {
        Ok(Decoding {
            shard: shard.into(),
            decoder: Decoder::stamping_arrival(schema)?.enveloped(records),
            invalid: InvalidRows::default(),
        })
    }

    /// Takes records off the front of `records`, as many as make a batch; none if there are none.
    pub fn batch(&mut self, records: &mut VecDeque<Record>) -> Result<Option<SourceBatch>> {
        let mut last = None;
        while let Some(record) = records.pop_front() {
            self.take(&record);
            last = Some(record.sequence);
            if self.is_full() {
                break;
            }
        }
        last.map(|sequence| self.close(&Position::After(sequence)))
            .transpose()
    }

    /// A batch without rows: it says that the reader stands at `position` and is not idle.
    pub fn empty(&mut self, position: &Position) -> Result<SourceBatch> {
        self.close(position)
    }

    fn is_full(&self) -> bool {
        self.decoder.len() >= BATCH_ROWS || self.decoder.bytes() + self.invalid.bytes() >= BATCH_BYTES
    }

    fn close(&mut self, position: &Position) -> Result<SourceBatch> {
        Ok(SourceBatch {
            tables: Vec::new(),
            rows: self.decoder.finish()?,
            invalid: self.invalid.finish()?,
            offset: position.offset(),
        })
    }

    fn take(&mut self, record: &Record) {
        match aggregate::unpack(&record.data) {
            None => self.take_rows(record, None, &record.data),
            Some(Ok(all)) => {
                for (place, data) in all.iter().enumerate() {
                    self.take_rows(record, Some(place), data);
                }
            }
            Some(Err(reason)) => self.refuse(record, &[], &reason, &record.data),
        }
    }

    fn take_rows(&mut self, record: &Record, place: Option<usize>, data: &[u8]) {
        let body = match unpacked(data) {
            Ok(body) => body,
            Err(reason) => return self.refuse(record, place.as_slice(), &reason, data),
        };
        match self.decoder.decode(&body, record.arrived) {
            Ok(decoded) => {
                for row in decoded.failed {
                    let place: Vec<usize> = place.into_iter().chain([row.index + 1]).collect();
                    let reason = format!("{}: {}", row.error.code, row.error.message);
                    self.refuse(record, &place, &reason, &body[row.span]);
                }
            }
            Err(e) => self.refuse(record, place.as_slice(), &e.to_string(), &body),
        }
    }

    fn refuse(&mut self, record: &Record, place: &[usize], reason: &str, raw: &[u8]) {
        let mut origin = format!("{}/{}", self.shard, record.sequence);
        origin.extend(place.iter().map(|number| format!("/{number}")));
        self.invalid.push(record.arrived, &origin, reason, raw);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
    use millstream_engine::source::RECEIVED_AT;
    use millstream_engine::time::timestamp_type;

    use super::*;

    fn decoding(records: Option<&str>) -> Decoding {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new(RECEIVED_AT, timestamp_type(), false),
        ]));
        Decoding::new("s-1", schema, records.map(str::to_owned)).unwrap()
    }

    fn record(sequence: usize, data: &[u8]) -> Record {
        Record {
            sequence: sequence.to_string(),
            arrived: Timestamp(sequence as i64),
            data: Bytes::copy_from_slice(data),
        }
    }

    /// `n@received_at` of each row, `origin: reason` of what is none, and where reading goes on.
    fn text(batch: &SourceBatch) -> String {
        let numbers = batch.rows.column(0).as_primitive::<Int64Type>().values();
        let times = batch
            .rows
            .column(1)
            .as_primitive::<TimestampMicrosecondType>()
            .values();
        let rows = numbers.iter().zip(times).map(|(n, at)| format!("{n}@{at}"));
        let invalid = batch.invalid.iter().flat_map(|invalid| {
            let column = |name: &str| invalid.column_by_name(name).unwrap().as_string::<i32>();
            let (origins, reasons) = (column("origin"), column("reason"));
            let one = |at: usize| format!("{}: {}", origins.value(at), reasons.value(at));
            (0..invalid.num_rows()).map(one).collect::<Vec<_>>()
        });
        let mut all: Vec<String> = rows.chain(invalid).collect();
        all.push(batch.offset.0.clone());
        all.join("; ")
    }

    #[test]
    fn records_become_rows() {
        let gzip = zstd::encode_all(&b"{\"n\":1}\n{\"n\":2}"[..], 3).unwrap();
        let mut broken = aggregate::pack(&[b"{\"n\":1}"]);
        *broken.last_mut().unwrap() ^= 1;
        for (records, data, expect) in [
            (None, b"{\"n\":1}".to_vec(), "1@7; 7"),
            (None, b"[{\"n\":1},{\"n\":2}]".to_vec(), "1@7; 2@7; 7"),
            (None, gzip, "1@7; 2@7; 7"),
            (Some("rows"), b"{\"rows\":[{\"n\":1}]}".to_vec(), "1@7; 7"),
            (
                None,
                aggregate::pack(&[b"{\"n\":1}", b"", b"{\"n\":2}\n{\"n\":\"x\"}"]),
                "1@7; 2@7; s-1/7/1: invalid JSON",
            ),
            (
                None,
                broken,
                "s-1/7: an aggregate of the producer library whose checksum",
            ),
            (None, b"{\"n\":".to_vec(), "s-1/7: invalid JSON"),
            (
                None,
                b"{\"m\":1}\n{\"n\":2}".to_vec(),
                "2@7; s-1/7/1: missing_field",
            ),
            (None, vec![0x1F, 0x8B, 0], "s-1/7: it starts as gzip"),
            (
                Some("rows"),
                b"{\"n\":1}".to_vec(),
                "s-1/7: batch key \"rows\" not given",
            ),
        ] {
            let mut decoding = decoding(records);
            let mut waiting = VecDeque::from([record(7, &data)]);
            let batch = decoding.batch(&mut waiting).unwrap().unwrap();
            let got = text(&batch);
            assert!(
                got.starts_with(expect),
                "{}: {got}, not {expect}",
                data.escape_ascii()
            );
            assert!(got.ends_with("; 7"), "{got}");
        }
    }

    #[test]
    fn a_row_of_an_aggregate_is_named_by_its_place() {
        let data = aggregate::pack(&[b"{\"n\":1}", b"{\"n\":2}\n{\"n\":\"x\"}"]);
        let batch = decoding(None)
            .batch(&mut VecDeque::from([record(7, &data)]))
            .unwrap()
            .unwrap();
        let got = text(&batch);
        assert!(got.contains("s-1/7/1/2: "), "{got}");
    }

    #[test]
    fn batches_end_between_records() {
        let lines = "{\"n\":1}\n".repeat(BATCH_ROWS / 2);
        let mut waiting: VecDeque<Record> = (1..=5).map(|n| record(n, lines.as_bytes())).collect();
        let mut decoding = decoding(None);
        let mut seen = Vec::new();
        while let Some(batch) = decoding.batch(&mut waiting).unwrap() {
            seen.push((batch.rows.num_rows(), batch.offset.0));
        }
        let expect = [(8_192, "2"), (8_192, "4"), (4_096, "5")];
        assert_eq!(seen, expect.map(|(rows, at)| (rows, at.to_owned())));
    }
}
