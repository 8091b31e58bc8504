//! Queries over whatever columns a stream has.
//!
//! Only what has one right answer: no order that ties leave open, no arithmetic that may overflow.

use rand::Rng;
use rand::rngs::StdRng;

use super::stream::{Kind, Stream, TABLES};

/// A query over the stream.
pub fn query(stream: &Stream, random: &mut StdRng) -> String {
    let mut generator = Generator { stream, random };
    match generator.random.random_range(0..9) {
        0..3 => generator.groups(),
        3 => generator.grouping_sets(),
        4 => generator.rows(),
        5 => generator.ranked(),
        6 => generator.joined_groups(),
        7 => generator.joined_rows(),
        _ => generator.united(),
    }
}

struct Generator<'a> {
    stream: &'a Stream,
    random: &'a mut StdRng,
}

impl Generator<'_> {
    /// Keys, aggregates, a filter, a HAVING, each perhaps.
    fn groups(&mut self) -> String {
        let table = self.table();
        let keys = self.keys(table);
        let mut select: Vec<String> = keys
            .iter()
            .zip(0..)
            .map(|(k, n)| format!("{k} AS k{n}"))
            .collect();
        if self.one_in(3) {
            select.push("window_start() AS w".to_owned());
        }
        for n in 0..self.random.random_range(1..5) {
            let aggregate = self.aggregate(table);
            select.push(format!("{aggregate} AS a{n}"));
        }
        let filter = self.filter(table);
        let group_by = match keys.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", keys.join(", ")),
        };
        let having = match self.one_in(4) {
            true => format!(" HAVING count(*) > {}", self.random.random_range(0..4)),
            false => String::new(),
        };
        format!(
            "SELECT {} FROM {}{filter}{group_by}{having}",
            select.join(", "),
            TABLES[table]
        )
    }

    fn grouping_sets(&mut self) -> String {
        let table = self.table();
        let keys = [self.key(table), "user_id".to_owned()];
        let how = ["ROLLUP", "CUBE"][self.random.random_range(0..2)];
        let (aggregate, filter) = (self.aggregate(table), self.filter(table));
        format!(
            "SELECT {0} AS k, {1} AS u, {aggregate} AS a, count(*) AS c FROM {2}{filter} GROUP BY {how} ({0}, {1})",
            keys[0], keys[1], TABLES[table]
        )
    }

    fn rows(&mut self) -> String {
        let table = self.table();
        let distinct = if self.one_in(3) { "DISTINCT " } else { "" };
        let columns = (0..self.random.random_range(1..4)).map(|n| (n, self.any(table)));
        let columns: Vec<String> = columns.map(|(n, c)| format!("{c} AS c{n}")).collect();
        let number = self.number(table);
        let filter = self.filter(table);
        format!(
            "SELECT {distinct}{}, {number} AS x FROM {}{filter}",
            columns.join(", "),
            TABLES[table]
        )
    }

    fn ranked(&mut self) -> String {
        let table = self.table();
        let (key, column, number) = (self.key(table), self.any(table), self.number(table));
        let filter = self.filter(table);
        let most = self.random.random_range(1..4);
        let inner = format!(
            "SELECT id, {key} AS k, {column} AS c, row_number() OVER (PARTITION BY {key} ORDER BY {number} DESC NULLS \
             LAST, id) AS r FROM {}{filter}",
            TABLES[table]
        );
        match self.one_in(2) {
            true => format!("SELECT * FROM ({inner}) WHERE r <= {most}"),
            false => format!("SELECT r, count(*) AS n, count(DISTINCT c) AS d FROM ({inner}) GROUP BY r"),
        }
    }

    fn joined_groups(&mut self) -> String {
        let (left, right) = self.two_tables();
        let how = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"][self.random.random_range(0..4)];
        let key = ["ad_id", "user_id", "flag", "n"][self.random.random_range(0..4)];
        let (of_left, of_right) = (self.aggregate(left), self.aggregate(right));
        let (where_left, where_right) = (self.filter(left), self.filter(right));
        format!(
            "SELECT l.{key} AS lk, r.{key} AS rk, l.a AS la, r.a AS ra FROM (SELECT {key}, {of_left} AS a FROM \
             {}{where_left} GROUP BY {key}) l {how} (SELECT {key}, {of_right} AS a FROM {}{where_right} GROUP BY \
             {key}) r ON l.{key} = r.{key}",
            TABLES[left], TABLES[right]
        )
    }

    fn joined_rows(&mut self) -> String {
        let (left, right) = self.two_tables();
        let key = ["ad_id", "user_id", "day"][self.random.random_range(0..3)];
        let number = self.number(left);
        let (where_left, where_right) = (self.filter(left), self.filter(right));
        let from = format!(
            "(SELECT id, {key}, {number} AS x FROM {}{where_left}) l JOIN (SELECT id, {key}, n FROM \
             {}{where_right}) r ON l.{key} = r.{key} AND l.id <> r.id",
            TABLES[left], TABLES[right]
        );
        match self.random.random_range(0..3) {
            0 => format!("SELECT l.id, r.id AS other, l.x, r.n FROM {from}"),
            1 => format!(
                "SELECT l.{key}, count(*) AS c, sum(l.x) AS s, max(r.n) AS m FROM {from} GROUP BY l.{key}"
            ),
            _ => format!("SELECT count(DISTINCT l.id) AS ids, count(*) AS c FROM {from} WHERE r.n > 0"),
        }
    }

    fn united(&mut self) -> String {
        let (left, right) = self.two_tables();
        let (of_left, of_right) = (self.number(left), self.number(right));
        let (where_left, where_right) = (self.filter(left), self.filter(right));
        format!(
            "SELECT ad_id, sum(x) AS s, count(x) AS c, count(DISTINCT user_id) AS u FROM (SELECT ad_id, user_id, \
             {of_left} AS x FROM {}{where_left} UNION ALL SELECT ad_id, user_id, {of_right} FROM {}{where_right}) \
             GROUP BY ad_id",
            TABLES[left], TABLES[right]
        )
    }

    fn one_in(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    fn table(&mut self) -> usize {
        [0, 0, 0, 1, 1, 2][self.random.random_range(0..6)]
    }

    fn two_tables(&mut self) -> (usize, usize) {
        [(0, 1), (1, 0), (1, 2), (1, 1), (2, 0)][self.random.random_range(0..5)]
    }

    /// A column of one of the kinds; the tables always have one of each kind asked for.
    fn column(&mut self, table: usize, kinds: &[Kind]) -> (String, Kind) {
        let columns = self.stream.tables[table].columns.iter();
        let fit: Vec<_> = columns.filter(|c| kinds.contains(&c.kind)).collect();
        let column = fit[self.random.random_range(0..fit.len())];
        (column.name.clone(), column.kind)
    }

    fn any(&mut self, table: usize) -> String {
        let kinds = [
            Kind::Key,
            Kind::User,
            Kind::Double,
            Kind::Bigint,
            Kind::Extreme,
            Kind::Int,
            Kind::Boolean,
            Kind::Timestamp,
            Kind::Date,
            Kind::EventTime,
        ];
        self.column(table, &kinds).0
    }

    fn number(&mut self, table: usize) -> String {
        let (column, _) = self.column(table, &[Kind::Double, Kind::Bigint, Kind::Int]);
        match self.random.random_range(0..7) {
            0 => format!("{column} + 1"),
            1 => format!("{column} * 2"),
            2 => format!("abs({column})"),
            3 => format!("coalesce({column}, 0)"),
            4 => {
                let predicate = self.predicate(table, 1);
                format!("CASE WHEN {predicate} THEN {column} ELSE 1 END")
            }
            _ => column,
        }
    }

    fn keys(&mut self, table: usize) -> Vec<String> {
        (0..self.random.random_range(0..4))
            .map(|_| self.key(table))
            .collect()
    }

    fn key(&mut self, table: usize) -> String {
        let kinds = [
            Kind::Key,
            Kind::User,
            Kind::Bigint,
            Kind::Boolean,
            Kind::Timestamp,
            Kind::Date,
        ];
        let (column, kind) = self.column(table, &kinds);
        match kind {
            Kind::Timestamp => format!("date_trunc('day', {column})"),
            Kind::Bigint if self.one_in(2) => format!("{column} % 3"),
            Kind::Key if self.one_in(3) => format!("upper({column})"),
            Kind::User if self.one_in(3) => format!("CASE WHEN {column} < 'u4' THEN 'low' ELSE 'high' END"),
            _ => column,
        }
    }

    fn aggregate(&mut self, table: usize) -> String {
        let (any, number) = (self.any(table), self.number(table));
        let call = match self.random.random_range(0..13) {
            0 => "count(*)".to_owned(),
            1 => format!("count({any})"),
            2 => format!("count(DISTINCT {any})"),
            3 => format!("min({any})"),
            4 => format!("max({any})"),
            5 | 6 => format!("sum({number})"),
            7 => format!("avg({number})"),
            8 => format!("median({number})"),
            9 => format!("stddev({number})"),
            10 => format!(
                "approx_distinct({})",
                self.column(table, &[Kind::User, Kind::Bigint, Kind::Date]).0
            ),
            11 => return format!("first_value({any} ORDER BY occurred_at, id)"),
            _ => {
                let (column, _) = self.column(table, &[Kind::Double, Kind::Bigint, Kind::Date]);
                return format!("array_agg(id ORDER BY {column} DESC NULLS LAST, id)");
            }
        };
        match self.one_in(4) {
            true => {
                let predicate = self.predicate(table, 1);
                format!("{call} FILTER (WHERE {predicate})")
            }
            false => call,
        }
    }

    fn filter(&mut self, table: usize) -> String {
        match self.one_in(2) {
            true => format!(" WHERE {}", self.predicate(table, 2)),
            false => String::new(),
        }
    }

    fn predicate(&mut self, table: usize, depth: u32) -> String {
        let most = if depth > 0 { 11 } else { 8 };
        match self.random.random_range(0..most) {
            0 => format!("{} IS NULL", self.any(table)),
            1 => format!("{} IS NOT NULL", self.any(table)),
            2 => {
                let (column, _) = self.column(table, &[Kind::Double, Kind::Bigint, Kind::Int]);
                format!("{column} > {}", self.random.random_range(-3..10))
            }
            3 => self.column(table, &[Kind::Boolean]).0,
            4 => format!("{} IN ('a1', '', 'größe')", self.column(table, &[Kind::Key]).0),
            5 => format!("user_id <> 'u{}'", self.random.random_range(1..8)),
            6 => format!("{} >= DATE '1970-01-02'", self.column(table, &[Kind::Date]).0),
            7 => format!(
                "occurred_at < window_start() + INTERVAL '{} seconds'",
                self.random.random_range(5..40)
            ),
            8 => format!("NOT ({})", self.predicate(table, depth - 1)),
            9 => format!(
                "({} AND {})",
                self.predicate(table, depth - 1),
                self.predicate(table, depth - 1)
            ),
            _ => format!(
                "({} OR {})",
                self.predicate(table, depth - 1),
                self.predicate(table, depth - 1)
            ),
        }
    }
}
