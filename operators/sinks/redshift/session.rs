//! A connection over the PostgreSQL protocol.
//!
//! Everything but COPY goes by the simple protocol, as text, which Redshift and whatever stands before a warehouse
//! understand alike. A connection lives for one load: a warehouse is asked too rarely to keep one.

use std::time::Duration;

use futures::SinkExt;
use millstream_engine::{Error, Result};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::copy_text::Texts;
use super::failure::{Failure, Stopped};
use super::options::{RedshiftOptions, Tls};
use super::plan::Step;
use super::tls;

/// A warehouse that does not answer within this is away; one that was paused takes longer, and is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a silent connection is believed in. A COPY may take an hour without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How to connect.
#[derive(Clone, Debug)]
pub(super) struct Address {
    config: Config,
    tls: Tls,
    ca: Option<std::path::PathBuf>,
}

/// Rows of an answer, as text.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// What a transaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is committed.
    Committed,
    /// It was not to be made ([`Step::Unless`]).
    NotMade,
}

impl Address {
    pub fn new(options: &RedshiftOptions, url: &str) -> Result<Address> {
        let wrong = |e: String| {
            Error::config(format!(
                "url: {e}; write postgres://user@host:port/database, and the password in password"
            ))
        };
        let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| {
            wrong(std::error::Error::source(&e).map_or(e.to_string(), ToString::to_string))
        })?;
        if config.get_password().is_some() {
            return Err(wrong("it holds a password, which would be shown with it".into()));
        }
        if config.get_user().is_none() || config.get_hosts().len() != 1 {
            return Err(wrong("it does not name one user and one host".into()));
        }
        let local = match &config.get_hosts()[0] {
            Host::Tcp(name) => {
                let address = name.parse::<std::net::IpAddr>();
                name == "localhost" || address.is_ok_and(|a| a.is_loopback())
            }
            _ => true,
        };
        let tls = options
            .tls
            .unwrap_or(if local { Tls::Prefer } else { Tls::VerifyFull });
        if options.tls_ca.is_some() && tls != Tls::VerifyFull {
            return Err(Error::config(format!(
                "tls_ca: with tls = {tls:?} nobody asks for certificates; write tls = \"verify-full\""
            )));
        }
        if let Some(password) = &options.password {
            config.password(password.expose());
        }
        config
            .application_name("millstream")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE)
            .ssl_mode(match tls {
                Tls::Disable => SslMode::Disable,
                Tls::Prefer => SslMode::Prefer,
                Tls::Require | Tls::VerifyFull => SslMode::Require,
            });
        let ca = options.tls_ca.clone();
        Ok(Address { config, tls, ca })
    }

    pub async fn connect(&self) -> Result<Session> {
        let doing = "connecting to the warehouse";
        let failed = |e: tokio_postgres::Error| Failure::of(&e).into_error(doing);
        let (client, connection) = if self.tls == Tls::Disable {
            let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        } else {
            let connector = tls::connector(self.tls == Tls::VerifyFull, self.ca.as_deref())?;
            let (client, connection) = self.config.connect(connector).await.map_err(failed)?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        };
        let session = Session { client, connection };
        session
            .query("SET TimeZone TO 'UTC'")
            .await
            .map_err(|e| e.into_error(doing))?;
        Ok(session)
    }
}

/// A connection. Dropping it ends it, and what it had begun with it.
pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    /// Runs one statement, in a transaction of its own if none is open.
    pub async fn query(&self, sql: &str) -> Result<Rows, Stopped> {
        let answer = self
            .client
            .simple_query(sql)
            .await
            .map_err(|e| Stopped::Failed(Failure::of(&e)))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|i| row.get(i).map(ToString::to_string))
                    .collect(),
            ),
            _ => None,
        };
        Ok(answer.into_iter().filter_map(row).collect())
    }

    /// Runs the steps in one transaction. `texts` are the rows of [`Step::CopyIn`].
    pub async fn transact(&self, steps: &[Step], texts: &mut Texts) -> Result<Outcome, Stopped> {
        self.query("BEGIN").await?;
        for step in steps {
            match step {
                Step::Run(sql) => drop(self.query(sql).await?),
                Step::Unless(sql) => {
                    if !self.query(sql).await?.is_empty() {
                        self.query("ROLLBACK").await?;
                        return Ok(Outcome::NotMade);
                    }
                }
                Step::CopyIn(sql) => self.copy_in(sql, texts).await?,
            }
        }
        self.query("COMMIT").await?;
        Ok(Outcome::Committed)
    }

    async fn copy_in(&self, sql: &str, texts: &mut Texts) -> Result<(), Stopped> {
        let failure = |e: tokio_postgres::Error| Stopped::Failed(Failure::of(&e));
        let sink = self.client.copy_in(sql).await.map_err(failure)?;
        let mut sink = std::pin::pin!(sink);
        while let Some(text) = texts.next().await {
            let text = text.map_err(Stopped::Error)?;
            sink.send(text).await.map_err(failure)?;
        }
        sink.finish().await.map(drop).map_err(failure)
    }
}
