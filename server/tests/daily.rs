//! `pipelines/advertising-daily.toml` through the real binary: beacons come in over HTTP, lie in the lake, and are made
//! the impressions with their clicks and the traffic of each date. A run that is made again replaces the date, wherever it
//! was killed; one that is made again from the same rows changes nothing.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::advertising::{ALL, DATES, Sent, backfill, date, into_the_lake, wait_until_loaded, write};
use support::proxy::{self, Proxy};
use support::{Aws, Launch, Millstream, free_port, get, log, pause, python_json};

#[test]
fn a_date_that_is_made_again_is_replaced_wherever_the_process_was_killed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let lake = dir.path().join("lake");
    let name = "advertising-daily";
    let pipeline = write(dir.path(), "advertising-daily.toml", &[]);
    let env = vec![("LAKE".to_string(), lake.display().to_string())];
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: env.clone(),
    };
    let advertising = || {
        python_json(
            "daily.py",
            &[&lake.join("advertising").display().to_string()],
            &[],
        )
    };
    let store = dir.path().join("data/serving.db").display().to_string();
    let query = "SELECT ad_id, day, impressions, clicks FROM traffic ORDER BY ad_id, day";
    let traffic = || python_json("sqlite.py", &[&store, query], &[]);

    let mut sent = Sent::life(0);
    into_the_lake(&sent, "advertising.toml", &env);
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), name);
    assert_eq!(advertising()["rows"], sent.advertising(&ALL));
    assert_eq!(traffic(), sent.traffic(&ALL));

    // More rows of the same dates; killed at any moment, several times.
    let more = Sent::life(1);
    into_the_lake(&more, "advertising.toml", &env);
    sent.add(more);
    backfill(&it, name, 0, DATES - 1);
    it.kill();
    for life in 0..5 {
        let it = Millstream::start(&launch);
        pause(Duration::from_millis(150 * life));
        it.kill();
    }
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), name);
    let (rows, files) = (advertising()["rows"].clone(), advertising()["files"].clone());
    assert_eq!(rows, sent.advertising(&ALL));
    assert_eq!(traffic(), sent.traffic(&ALL));
    let is_of_a_date = |file: &Value| {
        let name = file
            .as_str()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        ALL.iter()
            .any(|n| name == format!("advertising-daily-lake-{}-0.parquet", date(*n)))
    };
    assert!(
        files
            .as_array()
            .is_some_and(|all| all.len() == 4 && all.iter().all(is_of_a_date)),
        "{files}"
    );

    // Again from the same rows.
    backfill(&it, name, 0, DATES - 1);
    wait_until_loaded(&it, dir.path(), name);
    assert_eq!(advertising(), json!({ "rows": rows, "files": files }));
    assert_eq!(traffic(), sent.traffic(&ALL));

    // A date that has no rows any more.
    let gone = date(1);
    for table in ["impressions", "clicks"] {
        let day = format!(
            "{table}/year={}/month={}/day={}",
            &gone[..4],
            &gone[5..7],
            &gone[8..]
        );
        std::fs::remove_dir_all(lake.join(day)).expect("the directory of the day");
    }
    backfill(&it, name, 1, 1);
    wait_until_loaded(&it, dir.path(), name);
    assert_eq!(advertising()["rows"], sent.advertising(&[0, 2, 3]));
    assert_eq!(traffic(), sent.traffic(&[0, 2, 3]));
    served(&it, &sent.traffic(&[0, 2, 3]));
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
}

