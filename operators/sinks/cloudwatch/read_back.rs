//! Which datapoints has CloudWatch got already? Asked where it is not known whether a request went through.
//!
//! PutMetricData knows no idempotency: the same datapoint sent twice counts twice. So the number of values that each
//! metric has in each period is read back, and a datapoint is there when its period holds its values. Requests are
//! sent in order, so where a period holds some of several datapoints, it holds the first of them.
//!
//! What this cannot tell apart is who sent a value. It is exact where a metric, with its dimensions, has one datapoint
//! a period, as a windowed query makes; where other datapoints fall into the same minute, one that was not sent may
//! pass for sent. And CloudWatch shows datapoints that were more than three hours old when they were sent only after
//! two hours, and after two days those that were a day old: such ones may be sent twice.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat, StandardUnit, StatusCode,
};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::OLDEST;
use super::points::Point;
use crate::aws;

/// Queries of one request: the limit of GetMetricData.
const REQUEST_QUERIES: usize = 500;

/// Seconds of a period, where CloudWatch keeps no finer ones.
const MINUTE: i64 = 60;

/// CloudWatch keeps periods of seconds for three hours; less a quarter for the clocks and the way there.
const SECONDS_KEPT: Duration = Duration::from_secs(165 * 60);

/// Values are counted in floating point.
const ROUNDING: f64 = 1e-9;

/// One line of datapoints in CloudWatch: metric, unit, dimensions.
type Series<'a> = (&'a str, &'a str, &'a [(String, String)]);

/// The number of values, by series (as numbered by [`Asked`]) and start of period.
type Found = HashMap<(usize, i64), f64>;

/// What is asked for.
struct Asked<'a> {
    /// Seconds.
    period: i64,
    series: BTreeMap<Series<'a>, usize>,
    /// First second, and the one after the last.
    range: (i64, i64),
}

/// Those of the points that CloudWatch does not show.
pub(super) async fn missing(
    client: &Client,
    namespace: &str,
    high_resolution: bool,
    points: &[Point],
) -> Result<Vec<Point>> {
    let Some(asked) = Asked::about(points, high_resolution, Timestamp::now()) else {
        return Ok(points.to_vec());
    };
    let mut found = Found::new();
    let series: Vec<(&Series<'_>, &usize)> = asked.series.iter().collect();
    for some in series.chunks(REQUEST_QUERIES) {
        let queries = some
            .iter()
            .map(|(series, number)| query(namespace, series, **number, asked.period));
        let mut pages = client
            .get_metric_data()
            .set_metric_data_queries(Some(queries.collect()))
            .start_time(DateTime::from_secs(asked.range.0))
            .end_time(DateTime::from_secs(asked.range.1))
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page
                .map_err(|e| aws::classify(e, format!("reading metrics of namespace {namespace:?} back")))?;
            for result in page.metric_data_results() {
                add(result, namespace, &mut found)?;
            }
        }
    }
    Ok(asked.missing(points, found))
}

fn query(namespace: &str, series: &Series<'_>, number: usize, period: i64) -> MetricDataQuery {
    let (metric, unit, dimensions) = series;
    let dimensions = dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(name).value(value).build());
    let metric = Metric::builder()
        .namespace(namespace)
        .metric_name(*metric)
        .set_dimensions(Some(dimensions.collect()));
    let stat = MetricStat::builder()
        .metric(metric.build())
        .period(i32::try_from(period).unwrap_or(i32::MAX))
        .stat("SampleCount")
        .unit(StandardUnit::from(*unit));
    MetricDataQuery::builder()
        .id(format!("q{number}"))
        .metric_stat(stat.build())
        .build()
}

fn add(result: &MetricDataResult, namespace: &str, to: &mut Found) -> Result<()> {
    let place = || format!("reading metrics of namespace {namespace:?} back");
    match result.status_code() {
        // Of partial data, the rest is on the next page.
        None | Some(StatusCode::Complete | StatusCode::PartialData) => {}
        Some(StatusCode::Forbidden) => {
            return Err(
                Error::config("no permission; allow the action cloudwatch:GetMetricData").within(place()),
            );
        }
        Some(other) => return Err(Error::retry(format!("status {other}")).within(place())),
    }
    let number = result.id().and_then(|id| id.strip_prefix('q')?.parse().ok());
    let number: usize =
        number.ok_or_else(|| Error::retry("a result without its query's id").within(place()))?;
    for (at, count) in result.timestamps().iter().zip(result.values()) {
        *to.entry((number, at.secs())).or_default() += count;
    }
    Ok(())
}

