//! `GET /advertising/traffic/{ad-id}?start=&end=&limit=&page=`: an ad's impressions and clicks by day.
//!
//! Public, next to the paths that take beacons, and on the admin address. Days are read from the serving table, which a
//! pipeline writes: columns `ad_id`, `day`, `impressions`, `clicks`, key `(ad_id, day)`. It is looked for at each
//! request, so it may appear later; until then the answer is 404. A store that does not answer is a 503.

mod dynamodb;
mod request;
mod sqlite;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{NaiveDate, Utc};
use millstream_operators::aws::AwsOptions;
use millstream_operators::sources::http::{ReadAnswer, Reads};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use self::request::{Page, Refusal};

/// What every path begins with; the ad follows.
pub const PREFIX: &str = "/advertising/traffic/";

/// The table that is read unless another is named.
const TABLE: &str = "traffic";

/// An ad's counts of one day.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    day: NaiveDate,
    impressions: i64,
    clicks: i64,
}

/// Where days are read from.
#[async_trait]
pub trait Store: Send + Sync {
    /// The first `limit` days of an ad from `page.first` to `page.last`, ascending.
    async fn days(&self, page: &Page, limit: usize) -> Result<Vec<Day>, Refusal>;
}

/// The store that `--serve` names; by default, the embedded one in the data directory.
pub async fn store(serve: Option<&str>, serving: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let serve = serve.unwrap_or("sqlite");
    let (place, query) = serve.split_once('?').unwrap_or((serve, ""));
    if let Some(table) = place
        .strip_prefix("dynamodb://")
        .filter(|table| !table.is_empty())
    {
        let options = AwsOptions::from_query(query)?;
        options.check()?;
        return Ok(Arc::new(dynamodb::Table::open(table, &options).await?));
    }
    let file = match place {
        "sqlite" => serving.to_path_buf(),
        _ => match place.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            None => anyhow::bail!(
                "--serve {serve:?}: write sqlite, sqlite://FILE?table=NAME or dynamodb://TABLE?region=REGION"
            ),
        },
    };
    let table = match query.strip_prefix("table=") {
        Some(table) => table,
        None if query.is_empty() => TABLE,
        None => {
            anyhow::bail!("--serve {serve:?}: behind the ? of sqlite stands table=NAME, and nothing else")
        }
    };
    Ok(Arc::new(sqlite::File {
        path: file,
        table: table.into(),
    }))
}

/// The reads of the ingest server.
pub fn reads(store: Arc<dyn Store>, on: Handle) -> Reads {
    Reads::new(PREFIX, on, move |uri| {
        let store = store.clone();
        Box::pin(async move { answer(store.as_ref(), &uri, today()).await })
    })
}

/// The route of the admin API.
pub fn routes<S: Clone + Send + Sync + 'static>(store: Arc<dyn Store>) -> Router<S> {
    Router::new()
        .route(&format!("{PREFIX}{{ad}}"), get(respond))
        .with_state(store)
}

async fn respond(State(store): State<Arc<dyn Store>>, uri: Uri) -> Response {
    let (status, body) = answer(store.as_ref(), &uri, today()).await;
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn today() -> NaiveDate {
    Utc::now().date_naive()
}

async fn answer(store: &dyn Store, uri: &Uri, today: NaiveDate) -> ReadAnswer {
    match page(store, uri, today).await {
        Ok(body) => (StatusCode::OK, body.to_string()),
        Err(Refusal { status, message }) => (status, json!({ "error": message }).to_string()),
    }
}

async fn page(store: &dyn Store, uri: &Uri, today: NaiveDate) -> Result<Value, Refusal> {
    let page = Page::parse(uri, today)?;
    // One more tells whether there is a next page.
    let mut days = store.days(&page, page.limit + 1).await?;
    let more = days.len() > page.limit;
    days.truncate(page.limit);
    let next = days.last().filter(|_| more).map(|last| page.next_after(last.day));
    let days: Vec<Value> = days.iter().map(Day::json).collect();
    Ok(json!({ "count": days.len(), "next": next, "days": days }))
}

impl Day {
    fn json(&self) -> Value {
        let rate = (self.impressions > 0).then(|| self.clicks as f64 / self.impressions as f64);
        json!({
            "day": self.day.to_string(),
            "impressions": self.impressions,
            "clicks": self.clicks,
            "clickthrough_rate": rate,
        })
    }
}
