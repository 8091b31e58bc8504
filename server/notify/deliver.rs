//! From the outbox to everyone it is meant for.
//!
//! A notice that is taken is nobody else's for [`LEASE`]: several processes may share a catalog. It is done when each
//! receiver has taken or refused it; until then it is tried again, later and later, for those who have not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use lettre::Address;
use millstream_engine::time::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::catalog::model::{Notice, NoticeState};
use crate::notify::mail::Mailer;
use crate::notify::settings::{Settings, contact};
use crate::notify::webhook::Webhook;
use crate::notify::{Outcome, TIMEOUT};

/// How often the outbox is looked at: people read mails later than that.
const EVERY: Duration = Duration::from_secs(1);
/// Notices on their way at one time: each holds a connection per receiver.
const AT_ONCE: u32 = 8;
/// How long a notice that is taken is left alone by others: longer than any delivery (an attempt, and for mails a
/// second connection that tells whose fault a refusal is), else it would come twice.
const LEASE: Duration = Duration::from_secs(60);
const _: () = assert!(LEASE.as_secs() > 2 * TIMEOUT.as_secs());
/// The first pause after a failure; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
/// The longest pause, and the longest that a receiver may ask for.
const LONGEST: Duration = Duration::from_secs(600);
/// How long notices that are done can be looked at.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the end of the process waits for mails that are on their way.
const FINISH: Duration = Duration::from_secs(5);
/// How often the mail server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What stands in the progress of a notice for a receiver that has it.
const SENT: &str = "sent";

/// Tells people what the catalog says they are to be told.
pub struct Deliverer {
    catalog: Catalog,
    settings: Settings,
    mailer: Option<Mailer>,
    webhooks: Vec<Webhook>,
    seen: Mutex<MailSeen>,
}

/// What is known of the mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailSeen {
    /// There is none.
    None,
    /// Nobody has looked yet.
    Unknown,
    /// It took us.
    Reachable,
    /// It did not, and why.
    Away(String),
}

/// A deliverer at work.
pub struct Delivering {
    task: JoinHandle<()>,
    watching: JoinHandle<()>,
    stop: Arc<Notify>,
}

/// Someone to tell.
enum Receiver<'a> {
    Mail(Address),
    Webhook(&'a Webhook),
}

impl Deliverer {
    /// Makes no connection.
    pub fn new(catalog: Catalog, settings: Settings) -> anyhow::Result<Deliverer> {
        let mailer = settings
            .smtp
            .as_ref()
            .map(|server| Mailer::new(server, &settings.mail_from));
        let seen = if mailer.is_some() {
            MailSeen::Unknown
        } else {
            MailSeen::None
        };
        let secret = settings.webhook_secret.as_ref();
        let webhooks = settings.webhooks.iter().map(|url| Webhook::new(url, secret));
        Ok(Deliverer {
            mailer: mailer.transpose()?,
            webhooks: webhooks.collect::<Result<_, _>>()?,
            seen: Mutex::new(seen),
            catalog,
            settings,
        })
    }

