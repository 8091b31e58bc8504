//! Queries that must be refused, with the words and the place: `cases/refused.sql`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::timestamp_type;
use millstream_engine::window::Window;

use super::DataFusionPlanner;

fn tables() -> Vec<SqlTable> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("ad_id", DataType::Utf8, true),
        Field::new("user_id", DataType::Utf8, false),
        Field::new("occurred_at", timestamp_type(), false),
    ]));
    let table = |name: &str, window: Option<Window>| SqlTable {
        name: name.to_owned(),
        schema: Arc::clone(&schema),
        event_time: 2,
        window,
        lateness: None,
    };
    let tumbling = |seconds| Window::Tumbling {
        size: Duration::from_secs(seconds),
        offset: Duration::ZERO,
    };
    let session = Window::Session {
        gap: Duration::from_secs(1),
        key: vec!["user_id".to_owned()],
    };
    vec![
        table("impressions", None),
        table("clicks", None),
        table("impressions_by_minute", Some(tumbling(60))),
        table("clicks_by_minute", Some(tumbling(60))),
        table("clicks_by_hour", Some(tumbling(3600))),
        table("sessions", Some(session)),
    ]
}

/// The query without its «marks», and what they marked.
fn unmark(text: &str) -> (String, Option<Range<usize>>) {
    let start = text.find('«');
    let plain = text.replace('«', "");
    let end = plain.find('»');
    (
        plain.replace('»', ""),
        start.zip(end).map(|(start, end)| start..end),
    )
}

#[test]
fn refused_queries() {
    let tables = tables();
    let mut wrong = Vec::new();
    for case in include_str!("cases/refused.sql").split("-- case: ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a name and a query");
        let (text, says) = rest.split_once("-- says: ").expect("what is said");
        let (query, at) = unmark(text.trim_end());
        let says = says.trim();
        let request = SqlRequest {
            name: "case",
            query: &query,
            emit_empty: false,
            state_limit: Bytes(1 << 30),
            tables: &tables,
        };
        match DataFusionPlanner::new().plan(&request) {
            Ok(_) => wrong.push(format!("{name}: was not refused")),
            Err(errors) => {
                let first = &errors[0];
                if !first.message.contains(says) || (at.is_some() && first.at != at) {
                    let place = first.at.clone().map(|at| &query[at]);
                    wrong.push(format!(
                        "{name}: {:?} at {:?} {place:?}, not {says:?} at {at:?}",
                        first.message, first.at
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_unknown_table_is_reported() {
    let tables = tables();
    let request = SqlRequest {
        name: "case",
        query: "SELECT now() FROM impresions_by_minute, cliks_by_minute",
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    };
    let errors = DataFusionPlanner::new().plan(&request).err().expect("refused");
    let messages: Vec<_> = errors.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(errors.len(), 3, "{messages:#?}");
}
