//! JSON to Arrow: ours beside arrow-json, on the same bytes, in the same run.
//!
//! `cargo bench --bench decode`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_benches::{envelope, lines, schema};
use millstream_engine::time::Timestamp;
use millstream_operators::formats::json::Decoder;

const ROWS: usize = 500;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode/lines");
    let body = lines(ROWS);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("millstream", |b| {
        let mut decoder = Decoder::new(schema()).expect("a schema we decode");
        b.iter(|| ours(&mut decoder, &body));
    });
    group.bench_function("arrow-json", |b| {
        let mut decoder = arrow_json::ReaderBuilder::new(schema())
            .with_batch_size(ROWS)
            .build_decoder()
            .expect("a schema it decodes");
        b.iter(|| {
            decoder.decode(black_box(&body)).expect("valid rows");
            decoder.flush().expect("valid rows").expect("a batch")
        });
    });
    group.finish();

    let mut group = c.benchmark_group("decode/envelope");
    let body = envelope(ROWS);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("millstream", |b| {
        let mut decoder = Decoder::new(schema())
            .expect("a schema we decode")
            .enveloped(Some("impressions".into()));
        b.iter(|| ours(&mut decoder, &body));
    });
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