/// What the runs have made is what whoever asks for an ad gets, of every ad: with clicks, without, and with clicks only.
fn served(it: &Millstream, traffic: &Value) {
    let mut ads: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for row in traffic.as_array().expect("rows") {
        let ad = row[0].as_str().expect("an ad");
        let day = json!({ "day": row[1], "impressions": row[2], "clicks": row[3] });
        ads.entry(ad).or_default().push(day);
    }
    let mut seen = [0; 2];
    for (ad, days) in ads {
        let path = format!(
            "/advertising/traffic/{ad}?start={}&end={}",
            date(0),
            date(DATES - 1)
        );
        let (status, said) = get(&it.admin, &path);
        assert_eq!(status, 200, "{said}");
        let mut said: Value = serde_json::from_str(&said).expect("JSON");
        for (day, expect) in said["days"].as_array_mut().expect("days").iter_mut().zip(&days) {
            let both = [&expect["clicks"], &expect["impressions"]].map(|n| n.as_f64().unwrap_or(0.0));
            let rate = day
                .as_object_mut()
                .and_then(|day| day.remove("clickthrough_rate"));
            let rate = rate.unwrap_or_default();
            match both {
                [_, 0.0] => assert!(rate.is_null(), "{rate}"),
                [clicks, impressions] => assert_eq!(rate.as_f64(), Some(clicks / impressions)),
            }
            seen[usize::from(both[1] > 0.0)] += 1;
        }
        assert_eq!(said["days"], Value::Array(days));
    }
    assert!(
        seen.iter().all(|days| *days > 0),
        "days without impressions, and with: {seen:?}"
    );
}

#[test]
fn on_aws_a_date_is_replaced_in_s3_dynamodb_and_the_catalog_whatever_goes_wrong() {
    let aws = Aws::start();
    for (script, args) in [
        ("bucket.py", ["lake", "", "", ""].as_slice()),
        ("catalog.py", ["database", "advertising", "", ""].as_slice()),
        (
            "dynamodb.py",
            ["create", "traffic", "ad_id:S", "day:S"].as_slice(),
        ),
    ] {
        let args: Vec<&str> = args.iter().filter(|arg| !arg.is_empty()).copied().collect();
        python_json(script, &args, &aws.env);
    }
    let proxy = Proxy::start(&aws.endpoint, proxy::NOW_AND_THEN);
    let throttled = Proxy::start(&aws.endpoint, proxy::THROTTLED);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "advertising-daily-aws";
    let pipeline = write(dir.path(), "advertising-daily-aws.toml", &[]);
    let mut env = aws.env.clone();
    env.push(("LAKE_BUCKET".into(), "lake".into()));
    let well = env.clone();
    env.push(("AWS_ENDPOINT_URL".into(), proxy.url.clone()));
    env.push(("AWS_ENDPOINT_URL_DYNAMODB".into(), throttled.url.clone()));
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env,
    };
    let advertising = || python_json("daily.py", &["s3://lake/advertising"], &aws.env)["rows"].clone();
    let traffic = || {
        let items = python_json("dynamodb.py", &["scan", "traffic"], &aws.env);
        let number = |item: &Value, name: &str| item[name]["N"].as_str().and_then(|n| n.parse::<u64>().ok());
        let row = |item: &Value| {
            let row = json!([
                item["ad_id"]["S"],
                item["day"]["S"],
                number(item, "impressions"),
                number(item, "clicks")
            ]);
            (row.to_string(), row)
        };
        let rows: BTreeMap<String, Value> = items
            .as_array()
            .expect("a list of items")
            .iter()
            .map(row)
            .collect();
        rows.into_values().collect::<Value>()
    };

    let mut sent = Sent::life(0);
    into_the_lake(&sent, "advertising-aws.toml", &well);
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), name);
    assert_eq!(advertising(), sent.advertising(&ALL));
    assert_eq!(traffic(), sent.traffic(&ALL));

    // Of the first life nothing stays but what the lake holds: ads that are no more leave the table.
    let more = Sent::life(1);
    into_the_lake(&more, "advertising-aws.toml", &well);
    sent.add(more);
    backfill(&it, name, 0, DATES - 1);
    it.kill();
    for life in 0..4 {
        let it = Millstream::start(&launch);
        pause(Duration::from_millis(400 * life));
        it.kill();
    }
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), name);
    assert_eq!(advertising(), sent.advertising(&ALL));
    assert_eq!(traffic(), sent.traffic(&ALL));
    assert!(
        proxy.spoilt() > 5 && throttled.spoilt() > 5,
        "too few requests went wrong"
    );
    drop(it);
}
