//! Files that are large enough to be sent while they grow: whatever happens to the process and to the upload, the lake
//! ends with the rows of the checkpoint, each once, and with no upload left over.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use millstream_engine::sink::Committable;
use millstream_operators::aws::AwsOptions;

use super::*;

/// Rows of each of the first three checkpoints, 16 bytes each: together more than two parts of 8 MiB.
const STEP: i64 = 400_000;

/// What happens to an upload between the death of one process and the start of the next.
type Happening = fn(Client, Upload) -> BoxFuture<'static, ()>;
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An upload as the checkpoint names it.
#[derive(Clone)]
struct Upload {
    key: String,
    id: String,
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_uploads() {
    let nothing: Happening = |_, _| Box::pin(async {});
    let aborted: Happening = |s3, upload| Box::pin(async move { abort(&s3, &upload).await });
    // S3 refuses to complete it: a part is not the one that was sent.
    let overwritten: Happening = |s3, upload| {
        Box::pin(async move {
            let part = s3.upload_part().bucket("lake").key(&upload.key);
            let part = part.upload_id(&upload.id).part_number(1);
            let sent = part.body(ByteStream::from_static(b"somebody else's")).send();
            sent.await.unwrap();
        })
    };
    // The last process died between the beginning of uploads and the checkpoint that would have named them: one more
    // to the same file, one to a file that was opened after the checkpoint.
    let unknown: Happening = |s3, upload| {
        Box::pin(async move {
            let later = upload.key.replace("-0.parquet", "-7.parquet");
            assert_ne!(later, upload.key);
            for key in [&upload.key, &later, "uploads/foreign.parquet"] {
                let create = s3.create_multipart_upload().bucket("lake").key(key);
                create.send().await.unwrap();
            }
        })
    };
    for (name, happening, ended) in [
        ("killed", nothing, 0),
        ("aborted", aborted, 0),
        ("overwritten", overwritten, 0),
        ("unknown", unknown, 1),
    ] {
        recovers(name, happening, ended).await;
    }
    closes_in_order().await;
    falls_back().await;
}

/// Killed with an upload under way; recovered twice, the second time as after a death between completion and
/// the removal of the staged file.
async fn recovers(name: &str, happening: Happening, ended: u64) {
    let disk = TempDir::new().unwrap();
    let cx = lake(name, &disk);
    let (mut sink, epoch, what) = growing(&cx).await;
    sink.write(numbers(3 * STEP..4 * STEP)).await.unwrap();
    drop(sink);
    let s3 = client().await;
    happening(s3.clone(), upload_of(&what).expect("an upload")).await;

    let staged = disk.path().join("staging");
    let file = only_file(&staged);
    let copy = disk.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    let open = async || ParquetConnector.open(cx.clone()).await.unwrap();
    open().await.commit(Epoch(epoch), what.clone()).await.unwrap();
    assert_eq!(cx.counters.get("files_published"), 1, "{name}");
    assert_eq!(cx.counters.get("uploads_ended"), ended, "{name}");
    assert_eq!(std::fs::read_dir(&staged).unwrap().count(), 0, "{name}");
    let first = etag(&s3, name).await;

    std::fs::rename(&copy, &file).unwrap();
    open().await.commit(Epoch(epoch), what).await.unwrap();
    assert_eq!(etag(&s3, name).await, first, "{name}");
    assert_eq!(std::fs::read_dir(&staged).unwrap().count(), 0, "{name}");
}

/// Without a crash the upload becomes the object: only the tail is sent at the end.
async fn closes_in_order() {
    let disk = TempDir::new().unwrap();
    let cx = lake("closed", &disk);
    let (sink, epoch, what) = growing(&cx).await;
    let begun = upload_of(&what).expect("an upload").id;
    finish(sink, epoch + 1).await;
    let s3 = client().await;
    // Whoever completes it again gets the object, so it was this one that was completed.
    let parts = aws_sdk_s3::types::CompletedMultipartUpload::builder().build();
    let key = only_key(&s3, "closed").await;
    let again = s3.complete_multipart_upload().bucket("lake").key(key);
    let again = again.upload_id(begun).multipart_upload(parts).send().await;
    assert_eq!(again.unwrap().e_tag, Some(etag(&s3, "closed").await));
}

/// The newest checkpoint, which closed and published the file, cannot be read: the one before names an upload that
/// was completed since, with more in it.
async fn falls_back() {
    let disk = TempDir::new().unwrap();
    let cx = lake("back", &disk);
    let (mut sink, epoch, what) = growing(&cx).await;
    sink.write(numbers(3 * STEP..4 * STEP)).await.unwrap();
    finish(sink, epoch + 1).await;
    let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
    sink.commit(Epoch(epoch), what).await.unwrap();
}

/// A sink with an open file of `3 * STEP` rows, the last checkpoint, and what that promises: an upload that holds two
/// parts.
async fn growing(cx: &SinkContext) -> (Box<dyn Sink>, u64, Committable) {
    let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
    let mut epoch = 0;
    loop {
        if epoch < 3 {
            let from = epoch as i64 * STEP;
            sink.write(numbers(from..from + STEP)).await.unwrap();
        }
        epoch += 1;
        let what = sink.prepare(barrier(epoch, false)).await.unwrap();
        sink.commit(Epoch(epoch), what.clone()).await.unwrap();
        let parts = what.0["open"][0]["upload"]["parts"]
            .as_array()
            .map_or(0, Vec::len);
        if epoch >= 3 && parts == 2 {
            return (sink, epoch, what);
        }
        assert!(epoch < 10_000, "no part is sent: {}", what.0);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn upload_of(what: &Committable) -> Option<Upload> {
    let open = &what.0["open"][0];
    let lake = what.0["path"].as_str()?.strip_prefix("s3://lake/")?;
    Some(Upload {
        key: format!("{lake}/{}", open["key"].as_str()?),
        id: open["upload"]["id"].as_str()?.into(),
    })
}

/// Rows whose numbers encode to eight bytes each.
pub fn numbers(n: std::ops::Range<i64>) -> RecordBatch {
    let t = TimestampMicrosecondArray::from_iter_values(n.clone().map(scatter));
    let n = Int64Array::from_iter_values(n.map(scatter));
    RecordBatch::try_new(rows(0..0).schema(), vec![Arc::new(t), Arc::new(n)]).unwrap()
}

/// What Python must find below each prefix: number and sum.
pub fn expected() -> Value {
    let of = |rows: i64| json!({ "rows": rows, "sum": (0..rows).map(scatter).sum::<i64>() });
    let mut all = json!({});
    for name in ["killed", "aborted", "overwritten", "unknown", "closed", "back"] {
        all[name] = of(3 * STEP);
    }
    all
}

/// How Python finds it, and which uploads are left.
pub const FOUND: &str = "lakes = {}
for o in s3.list_objects_v2(Bucket='lake', Prefix='uploads/')['Contents']:
    name = o['Key'].split('/')[1]
    assert name not in lakes, o['Key']
    n = parquet.read_table(io.BytesIO(s3.get_object(Bucket='lake', Key=o['Key'])['Body'].read())).column('n')
    lakes[name] = {'rows': len(n), 'sum': pc.sum(n).as_py()}
left = [u['Key'] for u in s3.list_multipart_uploads(Bucket='lake').get('Uploads', [])]
out({'lakes': lakes, 'left': left})";

fn lake(name: &str, disk: &TempDir) -> SinkContext {
    let path = format!("s3://lake/uploads/{name}");
    let options = json!({ "path": path, "partition_by": [], "compression": "none" });
    context(rows(0..0), disk.path(), options)
}

async fn client() -> Client {
    millstream_operators::aws::s3(&AwsOptions::default())
        .await
        .unwrap()
}

async fn abort(s3: &Client, upload: &Upload) {
    let abort = s3.abort_multipart_upload().bucket("lake").key(&upload.key);
    abort.upload_id(&upload.id).send().await.unwrap();
}

async fn only_key(s3: &Client, name: &str) -> String {
    let list = s3.list_objects_v2().bucket("lake");
    let found = list.prefix(format!("uploads/{name}/")).send().await.unwrap();
    let [object] = found.contents() else {
        panic!("{name}: {:?}", found.contents());
    };
    object.key().unwrap().into()
}

async fn etag(s3: &Client, name: &str) -> String {
    let key = only_key(s3, name).await;
    let head = s3.head_object().bucket("lake").key(key).send().await.unwrap();
    head.e_tag.unwrap()
}

fn only_file(dir: &std::path::Path) -> PathBuf {
    let mut files = std::fs::read_dir(dir).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}
