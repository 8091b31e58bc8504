//! Simulated users: a pure event queue in virtual time, so that thousands of users cost one heap and a seed
//! repeats every row.
//!
//! Each user: a random ad is shown → waits `ConsiderDuration` → clicks with `ClickthroughProbability` →
//! waits `ViewFrequency` → the next ad. Both waits are jittered by their variance. First impressions are
//! spread over one whole cycle, so the load is level from the first second and has no waves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Config;
use crate::rows::{Row, Stream, Uuid};

/// All users of a run. Time is virtual: the caller says how far it has come.
pub struct Simulation {
    config: Config,
    rng: ChaCha8Rng,
    queue: BinaryHeap<Reverse<Entry>>,
}

/// The next thing a user does. Ordered by time, then user, which makes the order total: a user has
/// exactly one entry.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    user: u32,
    considering: Option<(Uuid, Uuid)>,
}

impl Simulation {
    /// Users of `config`, all of whose choices follow from `seed`.
    pub fn new(config: &Config, seed: u64) -> Simulation {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let cycle = config.users.view_frequency + config.users.consider_duration;
        let first = |user| {
            let at = cycle.mul_f64(rng.random::<f64>());
            Reverse(Entry {
                at,
                user,
                considering: None,
            })
        };
        let queue = (0..config.users.count).map(first).collect();
        Simulation {
            config: config.clone(),
            rng,
            queue,
        }
    }

    /// When the next user acts.
    pub fn next_at(&self) -> Duration {
        self.queue.peek().map_or(Duration::MAX, |Reverse(entry)| entry.at)
    }

    /// Lets the next user act; `occurred_at` is stamped on the row if that makes one.
    pub fn step(&mut self, occurred_at: i64) -> Option<(Stream, Row)> {
        let Reverse(entry) = self.queue.pop()?;
        match entry.considering {
            None => Some(self.show(&entry, occurred_at)),
            Some((impression, ad)) => self.decide(&entry, impression, ad, occurred_at),
        }
    }

    fn show(&mut self, entry: &Entry, occurred_at: i64) -> (Stream, Row) {
        let ad = Uuid::of_ad(self.rng.random_range(0..self.config.ads.count));
        let impression = Uuid::random(&mut self.rng);
        let wait = self.jittered(
            self.config.users.consider_duration,
            self.config.users.consider_variance,
        );
        let considering = Some((impression, ad));
        self.queue.push(Reverse(Entry {
            at: entry.at + wait,
            user: entry.user,
            considering,
        }));
        (
            Stream::Impressions,
            Row {
                id: impression,
                impression,
                ad,
                occurred_at,
            },
        )
    }

    fn decide(
        &mut self,
        entry: &Entry,
        impression: Uuid,
        ad: Uuid,
        occurred_at: i64,
    ) -> Option<(Stream, Row)> {
        let wait = self.jittered(self.config.users.view_frequency, self.config.users.view_variance);
        self.queue.push(Reverse(Entry {
            at: entry.at + wait,
            user: entry.user,
            considering: None,
        }));
        if !self.rng.random_bool(self.config.users.clickthrough_probability) {
            return None;
        }
        let id = Uuid::random(&mut self.rng);
        Some((
            Stream::Clicks,
            Row {
                id,
                impression,
                ad,
                occurred_at,
            },
        ))
    }

    fn jittered(&mut self, mean: Duration, variance: f64) -> Duration {
        mean.mul_f64(1.0 + variance * self.rng.random_range(-1.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn play(config: &Config, seed: u64, until: Duration) -> Vec<(Duration, Stream, Row)> {
        let mut simulation = Simulation::new(config, seed);
        let mut rows = Vec::new();
        while simulation.next_at() < until {
            let at = simulation.next_at();
            rows.extend(
                simulation
                    .step(at.as_micros() as i64)
                    .map(|(stream, row)| (at, stream, row)),
            );
        }
        rows
    }

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_repeats_every_row_and_another_does_not() {
        let config = Config::default();
        let first = play(&config, 7, Duration::from_secs(20));
        assert_eq!(first, play(&config, 7, Duration::from_secs(20)));
        assert_ne!(first, play(&config, 8, Duration::from_secs(20)));
    }

    /// 1000 users for ten minutes at a cycle of 6 s: 100,000 impressions, 30,000 clicks (σ of the ratio 0.0015).
    #[test]
    fn rates_are_those_of_the_configuration() {
        let rows = play(&Config::default(), 42, TEN_MINUTES);
        let impressions = rows
            .iter()
            .filter(|(_, stream, _)| *stream == Stream::Impressions)
            .count() as f64;
        let clicks = rows.len() as f64 - impressions;
        assert!(
            (impressions - 100_000.0).abs() < 1000.0,
            "{impressions} impressions"
        );
        assert!(
            (clicks / impressions - 0.3).abs() < 0.006,
            "ratio {}",
            clicks / impressions
        );
    }

    #[test]
    fn clicks_follow_their_impression_after_the_jittered_time_and_ids_are_unique() {
        let rows = play(&Config::default(), 3, TEN_MINUTES);
        let mut shown = HashMap::new();
        let mut ids = HashSet::new();
        for (at, stream, row) in rows {
            assert!(ids.insert(row.id));
            if stream == Stream::Impressions {
                assert_eq!(row.id, row.impression);
                shown.insert(row.impression, (at, row.ad));
                continue;
            }
            let (shown_at, ad) = shown.remove(&row.impression).expect("shown before, clicked once");
            assert_eq!(row.ad, ad);
            let waited = (at - shown_at).as_secs_f64();
            assert!((0.9..=1.1).contains(&waited), "considered for {waited} s");
        }
    }

    /// The predecessor sends waves: all users start at once. Here each second has about the same load.
    #[test]
    fn load_is_level_from_the_first_cycle() {
        let rows = play(&Config::default(), 11, Duration::from_secs(30));
        let mut per_second = [0_u32; 30];
        let impressions = rows
            .iter()
            .filter(|(_, stream, _)| *stream == Stream::Impressions);
        impressions.for_each(|(at, ..)| per_second[at.as_secs() as usize] += 1);
        for (second, count) in per_second.into_iter().enumerate() {
            assert!(
                (110..230).contains(&count),
                "second {second} has {count} impressions, mean 167"
            );
        }
    }
}
