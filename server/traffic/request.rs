//! What is asked for, and why it is refused.

use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{Days, NaiveDate};
use serde::Deserialize;
use uuid::Uuid;

/// Days of a page at most, and unless fewer are asked for.
const LIMIT: usize = 100;

/// Characters of an ad's id: a UUID with its dashes.
const AD_CHARS: usize = 36;

/// A request that gets no days.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
}

impl Refusal {
    /// The store is there, and cannot answer now.
    pub fn unavailable(what: impl std::fmt::Display) -> Refusal {
        tracing::warn!("the serving store does not answer: {what}");
        Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "the serving store does not answer; try again later".into(),
        }
    }

    /// There is no store, or not one that can be read.
    pub fn missing(message: impl Into<String>) -> Refusal {
        Refusal {
            status: StatusCode::NOT_FOUND,
            message: message.into(),
        }
    }
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        message: message.into(),
    }
}

/// A page of an ad's days.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub ad: String,
    /// The first day that may be in it.
    pub first: NaiveDate,
    /// The last one, of this page and those after it.
    pub last: NaiveDate,
    pub limit: usize,
}

#[derive(Deserialize)]
struct Parameters {
    start: Option<String>,
    end: Option<String>,
    limit: Option<String>,
    page: Option<String>,
}

impl Page {
    /// Reads path and query. Days are inclusive; the default of both is `today`.
    pub fn parse(uri: &Uri, today: NaiveDate) -> Result<Page, Refusal> {
        let ad = uri.path().rsplit('/').next().unwrap_or_default();
        if ad.len() != AD_CHARS || Uuid::try_parse(ad).is_err() {
            return Err(wrong(format!("ad id {ad:?} is not a UUID")));
        }
        let Query(asked) = Query::<Parameters>::try_from_uri(uri)
            .map_err(|e| wrong(format!("the query string cannot be read: {}", e.body_text())))?;
        let start = date("start", asked.start.as_deref(), today)?;
        let last = date("end", asked.end.as_deref(), today)?;
        if start > last {
            return Err(wrong(format!("start {start} is after end {last}")));
        }
        let limit = match asked.limit.as_deref() {
            None => LIMIT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LIMIT) => limit,
                _ => return Err(wrong(format!("limit {text:?} is not a number from 1 to {LIMIT}"))),
            },
        };
        let first = match asked.page.as_deref() {
            None => start,
            Some(text) => after(text, ad, start, last)?,
        };
        Ok(Page {
            ad: ad.into(),
            first,
            last,
            limit,
        })
    }

    /// The cursor of the page that follows the one that ends with `day`.
    pub fn next_after(&self, day: NaiveDate) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {day}", self.ad))
    }
}

fn date(name: &str, text: Option<&str>, today: NaiveDate) -> Result<NaiveDate, Refusal> {
    let Some(text) = text else {
        return Ok(today);
    };
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    // The parser also takes 2026-1-2, and years of other lengths.
    day.filter(|day| day.to_string() == text)
        .ok_or_else(|| wrong(format!("{name} {text:?} is not a date; write YYYY-MM-DD")))
}

/// The day after the one that a cursor names.
fn after(cursor: &str, ad: &str, start: NaiveDate, last: NaiveDate) -> Result<NaiveDate, Refusal> {
    let unreadable = || wrong(format!("page {cursor:?} is not one that was given as next"));
    let text = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| unreadable())?;
    let text = String::from_utf8(text).map_err(|_| unreadable())?;
    let (of, day) = text.split_once(' ').ok_or_else(unreadable)?;
    let day: NaiveDate = day.parse().map_err(|_| unreadable())?;
    if of != ad {
        return Err(wrong(format!("page {cursor:?} is of another ad")));
    }
    if !(start..=last).contains(&day) {
        return Err(wrong(format!(
            "page {cursor:?} is not of the days {start} to {last}"
        )));
    }
    day.checked_add_days(Days::new(1)).ok_or_else(unreadable)
}
