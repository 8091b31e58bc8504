//! What session windows are, slowly: the definition that tests compare with. It forgets nothing.

use std::collections::BTreeMap;

/// All rows in time by key, and what has closed.
pub(crate) struct SessionModel<K> {
    gap: i64,
    rows: BTreeMap<K, Vec<Taken>>,
    closed: BTreeMap<K, Vec<(i64, i64)>>,
}

/// A row: its time, the watermark when it came, its number.
type Taken = (i64, i64, u32);

/// A session: its start, its end, the numbers of its rows.
pub(crate) type ModelSession = (i64, i64, Vec<u32>);

impl<K: Ord + Clone> SessionModel<K> {
    pub fn new(gap: i64) -> Self {
        SessionModel {
            gap,
            rows: BTreeMap::new(),
            closed: BTreeMap::new(),
        }
    }

    /// Takes row number `row`; false when it is late: when it touches a closed session, or is over by itself and
    /// touches no session that goes on, or would make one begin earlier and was over already when that one's first row
    /// came.
    pub fn take(&mut self, key: &K, at: i64, row: u32, watermark: i64) -> bool {
        let gap = self.gap;
        let touches = |start: i64, end: i64| at < end && start < at.saturating_add(gap);
        let mut closed = self.closed.get(key).into_iter().flatten();
        if closed.any(|(start, end)| touches(*start, *end)) {
            return false;
        }
        let over_at = |watermark: i64| at.saturating_add(gap) <= watermark;
        let sessions = self.sessions(key).into_iter();
        let touched: Vec<_> = sessions
            .filter(|s| s.1 > watermark && touches(s.0, s.1))
            .collect();
        if over_at(watermark) {
            let Some((start, ..)) = touched.first() else {
                return false;
            };
            let firsts = self.rows[key].iter().filter(|row| row.0 == *start);
            let came = firsts.map(|row| row.1).min();
            if at < *start && came.is_some_and(over_at) {
                return false;
            }
        }
        self.rows
            .entry(key.clone())
            .or_default()
            .push((at, watermark, row));
        true
    }

    /// The sessions that close, in order of end and start.
    pub fn close(&mut self, watermark: i64) -> Vec<ModelSession> {
        let mut all = Vec::new();
        for key in self.rows.keys() {
            let sessions = self.sessions(key).into_iter();
            let closed = self.closed.entry(key.clone()).or_default();
            let is_new = |s: &ModelSession| s.1 <= watermark && !closed.contains(&(s.0, s.1));
            let new: Vec<_> = sessions.filter(is_new).collect();
            closed.extend(new.iter().map(|s| (s.0, s.1)));
            all.extend(new);
        }
        all.sort_by_key(|s| (s.1, s.0));
        all
    }

    /// All rows of a key, cut where they are a gap apart.
    fn sessions(&self, key: &K) -> Vec<ModelSession> {
        let mut rows = self.rows.get(key).cloned().unwrap_or_default();
        rows.sort_unstable();
        let mut all: Vec<ModelSession> = Vec::new();
        for (at, _, row) in rows {
            let end = at.saturating_add(self.gap);
            match all.last_mut() {
                Some(last) if at < last.1 => {
                    last.1 = end;
                    last.2.push(row);
                }
                _ => all.push((at, end, vec![row])),
            }
        }
        all
    }
}
