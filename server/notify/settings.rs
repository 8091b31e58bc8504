//! Who is told what: the options of the process, and what a job adds in `additional_arguments.notify`.

use std::collections::BTreeSet;

use clap::Args;
use lettre::Address;
use lettre::message::Mailbox;
use millstream_engine::secret::{Secret, Secrets};
use serde_json::Value;

use crate::catalog::model::{Event, Notice};

/// A webhook's requests are signed with what this variable says.
const SECRET: &str = "MILLSTREAM_WEBHOOK_SECRET";

/// What `run` takes about notices.
#[derive(Args, Clone, Debug)]
pub struct NotifyArgs {
    /// The mail server that tells the contacts of jobs what becomes of them: smtp://user:pass@host:port, or smtps://
    /// for TLS from the first byte. With a user TLS is required; without, it is used where the server offers it. ?tls=
    /// says otherwise: required, opportunistic
    #[arg(long, value_name = "URL", env = "MILLSTREAM_SMTP", hide_env_values = true, value_parser = super::mail::server)]
    pub smtp: Option<Secret>,
    /// Whom mails come from
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "MILLSTREAM_MAIL_FROM",
        default_value = "Millstream <millstream@localhost>"
    )]
    pub mail_from: Mailbox,
    /// Who is told of every job, besides its contacts; may be given more than once
    #[arg(long, value_name = "ADDRESS", env = "MILLSTREAM_MAIL_TO", value_delimiter = ',', value_parser = contact)]
    pub mail_to: Vec<Address>,
    /// Where changes of jobs are posted as JSON; may be given more than once. Signed if MILLSTREAM_WEBHOOK_SECRET is set
    #[arg(long, value_name = "URL", env = "MILLSTREAM_WEBHOOK", hide_env_values = true, value_delimiter = ' ', value_parser = super::webhook::address)]
    pub webhook: Vec<Secret>,
    /// Which changes are told, if not all: success, complete, error, cancelled, paused, resumed, deleted. A job's
    /// additional_arguments.notify goes before it
    #[arg(long, value_name = "EVENTS", env = "MILLSTREAM_NOTIFY", value_delimiter = ',', value_parser = event)]
    pub notify: Vec<Event>,
    /// Where people reach the console, for the links in notices; without it, the address of --admin
    #[arg(long, value_name = "URL", env = "MILLSTREAM_PUBLIC_URL")]
    pub public_url: Option<String>,
}

/// The same, once the address of the console is known.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mail server; none: no mails.
    pub smtp: Option<Secret>,
    /// Whom mails come from.
    pub mail_from: Mailbox,
    /// Who is told of every job.
    pub mail_to: Vec<Address>,
    /// Where notices are posted.
    pub webhooks: Vec<Secret>,
    /// What requests are signed with.
    pub webhook_secret: Option<Secret>,
    /// What is told; empty: everything.
    pub events: BTreeSet<Event>,
    /// Where people reach the console.
    pub public_url: String,
}

impl NotifyArgs {
    /// Takes the secrets out of logs, and reads the one that only the environment may hold.
    pub fn settings(&self, console: &str) -> Settings {
        let mut secrets = Secrets::default();
        self.smtp
            .iter()
            .chain(&self.webhook)
            .for_each(|url| secrets.add(url.expose()));
        crate::logging::hide(&secrets);
        let secret = std::env::var(SECRET).ok().filter(|secret| !secret.is_empty());
        Settings {
            smtp: self.smtp.clone(),
            mail_from: self.mail_from.clone(),
            mail_to: self.mail_to.clone(),
            webhooks: self.webhook.clone(),
            webhook_secret: secret.map(Secret::new),
            events: self.notify.iter().copied().collect(),
            public_url: self.public_url.clone().unwrap_or_else(|| console.to_owned()),
        }
    }
}

impl Settings {
    /// Nobody is told anything.
    #[cfg(test)]
    pub fn silent() -> Settings {
        Settings {
            smtp: None,
            mail_from: "m@localhost".parse().expect("an address"),
            mail_to: Vec::new(),
            webhooks: Vec::new(),
            webhook_secret: None,
            events: BTreeSet::new(),
            public_url: String::new(),
        }
    }

    /// Whether anyone wants to hear of it.
    pub fn wants(&self, notice: &Notice) -> bool {
        match events(&notice.job["additional_arguments"]["notify"]) {
            Ok(Some(events)) => events.contains(&notice.event),
            // A job with another list was never accepted.
            Ok(None) | Err(_) => self.events.is_empty() || self.events.contains(&notice.event),
        }
    }
}

/// Reads a job's own list of events; none: it has none.
pub fn events(notify: &Value) -> Result<Option<BTreeSet<Event>>, String> {
    let wrong = || "not a list of events; write it like [\"error\", \"complete\"]".to_owned();
    match notify {
        Value::Null => Ok(None),
        Value::Array(names) => {
            let names = names.iter().map(|name| name.as_str().ok_or_else(wrong));
            let events = names.map(|name| event(name?));
            events.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(wrong()),
    }
}

fn event(name: &str) -> Result<Event, String> {
    Event::named(name).ok_or_else(|| {
        format!(
            "{name:?} is no event; there are success, complete, error, cancelled, paused, resumed and deleted"
        )
    })
}

/// Reads the address of a contact.
pub fn contact(text: &str) -> Result<Address, String> {
    text.parse::<Address>()
        .map_err(|_| format!("{text:?} is not a mail address; write it like ops@example.com"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::notify::message::tests::notice;

    #[test]
    fn a_job_says_itself_what_it_tells() {
        let settings = |events: &[Event]| Settings {
            events: events.iter().copied().collect(),
            ..Settings::silent()
        };
        // What the process tells, what the job says, and whether an error is told.
        let cases: [(&[Event], Value, bool); 6] = [
            (&[], Value::Null, true),
            (&[Event::Error], Value::Null, true),
            (&[Event::Paused], Value::Null, false),
            (&[Event::Paused], json!(["error"]), true),
            (&[Event::Error], json!(["complete"]), false),
            (&[], json!([]), false),
        ];
        for (process, job, told) in cases {
            let mut notice = notice();
            notice.job["additional_arguments"]["notify"] = job.clone();
            assert_eq!(settings(process).wants(&notice), told, "{process:?} {job}");
        }
    }

    #[test]
    fn other_lists_are_refused() {
        for wrong in [
            json!("error"),
            json!([1]),
            json!(["errors"]),
            json!({"error": true}),
        ] {
            assert!(events(&wrong).is_err(), "{wrong}");
        }
    }
}