impl<'a> Asked<'a> {
    /// None if there are no points that CloudWatch would take.
    fn about(points: &'a [Point], high_resolution: bool, now: Timestamp) -> Option<Asked<'a>> {
        let oldest = now.minus(OLDEST);
        let points = points.iter().filter(|p| p.at > oldest);
        let times = || points.clone().map(|p| p.at);
        let (first, last) = (times().min()?, times().max()?);
        let seconds = high_resolution && first > now.minus(SECONDS_KEPT);
        let mut asked = Asked {
            period: if seconds { 1 } else { MINUTE },
            series: BTreeMap::new(),
            range: (0, 0),
        };
        asked.range = (asked.start(first), asked.start(last) + asked.period);
        for point in points {
            let next = asked.series.len();
            asked.series.entry(series(point)).or_insert(next);
        }
        Some(asked)
    }

    /// Start of the period, seconds since the epoch.
    fn start(&self, at: Timestamp) -> i64 {
        at.0.div_euclid(1_000_000).div_euclid(self.period) * self.period
    }

    fn missing(&self, points: &[Point], mut found: Found) -> Vec<Point> {
        let absent = |point: &&Point| {
            let Some(number) = self.series.get(&series(point)) else {
                return true;
            };
            let place = (*number, self.start(point.at));
            let there = found.entry(place).or_default();
            let enough = *there + ROUNDING >= point.samples();
            if enough {
                *there -= point.samples();
            }
            !enough
        };
        points.iter().filter(absent).cloned().collect()
    }
}

fn series(of: &Point) -> Series<'_> {
    (&of.metric, &of.unit, &of.dimensions)
}

#[cfg(test)]
mod tests {
    use super::super::points::Value;
    use super::*;

    const NOW: i64 = 1_795_474_800;

    /// A point `ago` seconds before now; a set where it stands for more than one value.
    fn point(metric: &str, ad: &str, ago: i64, samples: f64) -> Point {
        let value = match samples {
            1.0 => Value::Single(7.0),
            sample_count => Value::Statistics {
                sample_count,
                sum: 0.0,
                minimum: 0.0,
                maximum: 0.0,
            },
        };
        Point {
            metric: metric.into(),
            unit: "Count".into(),
            at: Timestamp((NOW - ago) * 1_000_000),
            dimensions: vec![("Ad".into(), ad.into())],
            value,
        }
    }

    /// `found`: metric, ad, seconds before now at which the period starts, values. Gives the missing points' indices.
    fn check(points: &[Point], found: &[(&str, &str, i64, f64)], high_resolution: bool, expect: &[usize]) {
        let asked = Asked::about(points, high_resolution, Timestamp(NOW * 1_000_000)).unwrap();
        let mut seen = Found::new();
        for (metric, ad, ago, samples) in found {
            let dimensions = [("Ad".to_string(), ad.to_string())];
            let number = asked.series[&(*metric, "Count", dimensions.as_slice())];
            seen.insert((number, NOW - ago), *samples);
        }
        let expect: Vec<Point> = expect.iter().map(|i| points[*i].clone()).collect();
        assert_eq!(asked.missing(points, seen), expect);
    }

    #[test]
    fn a_point_is_there_when_its_period_holds_its_values() {
        let two = [point("A", "x", 60, 1.0), point("A", "y", 60, 1.0)];
        check(&two, &[], false, &[0, 1]);
        check(&two, &[("A", "y", 60, 1.0)], false, &[0]);
        check(&two, &[("A", "x", 60, 1.0), ("A", "y", 60, 2.0)], false, &[]);
        check(&two, &[("A", "x", 120, 1.0), ("A", "y", 0, 1.0)], false, &[0, 1]);
        let set = [point("A", "x", 60, 10.0)];
        check(&set, &[("A", "x", 60, 9.0)], false, &[0]);
        check(&set, &[("A", "x", 60, 10.0)], false, &[]);
        let same_minute = [
            point("A", "x", 60, 1.0),
            point("A", "x", 20, 1.0),
            point("A", "x", 10, 1.0),
        ];
        check(&same_minute, &[("A", "x", 60, 2.0)], false, &[2]);
    }

    #[test]
    fn seconds_are_told_apart_while_cloudwatch_keeps_them() {
        let young = [point("A", "x", 60, 1.0), point("A", "x", 59, 1.0)];
        check(&young, &[("A", "x", 59, 1.0)], true, &[0]);
        let old = [point("A", "x", 14_400, 1.0), point("A", "x", 14_399, 1.0)];
        check(&old, &[("A", "x", 14_400, 2.0)], true, &[]);
    }
}
