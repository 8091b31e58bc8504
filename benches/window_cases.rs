//! The queries of `window`: as they stand in a pipeline, and for batch DataFusion over all rows at once, written
//! as someone would who knows it well.

use std::time::Duration;

use millstream_engine::window::Window;

use crate::minutes;

/// What is measured.
pub struct Case {
    pub name: &'static str,
    /// Rows of the first table.
    pub rows: usize,
    pub ads: usize,
    /// Event time they are spread over.
    pub seconds: i64,
    pub window: fn() -> Window,
    /// Tables, and every how many rows of the first they have one.
    pub tables: &'static [(&'static str, usize)],
    pub windowed: &'static str,
    pub batch: &'static str,
}

impl Case {
    /// Rows of all tables.
    pub fn taken(&self) -> usize {
        self.tables.iter().map(|(_, every)| self.rows / every).sum()
    }
}

fn by_minute() -> Window {
    Window::Tumbling {
        size: minutes(1),
        offset: Duration::ZERO,
    }
}

fn hours_by_minute() -> Window {
    Window::Hopping {
        size: minutes(60),
        slide: minutes(1),
        offset: Duration::ZERO,
    }
}

fn sessions_per_ad() -> Window {
    Window::Session {
        gap: Duration::from_secs(20),
        key: vec!["ad_id".into()],
    }
}

const MILLION: usize = 1_000_000;
const PER_AD: &str = "SELECT ad_id, count(*) AS n FROM w GROUP BY ad_id";
const PER_AD_BATCH: &str =
    "SELECT date_trunc('minute', occurred_at) AS at, ad_id, count(*) AS n FROM w GROUP BY 1, 2";
const ONE: &[(&str, usize)] = &[("w", 1)];

/// In the order of the table. The queries of Nexmark go here, too, each with its batch form.
pub const CASES: [Case; 7] = [
    Case {
        name: "count per minute",
        rows: MILLION,
        ads: 1_000,
        seconds: 300,
        window: by_minute,
        tables: ONE,
        windowed: "SELECT window_start() AS at, count(*) AS n FROM w",
        batch: "SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM w GROUP BY 1",
    },
    Case {
        name: "clickthrough per minute",
        rows: MILLION,
        ads: 1_000,
        seconds: 300,
        window: by_minute,
        tables: &[("impressions", 1), ("clicks", 3)],
        windowed: "SELECT window_start() AS at, i.n AS n, c.n AS clicks, c.n / CAST(i.n AS DOUBLE) AS clickthrough
            FROM (SELECT count(*) AS n FROM impressions) i CROSS JOIN (SELECT count(*) AS n FROM clicks) c",
        batch: "SELECT i.at, i.n AS n, c.n AS clicks, c.n / CAST(i.n AS DOUBLE) AS clickthrough
            FROM (SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM impressions GROUP BY 1) i
            JOIN (SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM clicks GROUP BY 1) c USING (at)",
    },
    Case {
        name: "count per minute and ad, 1,000 ads",
        rows: MILLION,
        ads: 1_000,
        seconds: 300,
        window: by_minute,
        tables: ONE,
        windowed: PER_AD,
        batch: PER_AD_BATCH,
    },
    Case {
        name: "count per minute and ad, 1,000,000 ads",
        rows: MILLION,
        ads: MILLION,
        seconds: 300,
        window: by_minute,
        tables: ONE,
        windowed: PER_AD,
        batch: PER_AD_BATCH,
    },
    Case {
        name: "count(distinct) per minute, 1,000,000 ads",
        rows: MILLION,
        ads: MILLION,
        seconds: 300,
        window: by_minute,
        tables: ONE,
        windowed: "SELECT window_start() AS at, count(DISTINCT ad_id) AS n FROM w",
        batch: "SELECT date_trunc('minute', occurred_at) AS at, count(DISTINCT ad_id) AS n FROM w GROUP BY 1",
    },
    Case {
        // In batch each minute is counted once, too, and then added to its sixty windows.
        name: "count per ad, 60 minutes every minute, 16 ads",
        rows: 2 * MILLION,
        ads: 16,
        seconds: 7_200,
        window: hours_by_minute,
        tables: ONE,
        windowed: "SELECT window_start() AS at, ad_id, count(*) AS n FROM w GROUP BY ad_id",
        batch: "WITH by_minute AS (
                SELECT date_trunc('minute', occurred_at) AS minute, ad_id, count(*) AS n FROM w GROUP BY 1, 2
            ), by_window AS (
                SELECT CAST(minute AS BIGINT) - back * 60000000 AS at, ad_id, n
                FROM (SELECT minute, ad_id, n, unnest(range(0, 60)) AS back FROM by_minute)
            )
            SELECT at, ad_id, CAST(sum(n) AS BIGINT) AS n FROM by_window GROUP BY 1, 2",
    },
    Case {
        name: "count per session of an ad, gap 20 s, 100,000 ads",
        rows: MILLION,
        ads: 100_000,
        seconds: 300,
        window: sessions_per_ad,
        tables: ONE,
        windowed: "SELECT ad_id, window_start AS at, count(*) AS n FROM w GROUP BY ad_id, window_start",
        batch: "WITH firsts AS (
                SELECT ad_id, occurred_at, CASE WHEN occurred_at - lag(occurred_at) OVER per_ad < INTERVAL '20 seconds'
                    THEN 0 ELSE 1 END AS first
                FROM w WINDOW per_ad AS (PARTITION BY ad_id ORDER BY occurred_at)
            ), numbered AS (
                SELECT ad_id, occurred_at, sum(first) OVER (PARTITION BY ad_id ORDER BY occurred_at) AS session
                FROM firsts
            )
            SELECT ad_id, min(occurred_at) AS at, count(*) AS n FROM numbered GROUP BY ad_id, session",
    },
];
