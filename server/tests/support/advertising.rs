//! Impressions and clicks for the daily pipelines, what they are to make of them, and how they are driven.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Launch, Millstream, PATIENCE, free_port, get, log, now_seconds, pause, post, root};

/// Seconds.
pub const DAY: i64 = 86_400;

/// Dates that are made, oldest first.
pub const DATES: i64 = 4;

/// Their numbers.
pub const ALL: [i64; 4] = [0, 1, 2, 3];

const ADS: i64 = 5;

/// Everything that was sent.
#[derive(Default)]
pub struct Sent {
    impressions: Vec<Impression>,
    clicks: Vec<Click>,
}

#[derive(Clone)]
struct Impression {
    id: String,
    ad: String,
    at: i64,
}

#[derive(Clone)]
struct Click {
    id: String,
    impression: String,
    ad: String,
    at: i64,
}

/// Midnight of the first date.
fn first_date() -> i64 {
    (now_seconds() / DAY - 10) * DAY
}

pub fn date(number: i64) -> String {
    utc(first_date() + number * DAY)[..10].into()
}

impl Sent {
    /// Rows of one life, in order of time: impressions through the days, clicks after seconds, after hours and past
    /// midnight, clicks of nothing, and rows that are sent again.
    pub fn life(life: i64) -> Sent {
        let mut sent = Sent::default();
        for n in 0..DATES * 40 {
            // Ever denser towards midnight, where it matters.
            let at = first_date() + n / 40 * DAY + DAY - 1 - (39 - n % 40).pow(2) * 50;
            let ad = format!("00000000-0000-0000-0000-00000000000{}", (n + life) % ADS);
            let impression = Impression {
                id: format!("i{life}-{n}"),
                ad: ad.clone(),
                at,
            };
            let click = |id: String, after: i64| Click {
                id,
                impression: impression.id.clone(),
                ad: ad.clone(),
                at: at + after,
            };
            match n % 7 {
                0 => sent.clicks.push(click(format!("c{life}-{n}"), 1)),
                1 => sent.clicks.push(click(format!("c{life}-{n}"), 7 * 3600)),
                // Twice, and once too late.
                2 => sent.clicks.extend([
                    click(format!("c{life}-{n}"), 3),
                    click(format!("c{life}-{n}-2"), DAY),
                    click(format!("c{life}-{n}-3"), DAY + 1),
                ]),
                3 => sent.clicks.push(Click {
                    impression: "unknown".into(),
                    ..click(format!("c{life}-{n}"), 0)
                }),
                4 => sent.clicks.push(Click {
                    ad: format!("11111111-0000-0000-0000-00000000000{life}"),
                    ..click(format!("c{life}-{n}"), 9)
                }),
                _ => {}
            }
            sent.impressions.push(impression);
        }
        sent.impressions.push(sent.impressions[17].clone());
        sent.clicks.push(sent.clicks[11].clone());
        sent.impressions.sort_by_key(|row| row.at);
        sent.clicks.sort_by_key(|row| row.at);
        sent
    }

    pub fn add(&mut self, other: Sent) {
        self.impressions.extend(other.impressions);
        self.clicks.extend(other.clicks);
    }

    /// The rows of `advertising` of the dates.
    pub fn advertising(&self, dates: &[i64]) -> Value {
        let clicks: BTreeMap<&str, &Click> = self.clicks.iter().map(|c| (c.id.as_str(), c)).collect();
        let mut rows = BTreeSet::new();
        for i in &self.impressions {
            let number = (i.at - first_date()).div_euclid(DAY);
            if !dates.contains(&number) {
                continue;
            }
            let mut row = |click: Option<&Click>| {
                let at = click.map_or(String::new(), |c| spaced(c.at));
                let id = click.map(|c| c.id.clone());
                rows.insert((date(number), i.ad.clone(), i.id.clone(), id, spaced(i.at), at));
            };
            let of = clicks
                .values()
                .filter(|c| c.impression == i.id && c.ad == i.ad && (i.at..=i.at + DAY).contains(&c.at));
            let of: Vec<&&Click> = of.collect();
            of.iter().for_each(|click| row(Some(click)));
            if of.is_empty() {
                row(None);
            }
        }
        json!(rows)
    }

    /// The rows of `impressions` of the dates: impression, ad, time.
    pub fn distinct_impressions(&self, dates: &[i64]) -> Value {
        let rows = self.impressions.iter().filter(|i| is_of(dates, i.at));
        let rows: BTreeSet<_> = rows.map(|i| (&i.id, &i.ad, spaced(i.at))).collect();
        json!(rows)
    }

    /// The rows of `clicks` of the dates: impression, click, ad, time.
    pub fn distinct_clicks(&self, dates: &[i64]) -> Value {
        let rows = self.clicks.iter().filter(|c| is_of(dates, c.at));
        let rows: BTreeSet<_> = rows
            .map(|c| (&c.impression, &c.id, &c.ad, spaced(c.at)))
            .collect();
        json!(rows)
    }

