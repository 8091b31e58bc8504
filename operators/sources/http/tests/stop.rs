//! The end of a process, in orders that a busy machine finds by itself.

use super::*;

/// A pipeline's stop and the server's come together, as SIGTERM brings them, while a batch is on its way to the disk:
/// the task that closes the source waits for that batch on the first lane, and is gone when that lane has ended.
#[tokio::test]
async fn a_source_that_is_being_closed_when_its_lane_ends_is_closed() {
    let house = House::new(Limits::default());
    let cx = house.context("impressions", impressions_options());
    let partition = partition_of(0);
    let log = LogOptions::new(house.dir.path().join(&partition.0));
    let log = Log::open(log, cx.schema.clone()).expect("a log");
    let mut frames = log.read(None);
    let logs = BTreeMap::from([(partition, log)]);
    let options = typed(&cx.options).expect("options");
    let endpoint = Endpoint::new("a test".into(), options, cx.schema.clone(), logs);
    let endpoint = Arc::new(endpoint);
    house
        .ingest
        .open(endpoint.clone(), cx.stop.clone())
        .expect("a free path");
    let on_its_way = endpoint.begin_batch();
    cx.stop.cancel();
    endpoint.closed.cancelled().await;
    let durable = async {
        // By then the lanes have no reason to stay.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(on_its_way);
    };
    futures::join!(house.ingest.shutdown(), durable);
    let end = tokio::time::timeout(Duration::from_secs(60), frames.next()).await;
    assert!(end.expect("an end").is_none());
}

/// After a restart clients are there before the pipeline has opened its sources: to them it is away, not unknown.
#[test]
fn a_source_that_is_still_to_come_asks_for_patience() {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let ingest = Ingest::start(listen, Limits::default(), &[PATH]).expect("a free port");
    for (path, status) in [(PATH, 503), ("/nothing", 404)] {
        let mut client = Client::connect(ingest.local_addr());
        client.send(&post(path, envelope(0..1)));
        let answer = client.receive().expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            status == 503,
            "{answer:?}"
        );
    }
}

/// A page that is left sends its beacon once: what has begun when the server stops is read to its end and answered.
#[tokio::test]
async fn a_request_that_has_begun_is_answered() {
    let house = House::new(Limits::default());
    let (_source, _stop) = house.open("impressions", impressions_options());
    let whole = post(PATH, envelope(0..1));
    let begun = [10, whole.len() - 5].map(|cut| {
        let mut client = house.client();
        // With the first answer it is known that the second request has come as far as that.
        client.send(&[&whole[..], &whole[..cut]].concat());
        assert_eq!(client.receive().expect("an answer").status, 200);
        (client, cut)
    });
    let rest = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (mut client, cut) in begun {
            client.send(&whole[cut..]);
            assert_eq!(client.receive().expect("an answer").status, 200, "cut at {cut}");
            assert!(client.receive().is_none(), "the server has stopped");
        }
    };
    futures::join!(house.ingest.shutdown(), rest);
}
