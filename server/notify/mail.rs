//! Mails over SMTP. One mail per recipient, so that one wrong address does not keep the others from theirs.
//!
//! What the answers mean: 2xx is taken; 4xx, no answer and no connection are "later"; 5xx is a refusal, unless the
//! server refuses us rather than the mail (a wrong password, TLS it does not have): then it is "later", too, because
//! whoever runs the process can mend that, and the mail is as good as before.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error as SmtpError;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use millstream_engine::secret::Secret;
use url::{Host, Url};

use crate::catalog::model::Notice;
use crate::notify::{Outcome, TIMEOUT, message};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// A mail server and whom mails come from.
#[derive(Clone)]
pub struct Mailer {
    transport: Transport,
    from: Mailbox,
}

impl Mailer {
    /// Makes no connection.
    pub fn new(server: &Secret, from: &Mailbox) -> anyhow::Result<Mailer> {
        let builder = Transport::from_url(&with_tls(server.expose()))?;
        Ok(Mailer {
            transport: builder.timeout(Some(TIMEOUT)).build(),
            from: from.clone(),
        })
    }

    /// Sends a notice to one contact.
    pub async fn send(&self, notice: &Notice, to: &Address, public_url: &str) -> Outcome {
        let mail = match self.mail(notice, to, public_url) {
            Ok(mail) => mail,
            Err(error) => return Outcome::Refused(format!("no mail can be made of it: {error}")),
        };
        match tokio::time::timeout(TIMEOUT, self.transport.send(mail)).await {
            Err(_) => Outcome::Later(format!("no answer within {TIMEOUT:?}"), None),
            Ok(Ok(_)) => Outcome::Taken,
            Ok(Err(error)) if error.is_permanent() && self.reachable().await.is_ok() => {
                Outcome::Refused(causes(&error))
            }
            Ok(Err(error)) => Outcome::Later(causes(&error), None),
        }
    }

    /// Whether the server takes us: connection, TLS, user.
    pub async fn reachable(&self) -> Result<(), String> {
        match tokio::time::timeout(TIMEOUT, self.transport.test_connection()).await {
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("it closed the connection".into()),
            Ok(Err(error)) => Err(causes(&error)),
        }
    }

    fn mail(&self, notice: &Notice, to: &Address, public_url: &str) -> anyhow::Result<Message> {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_micros(notice.at.0.max(0) as u64);
        let domain = self.from.email.domain();
        let mut mail = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.clone()))
            .subject(message::subject(notice))
            .date(at)
            // The same whenever it is sent again, so that the recipient's server can tell.
            .message_id(Some(format!("<{}@{domain}>", message::key(notice))))
            .header(ContentType::TEXT_PLAIN)
            .body(message::body(notice, public_url))?;
        // Nobody is on holiday for a machine (RFC 3834).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut()
            .insert_raw(HeaderValue::new(name, "auto-generated".into()));
        Ok(mail)
    }
}

/// Reads the address of a mail server.
pub fn server(text: &str) -> Result<Secret, String> {
    let wrong = "not a mail server; write smtp://user:password@host:port or smtps://…";
    // What it is that is wrong may be a password.
    Transport::from_url(&with_tls(text)).map_err(|_| wrong.to_owned())?;
    Ok(Secret::new(text))
}

/// Says how TLS is used where the address does not: never on this machine, always with a password, else where the
/// server offers it.
fn with_tls(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return text.into();
    };
    if url.scheme() != "smtp" || url.query_pairs().any(|(key, _)| key == "tls") {
        return text.into();
    }
    let here = match url.host() {
        // For a scheme it does not know, the parser leaves addresses as names.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if here {
        return text.into();
    }
    let tls = if url.password().is_some() {
        "required"
    } else {
        "opportunistic"
    };
    if url.port().is_none() {
        // 25 between servers, 587 for those who sign in (RFC 6409).
        let port = if url.password().is_some() { 587 } else { 25 };
        let _ = url.set_port(Some(port));
    }
    url.query_pairs_mut().append_pair("tls", tls);
    url.into()
}

fn causes(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::notice;

    #[test]
    fn passwords_go_over_tls() {
        let cases = [
            ("smtp://127.0.0.1:2525", "smtp://127.0.0.1:2525"),
            ("smtp://u:p@localhost:2525", "smtp://u:p@localhost:2525"),
            (
                "smtp://u:p@mail.example",
                "smtp://u:p@mail.example:587?tls=required",
            ),
            ("smtp://mail.example", "smtp://mail.example:25?tls=opportunistic"),
            (
                "smtp://u:p@mail.example:26?tls=opportunistic",
                "smtp://u:p@mail.example:26?tls=opportunistic",
            ),
            ("smtps://u:p@mail.example", "smtps://u:p@mail.example"),
        ];
        for (given, meant) in cases {
            assert_eq!(with_tls(given), meant);
            assert!(server(given).is_ok(), "{given}");
        }
        for wrong in [
            "mail.example",
            "http://mail.example",
            "smtp://",
            "smtp://h?tls=maybe",
        ] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_mail_is_the_same_however_often_it_is_sent() {
        let from = "Millstream <mill@example.com>".parse().expect("an address");
        let mailer = Mailer::new(&Secret::new("smtp://127.0.0.1:1"), &from).expect("a server");
        let to = "ops@example.com".parse().expect("an address");
        let mail = || {
            mailer
                .mail(&notice(), &to, "http://x")
                .expect("a mail")
                .formatted()
        };
        assert_eq!(mail(), mail());
        let text = String::from_utf8(mail()).expect("text");
        for part in [
            "Message-ID: <0b7e.error.7@example.com>\r\n",
            "Subject: Millstream job 0b7e status changed\r\n",
            "To: ops@example.com\r\n",
            "Date: Mon, 30 Nov 2026 00:53:20 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "\r\nuuid: 0b7e\r\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        // Nobody listens on port 1.
        let outcome = mailer.send(&notice(), &to, "http://x").await;
        assert!(matches!(outcome, Outcome::Later(..)), "{outcome:?}");
    }
}
