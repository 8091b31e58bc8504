//! `ack = "delivered"`: who is answered when, and who in vain.

use super::*;

fn options(timeout: &str) -> Value {
    json!({"path": PATH, "records": "impressions", "ack": "delivered", "delivery_timeout": timeout})
}

/// Reads `rows` rows and gives where reading would resume.
async fn read(source: &Arc<dyn Source>, rows: usize) -> Offsets {
    let mut streams = Vec::new();
    let partitions = source.partitions(&Offsets::new()).await.expect("partitions").open;
    for (partition, _) in partitions {
        let batches = source.read(&partition, None);
        streams.push(
            batches
                .map(move |batch| (partition.clone(), batch.expect("rows")))
                .boxed(),
        );
    }
    let mut all = futures::stream::select_all(streams);
    let (mut read, mut offsets) = (0, Offsets::new());
    while read < rows {
        let (partition, batch) = all.next().await.expect("an open stream");
        read += batch.rows.num_rows();
        offsets.insert(partition, batch.offset);
    }
    offsets
}

/// Answers on a thread of its own, as its client waits for them.
fn answers(mut client: Client) -> tokio::sync::oneshot::Receiver<Option<u16>> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(client.receive().map(|a| a.status)));
    answer
}

#[tokio::test]
async fn a_request_is_answered_when_its_rows_are_delivered() {
    let house = House::new(Limits::default());
    let (source, stop) = house.open("impressions", options("300s"));
    let mut client = house.client();
    client.send(&post(PATH, envelope(0..2)));
    let mut first = answers(client);
    let offsets = read(&source, 2).await;
    // Long enough for an answer that should not be given, were it given.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut first).await;
    assert!(
        early.is_err(),
        "answered before its rows were delivered: {early:?}"
    );
    source.delivered(&offsets).await.expect("it is told");
    assert_eq!(first.await.expect("an answer"), Some(200));
    // What is all bad is nowhere to be delivered to, but for its dead letters.
    let mut client = house.client();
    client.send(&post(PATH, "{\"impressions\":[]}"));
    assert_eq!(answers(client).await.expect("an answer"), Some(400));
    // An orderly stop waits for no delivery: the pipeline has still to make it.
    let mut client = house.client();
    client.send(&post(PATH, envelope(2..3)));
    let last = answers(client);
    read(&source, 3).await;
    stop.cancel();
    let (rows, _) = read_all(&source).await;
    assert_eq!(ids(&rows), [0, 1, 2]);
    source
        .delivered(&read(&source, 3).await)
        .await
        .expect("it is told");
    assert_eq!(last.await.expect("an answer"), Some(200));
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let house = House::new(Limits::default());
    let (source, _) = house.open("impressions", options("1s"));
    for id in 0..10 {
        assert_eq!(house.status(&post(PATH, envelope(id..id + 1))), 503);
    }
    drop(source);
    // Each lane let one in, and no other before that is through.
    let (source, stop) = house.open("impressions", options("1s"));
    stop.cancel();
    let rows = read_all(&source).await.0.num_rows();
    assert!((1..=2).contains(&rows), "{rows} rows were let in");
    drop(source);

    let (source, _) = house.open("impressions", options("300s"));
    let mut client = house.client();
    client.send(&post(PATH, envelope(1..2)));
    let waiting = answers(client);
    read(&source, rows + 1).await;
    // A pipeline that fails takes its source with it.
    drop(source);
    assert_eq!(waiting.await.expect("an answer"), Some(503));
}

#[tokio::test]
async fn what_was_overdue_lets_others_in_when_it_is_through() {
    let house = House::new(Limits::default());
    let (source, _) = house.open("impressions", options("1s"));
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 503);
    let deliver = async {
        for rows in 1.. {
            let offsets = read(&source, rows).await;
            source.delivered(&offsets).await.expect("it is told");
        }
    };
    let send = async {
        let mut status = 503;
        while status != 200 {
            let mut client = house.client();
            client.send(&post(PATH, envelope(1..2)));
            status = answers(client).await.expect("an answer").expect("an answer");
        }
    };
    // The test ends by the harness if this does not.
    tokio::select! {
        () = deliver => {}
        () = send => {}
    }
}

#[tokio::test]
async fn so_many_requests_wait_and_no_more() {
    let house = House::new(Limits {
        awaiting_delivery: 1,
        ..Limits::default()
    });
    let (source, _) = house.open("impressions", options("300s"));
    // One for each lane, and one too many, on whichever lane it lands.
    let all: Vec<_> = (0..3)
        .map(|id| {
            let mut client = house.client();
            client.send(&post(PATH, envelope(id..id + 1)));
            answers(client)
        })
        .collect();
    let (turned_away, _, rest) = futures::future::select_all(all).await;
    assert_eq!(turned_away.expect("an answer"), Some(503));
    drop(source);
    for waiting in rest {
        assert_eq!(waiting.await.expect("an answer"), Some(503));
    }
}

/// The log is gone with its disk; the checkpoint, kept elsewhere, says how far it had come.
#[tokio::test]
async fn a_lost_log_goes_on_from_the_checkpoint_whoever_is_waiting() {
    let house = House::expecting(&[PATH], Limits::default());
    let cx = house.context("impressions", impressions_options());
    let source = HttpConnector::new(house.ingest.clone()).open(cx);
    let source = source.expect("a source");
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 503, "let in too early");
    let known = [0, 1].map(|lane| (partition_of(lane), Offset("500".into())));
    let known = Offsets::from(known);
    let partitions = source.partitions(&known).await.expect("partitions");
    assert_eq!(house.status(&post(PATH, envelope(1..2))), 200);
    let streams = partitions.open.into_iter().map(|(partition, from)| {
        assert_eq!(from, Some(Offset("500".into())));
        source.read(&partition, from)
    });
    let mut all = futures::stream::select_all(streams);
    let batch = all.next().await.expect("an open stream").expect("rows");
    assert_eq!(ids(&batch.rows), [1]);
    assert_eq!(batch.offset, Offset("501".into()));
}