    /// Begins, on the runtime that is entered. `alone`: no other process uses the catalog, so what a process before
    /// this one had taken is on nobody's way.
    pub fn start(self: Arc<Self>, alone: bool) -> Delivering {
        let watcher = self.clone();
        let watching = tokio::spawn(async move { watcher.watch_mail().await });
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            if alone && let Err(error) = self.catalog.release_notices(Timestamp::now()).await {
                tracing::warn!("notices wait for their time: {error}");
            }
            loop {
                self.round().await;
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    () = stopped.notified() => break,
                }
            }
            // What the end of a pipeline has brought.
            self.round().await;
        });
        Delivering { task, watching, stop }
    }

    /// What was seen of the mail server last.
    pub fn mail_seen(&self) -> MailSeen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the mail server now and then, for whoever asks how the process is.
    async fn watch_mail(&self) {
        let Some(mailer) = &self.mailer else {
            return;
        };
        loop {
            let seen = match mailer.reachable().await {
                Ok(()) => MailSeen::Reachable,
                Err(why) => MailSeen::Away(why),
            };
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends what is due.
    async fn round(&self) {
        loop {
            let now = Timestamp::now();
            let taken = self.catalog.take_notices(now, after(now, LEASE), AT_ONCE).await;
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!("cannot read which notices are due: {error}");
                    return;
                }
            };
            if taken.is_empty() {
                return;
            }
            join_all(taken.iter().map(|notice| self.deliver(notice))).await;
        }
    }

    /// One attempt for everyone who has not had it, and its mark.
    async fn deliver(&self, notice: &Notice) {
        let receivers = match self.settings.wants(notice) {
            true => self.receivers(&notice.job),
            false => BTreeMap::new(),
        };
        let mut progress: BTreeMap<String, String> =
            serde_json::from_str(&notice.progress).unwrap_or_default();
        let open = receivers.iter().filter(|(name, _)| !progress.contains_key(*name));
        let sent = open.map(async |(name, receiver)| (name.clone(), self.send(notice, receiver).await));
        let mut later = None;
        for (name, outcome) in join_all(sent).await {
            match outcome {
                Outcome::Taken => drop(progress.insert(name, SENT.into())),
                Outcome::Refused(why) => {
                    tracing::error!(
                        receiver = name,
                        event = notice.event.name(),
                        "a notice was refused: {why}"
                    );
                    progress.insert(name, format!("failed: {why}"));
                }
                Outcome::Later(why, wait) => {
                    tracing::warn!(receiver = name, "a notice is sent again later: {why}");
                    let (whys, longest) = later.get_or_insert((Vec::new(), Duration::ZERO));
                    whys.push(format!("{name}: {why}"));
                    *longest = (*longest).max(wait.unwrap_or_default());
                }
            }
        }
        let marked = match later {
            Some((whys, wait)) => self.try_again(notice, &progress, whys.join("; "), wait).await,
            None => self.done(notice, &progress).await,
        };
        if let Err(error) = marked {
            // It is due again when its lease is over.
            tracing::warn!("a notice may come twice, as it cannot be marked: {error}");
        }
    }

    async fn send(&self, notice: &Notice, to: &Receiver<'_>) -> Outcome {
        match to {
            Receiver::Webhook(hook) => hook.send(notice, &self.settings.public_url).await,
            Receiver::Mail(address) => match &self.mailer {
                Some(mailer) => mailer.send(notice, address, &self.settings.public_url).await,
                None => Outcome::Refused("there is no mail server".into()),
            },
        }
    }

    async fn try_again(
        &self,
        notice: &Notice,
        progress: &BTreeMap<String, String>,
        why: String,
        wait: Duration,
    ) -> crate::catalog::Result<()> {
        let next = after(Timestamp::now(), pause(notice.attempts, wait));
        self.catalog
            .undelivered(notice.id, written(progress), why, next)
            .await
    }

    async fn done(&self, notice: &Notice, progress: &BTreeMap<String, String>) -> crate::catalog::Result<()> {
        let failed: Vec<String> = progress
            .iter()
            .filter(|(_, what)| *what != SENT)
            .map(|(name, what)| format!("{name}: {what}"))
            .collect();
        let (state, error) = match (progress.is_empty(), failed.is_empty()) {
            (true, _) => (NoticeState::Skipped, Some("nobody asked for it".into())),
            (false, true) => (NoticeState::Sent, None),
            (false, false) => (NoticeState::Failed, Some(failed.join("; "))),
        };
        let now = Timestamp::now();
        let before = Timestamp(now.0 - KEPT.as_micros() as i64);
        self.catalog
            .notice_done(notice.id, state, written(progress), error, now, before)
            .await
    }

    /// Everyone who is to hear of the job, by the name that the progress knows them by.
    fn receivers(&self, job: &Value) -> BTreeMap<String, Receiver<'_>> {
        let hooks = self
            .webhooks
            .iter()
            .map(|hook| (hook.name.clone(), Receiver::Webhook(hook)));
        let mut all: BTreeMap<String, Receiver<'_>> = hooks.collect();
        if self.mailer.is_some() {
            let contacts = job["contact_emails"].as_array().into_iter().flatten();
            // Those of a job were checked when it was posted.
            let contacts = contacts.filter_map(|one| contact(one.as_str()?).ok());
            let addresses: BTreeSet<Address> =
                contacts.chain(self.settings.mail_to.iter().cloned()).collect();
            all.extend(
                addresses
                    .into_iter()
                    .map(|to| (to.to_string(), Receiver::Mail(to))),
            );
        }
        all
    }
}

impl Delivering {
    /// Lets what is on its way arrive; what does not within [`FINISH`] is sent at the next start.
    pub async fn finish(self) {
        self.watching.abort();
        self.stop.notify_one();
        let aborting = self.task.abort_handle();
        if tokio::time::timeout(FINISH, self.task).await.is_err() {
            aborting.abort();
        }
    }
}

/// How long to wait after the failure that follows `attempts` others.
fn pause(attempts: u32, asked: Duration) -> Duration {
    let doubled = FIRST.saturating_mul(1 << attempts.min(20));
    doubled.max(asked).min(LONGEST)
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(now.0 + wait.as_micros() as i64)
}

fn written(progress: &BTreeMap<String, String>) -> String {
    serde_json::to_string(progress).expect("text can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let seconds = |attempts, asked| pause(attempts, Duration::from_secs(asked)).as_secs();
        assert_eq!([0, 1, 2, 3].map(|n| seconds(n, 0)), [2, 4, 8, 16]);
        assert_eq!(seconds(9, 0), 600);
        assert_eq!(seconds(u32::MAX, 0), 600);
        assert_eq!(seconds(0, 60), 60);
        // Whoever asks for more is asked sooner.
        assert_eq!(seconds(0, 86_400), 600);
    }
}
