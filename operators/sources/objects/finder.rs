//! Finds objects and hands them out to be read, the oldest first and some at a time.
//!
//! What was found and not handed out yet is in memory only: a listing finds it again. When there are more candidates than
//! are kept, the newest are left out and listed again later, and nobody who brings newer ones is asked until then: objects
//! must be handed out in order of age (see `known.rs`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use millstream_engine::Result;
use millstream_engine::source::{Offset, Offsets, PartitionId, Partitions};
use tokio::time::Instant;

use super::known::Known;
use super::names::Selections;
use super::notices::{Notice, Notices};
use super::options::{Place, Settings};
use super::progress::{At, Object, has_ended};
use super::store::Store;

/// Objects handed out and not read to their end, at most. Each has its place in every checkpoint, and the watermark waits
/// for all of them: so many objects may be out of order.
const MOST_OPEN: usize = 256;

/// Objects found and not handed out, at most: some 20 MB.
const MOST_FOUND: usize = 100_000;

/// From one listing to the next where a queue tells of new objects; for what it lost.
const LIST_AGAIN: Duration = Duration::from_secs(3600);

/// Until a source that has found all there is says so.
const SOON: Duration = Duration::from_millis(10);

/// Objects looked at side by side.
const LOOKS: usize = 16;

/// What is to be read.
pub(super) struct Finder {
    store: Arc<Store>,
    selections: Selections,
    follow: bool,
    poll: Duration,
    settle: Option<Duration>,
    bucket: String,
    notices: Option<Arc<Notices>>,
    found: BTreeSet<Object>,
    /// Whether newer objects were left out.
    is_cut: bool,
    listed: Option<Instant>,
    asked: Option<Instant>,
    /// Whether something was handed out in this run.
    begun: bool,
}

impl Finder {
    pub fn new(settings: &Settings, store: Arc<Store>, notices: Option<Arc<Notices>>) -> Finder {
        let (settle, bucket) = match &settings.place {
            Place::Disk => (None, String::new()),
            Place::S3 { settle, bucket, .. } => (Some(*settle), bucket.clone()),
        };
        Finder {
            store,
            selections: settings.selections.clone(),
            follow: settings.follow,
            poll: settings.poll,
            settle,
            bucket,
            notices,
            found: BTreeSet::new(),
            is_cut: false,
            listed: None,
            asked: None,
            begun: false,
        }
    }

    /// What to read now, given what is known.
    pub async fn next(&mut self, read: &Offsets) -> Result<Partitions> {
        let reading = read.values().filter(|offset| !has_ended(offset)).count();
        // Asked at the end of every object: mostly there is nothing to do.
        let nothing = self.found.is_empty() && !self.must_list() && !self.must_ask();
        if self.begun && (nothing || reading > MOST_OPEN / 2) {
            return Ok(Partitions {
                again: self.again(),
                ..Partitions::default()
            });
        }
        let mut partitions = Partitions::default();
        let known = Known::new(read, self.settle)?;
        if self.must_list() {
            partitions.forget = self.list(&known).await?;
        }
        if !self.is_cut {
            self.ask(&known).await?;
        }
        partitions.forget.extend(known.settled()?);
        if let Some(notices) = &self.notices {
            notices.forget(&partitions.forget);
        }
        if !self.begun {
            partitions.open = known.unfinished();
        }
        let room = MOST_OPEN.saturating_sub(reading);
        partitions.open.extend(self.hand_out(&known, room));
        // A source that says at once that this is all is one whose partitions never change.
        partitions.again = self.again().or((!self.begun).then_some(SOON));
        self.begun = true;
        Ok(partitions)
    }

    /// When to ask again; none where nothing more will come.
    fn again(&self) -> Option<Duration> {
        let is_over = !self.follow && self.found.is_empty() && !self.is_cut;
        (!is_over).then_some(self.poll)
    }

    fn must_ask(&self) -> bool {
        self.notices.is_some() && self.asked.is_none_or(|asked| asked.elapsed() >= self.poll)
    }

    fn must_list(&self) -> bool {
        let Some(listed) = self.listed else {
            return true;
        };
        let every = match &self.notices {
            Some(_) => LIST_AGAIN,
            None => self.poll,
        };
        self.found.is_empty() && (self.is_cut || self.follow && listed.elapsed() >= every)
    }

    /// Looks for new objects; gives those that need not be remembered.
    async fn list(&mut self, known: &Known<'_>) -> Result<Vec<PartitionId>> {
        let (found, mut is_cut) = (&mut self.found, false);
        let remembers_all = self.settle.is_none();
        let mut there = HashSet::new();
        let mut each = |object: Object| {
            if remembers_all {
                there.insert(object.id());
            }
            if known.is_new(&object) {
                found.insert(object);
            }
            if found.len() > MOST_FOUND {
                found.pop_last();
                is_cut = true;
            }
        };
        for selection in &self.selections.0 {
            // What two paths select is the same partition.
            self.store.list(selection, &mut each).await?;
        }
        self.is_cut = is_cut;
        self.listed = Some(Instant::now());
        Ok(match remembers_all {
            true => known.gone(&there),
            false => Vec::new(),
        })
    }

    /// Asks the queue, where there is one.
    async fn ask(&mut self, known: &Known<'_>) -> Result<()> {
        let Some(notices) = self.notices.clone().filter(|_| self.must_ask()) else {
            return Ok(());
        };
        for notice in notices.receive(&self.bucket).await? {
            let (receipt, objects) = self.look(notice).await?;
            let mut wait_for = HashSet::new();
            for object in objects {
                let id = object.id();
                if known.is_new(&object) {
                    self.found.insert(object);
                    wait_for.insert(id);
                } else if known.holds(&id) {
                    // It may not be in a checkpoint yet.
                    wait_for.insert(id);
                }
            }
            notices.keep(receipt, wait_for);
        }
        self.asked = Some(Instant::now());
        Ok(())
    }

    /// The objects a message names, as they are now.
    async fn look(&self, notice: Notice) -> Result<(String, Vec<Object>)> {
        let keys = notice.keys.into_iter().filter(|key| self.selections.takes(key));
        let looks = keys.map(|key| async move { self.store.head(&key).await });
        let objects: Vec<Option<Object>> = futures::stream::iter(looks)
            .buffer_unordered(LOOKS)
            .try_collect()
            .await?;
        Ok((notice.receipt, objects.into_iter().flatten().collect()))
    }

    fn hand_out(&mut self, known: &Known<'_>, room: usize) -> Vec<(PartitionId, Option<Offset>)> {
        let mut open = Vec::new();
        while open.len() < room {
            let Some(object) = self.found.pop_first() else {
                break;
            };
            let id = object.id();
            if !known.holds(&id) {
                open.push((id, Some(object.offset(At::Start))));
            }
        }
        open
    }
}
