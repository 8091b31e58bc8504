//! JSON to Arrow: ours beside arrow-json, on the same bytes, in the same run.
//!
//! `cargo bench --workspace --bench decode`

use std::hint::black_box;

use arrow::datatypes::SchemaRef;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_benches::shapes::{Shape, shaped};
use millstream_benches::{envelope, lines, schema};
use millstream_engine::time::Timestamp;
use millstream_operators::formats::json::Decoder;

const ROWS: usize = 500;

fn decode(c: &mut Criterion) {
    compare(c, "lines", schema(), &lines(ROWS), None);
    // arrow-json cannot read it: its part is of the same rows as lines.
    compare(c, "envelope", schema(), &envelope(ROWS), Some("impressions"));
    for shape in Shape::ALL {
        compare(c, shape.name(), shape.schema(), &shaped(shape, ROWS), None);
    }
}

fn compare(c: &mut Criterion, name: &str, schema: SchemaRef, body: &[u8], records: Option<&str>) {
    let mut group = c.benchmark_group(format!("decode/{name}"));
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("millstream", |b| {
        let mut decoder = Decoder::new(schema.clone())
            .expect("a schema we decode")
            .enveloped(records.map(str::to_owned));
        b.iter(|| ours(&mut decoder, body));
    });
    if records.is_none() {
        group.bench_function("arrow-json", |b| {
            let mut decoder = arrow_json::ReaderBuilder::new(schema.clone())
                .with_batch_size(ROWS)
                .build_decoder()
                .expect("a schema it decodes");
            b.iter(|| {
                decoder.decode(black_box(body)).expect("valid rows");
                decoder.flush().expect("valid rows").expect("a batch")
            });
        });
    }
    group.finish();
}

fn ours(decoder: &mut Decoder, body: &[u8]) -> arrow::array::RecordBatch {
    let decoded = decoder
        .decode(black_box(body), Timestamp(0))
        .expect("a valid body");
    assert!(decoded.failed.is_empty() && decoded.rows == ROWS);
    decoder.finish().expect("aligned columns")
}

criterion_group!(benches, decode);
criterion_main!(benches);