    /// The rows of `traffic` of the dates: ad, day, impressions, clicks.
    pub fn traffic(&self, dates: &[i64]) -> Value {
        let mut ids: BTreeMap<(String, i64), [BTreeSet<&str>; 2]> = BTreeMap::new();
        for i in &self.impressions {
            note(&mut ids, dates, &i.ad, i.at, 0, &i.id);
        }
        for c in &self.clicks {
            note(&mut ids, dates, &c.ad, c.at, 1, &c.id);
        }
        let rows = ids
            .iter()
            .map(|((ad, number), [i, c])| json!([ad, date(*number), i.len(), c.len()]));
        rows.collect()
    }
}

type Ids<'a> = BTreeMap<(String, i64), [BTreeSet<&'a str>; 2]>;

fn note<'a>(ids: &mut Ids<'a>, dates: &[i64], ad: &str, at: i64, kind: usize, id: &'a str) {
    let number = (at - first_date()).div_euclid(DAY);
    if dates.contains(&number) {
        ids.entry((ad.into(), number)).or_default()[kind].insert(id);
    }
}

fn is_of(dates: &[i64], at: i64) -> bool {
    dates.contains(&(at - first_date()).div_euclid(DAY))
}

/// As Python prints a time.
fn spaced(at: i64) -> String {
    utc(at).replace('T', " ")[..19].into()
}

fn utc(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sends rows to the streaming pipeline, which is in another place each time, and stops it: they are in the lake then.
pub fn into_the_lake(sent: &Sent, pipeline: &str, env: &[(String, String)]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = root().join("pipelines").join(pipeline).display().to_string();
    let it = Millstream::start(&Launch {
        dir: dir.path(),
        pipeline: &file,
        port: free_port(),
        env: env.to_vec(),
    });
    let impression =
        |i: &Impression| json!({ "impression_id": i.id, "ad_id": i.ad, "occurred_at": utc(i.at) });
    let click = |c: &Click| json!({ "impression_id": c.impression, "click_id": c.id, "ad_id": c.ad, "occurred_at": utc(c.at) });
    let impressions: Vec<Value> = sent.impressions.iter().map(impression).collect();
    let clicks: Vec<Value> = sent.clicks.iter().map(click).collect();
    for (kind, rows) in [("impressions", impressions), ("clicks", clicks)] {
        for some in rows.chunks(100) {
            let (status, said) = post(
                &it.ingest,
                &format!("/advertising/{kind}"),
                &json!({ kind: some }).to_string(),
            );
            assert_eq!(
                (status, said.contains("\"failed_count\":0")),
                (200, true),
                "{said}"
            );
        }
    }
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
}

/// Writes the daily pipeline into a directory, with a schedule of the dates and what `changes` say.
pub fn write(dir: &Path, name: &str, changes: &[(&str, &str)]) -> String {
    let schedule = format!(
        "available_after = \"49h\"\nstart = \"{}\"\nend = \"{}\"\nretry = {{ first = \"1s\", longest = \"2s\" }}",
        date(0),
        date(DATES - 1)
    );
    let text = std::fs::read_to_string(root().join("pipelines").join(name)).expect("the pipeline is there");
    let first = [("available_after = \"49h\"", schedule.as_str())];
    let text = first.iter().chain(changes).fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from}");
        text.replace(from, to)
    });
    let file = dir.join(name);
    std::fs::write(&file, text).expect("a writable directory");
    file.display().to_string()
}

/// The runs of a pipeline, by date.
pub fn runs(it: &Millstream, pipeline: &str) -> BTreeMap<String, Value> {
    let (status, body) = get(&it.admin, &format!("/v1/runs/{pipeline}"));
    assert_eq!(status, 200, "{body}");
    let all: Value = serde_json::from_str(&body).expect("the API answers with JSON");
    let runs = all["runs"].as_array().expect("a list of runs").iter();
    runs.map(|run| (run["date"].as_str().expect("a date").into(), run.clone()))
        .collect()
}

/// Waits until all dates are loaded.
pub fn wait_until_loaded(it: &Millstream, dir: &Path, pipeline: &str) {
    let started = Instant::now();
    loop {
        let runs = runs(it, pipeline);
        let is_loaded = |number| {
            runs.get(&date(number))
                .is_some_and(|run| run["status"] == "load_success")
        };
        if (0..DATES).all(is_loaded) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{runs:?}; it logged:\n{}", log(dir));
        pause(Duration::from_millis(50));
    }
}

/// Has dates made again, from the shell.
pub fn backfill(it: &Millstream, pipeline: &str, from: i64, to: i64) {
    let (from, to) = (date(from), date(to));
    let done = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["runs", "backfill", pipeline, "--from", &from, "--to", &to])
        .args(["--admin", it.admin.trim_start_matches("http://")])
        .output()
        .expect("the binary runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains(&from) && said.contains(&to), "{said}");
}
