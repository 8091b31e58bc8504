//! Redshift through its Data API: statements as requests, without a connection.
//!
//! A transaction is one batch of statements, given as a whole. It cannot look at an answer and stop, so where it is not
//! to go on it divides by zero. Should this process die meanwhile, the batch goes on without it: the next try waits for
//! the ledger's lock and then finds its row. Who stops waiting for it (a run that is cancelled, or takes too long) has it
//! cancelled, as far as that is possible: not while the answer that names it is on its way, and not once it commits.

use std::time::Duration;

use aws_sdk_redshiftdata::Client;
use aws_sdk_redshiftdata::types::{Field, StatusString};
use millstream_engine::{Error, Result};

use super::failure::{Failure, Stopped};
use super::options::{DataApi, RedshiftOptions};
use super::plan::Step;
use super::session::{Outcome, Rows};
use crate::aws::{self, AwsOptions};

/// The pauses between questions whether a statement is done: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Statements that the service takes in one batch.
const BATCH: usize = 40;

/// Checks without side effects what the service would refuse.
pub(super) fn check(of: &DataApi) -> Result<()> {
    let wrong = |why: &str| Err(Error::config(format!("data_api: {why}")));
    match (&of.cluster, &of.workgroup) {
        (None, None) => return wrong("name a cluster or a workgroup"),
        (Some(_), Some(_)) => return wrong("names both a cluster and a workgroup; take one of them away"),
        (Some(_), None) if of.user.is_none() && of.secret_arn.is_none() => {
            return wrong("a cluster needs a user, or a secret_arn that holds one");
        }
        (None, Some(_)) if of.user.is_some() => {
            return wrong(
                "a workgroup's user is that of the AWS credentials; take user away, or name a secret_arn",
            );
        }
        _ => {}
    }
    address(of, &AwsOptions::default()).check()
}

fn address(of: &DataApi, aws: &AwsOptions) -> AwsOptions {
    AwsOptions {
        endpoint: of.endpoint.clone(),
        ..aws.clone()
    }
}

/// A warehouse behind the service.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: Client,
    of: DataApi,
}

impl Api {
    pub async fn open(of: &DataApi, options: &RedshiftOptions) -> Result<Api> {
        let client = aws::redshift_data(&address(of, &options.aws)).await?;
        Ok(Api {
            client,
            of: of.clone(),
        })
    }

    /// Runs one statement in a transaction of its own.
    pub async fn query(&self, sql: &str) -> Result<Rows, Stopped> {
        let execute = self.client.execute_statement().sql(sql);
        let sent = execute
            .set_cluster_identifier(self.of.cluster.clone())
            .set_workgroup_name(self.of.workgroup.clone())
            .database(&self.of.database)
            .set_db_user(self.of.user.clone())
            .set_secret_arn(self.of.secret_arn.clone())
            .statement_name("millstream")
            .send()
            .await;
        let sent = sent.map_err(|e| aws::classify(e, "asking the Redshift Data API"))?;
        let id = sent.id.unwrap_or_default();
        match self.done(&id).await? {
            true => self.rows(&id).await,
            false => Ok(Vec::new()),
        }
    }

    /// Runs the steps in one transaction.
    pub async fn transact(&self, steps: &[Step]) -> Result<Outcome, Stopped> {
        if steps.len() > BATCH {
            return Err(Stopped::Error(Error::config(format!(
                "a load of {} statements, but the Data API takes {BATCH}; add the new columns to the table by hand, or \
                 connect with url",
                steps.len()
            ))));
        }
        let statements = steps.iter().map(statement).collect::<Result<Vec<_>>>()?;
        let sent = self
            .client
            .batch_execute_statement()
            .set_sqls(Some(statements))
            .set_cluster_identifier(self.of.cluster.clone())
            .set_workgroup_name(self.of.workgroup.clone())
            .database(&self.of.database)
            .set_db_user(self.of.user.clone())
            .set_secret_arn(self.of.secret_arn.clone())
            .statement_name("millstream")
            .send()
            .await;
        let sent = sent.map_err(|e| aws::classify(e, "asking the Redshift Data API"))?;
        match self.done(&sent.id.unwrap_or_default()).await {
            Ok(_) => Ok(Outcome::Committed),
            Err(Stopped::Failed(failure)) if failure.is_division_by_zero() => Ok(Outcome::NotMade),
            Err(stopped) => Err(stopped),
        }
    }

    /// Waits until a statement is done; whether it has rows.
    async fn done(&self, id: &str) -> Result<bool, Stopped> {
        let mut waiting = Waiting {
            client: &self.client,
            id,
            given_up: true,
        };
        let done = self.described(id).await;
        waiting.given_up = false;
        done
    }

    async fn described(&self, id: &str) -> Result<bool, Stopped> {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = self.client.describe_statement().id(id).send().await;
            let asked =
                asked.map_err(|e| aws::classify(e, "asking the Redshift Data API for a statement"))?;
            match asked.status {
                Some(StatusString::Finished) => return Ok(asked.has_result_set.unwrap_or(false)),
                Some(StatusString::Aborted) => {
                    return Err(Stopped::Error(Error::retry(
                        "a statement of the Redshift Data API was cancelled by somebody",
                    )));
                }
                Some(StatusString::Failed) => {
                    let why = asked.error.unwrap_or_else(|| "it failed without a reason".into());
                    return Err(Stopped::Failed(Failure::told(why)));
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn rows(&self, id: &str) -> Result<Rows, Stopped> {
        let mut pages = self.client.get_statement_result().id(id).into_paginator().send();
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| aws::classify(e, "reading an answer of the Redshift Data API"))?;
            let page = page.records.into_iter();
            rows.extend(page.map(|row| row.iter().map(value).collect::<Vec<_>>()));
        }
        Ok(rows)
    }
}

/// A statement that somebody waits for.
struct Waiting<'a> {
    client: &'a Client,
    id: &'a str,
    given_up: bool,
}

impl Drop for Waiting<'_> {
    /// Has it cancelled, in the background: what is dropped cannot wait. An error is no more than what there was without.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if !self.given_up {
            return;
        }
        let (cancel, id) = (self.client.cancel_statement().id(self.id), self.id.to_string());
        runtime.spawn(async move {
            if let Err(error) = cancel.send().await {
                let error = aws::classify(error, "cancelling a statement of the Redshift Data API");
                tracing::warn!(statement = id, %error, "it goes on by itself");
            }
        });
    }
}

fn statement(step: &Step) -> Result<String> {
    match step {
        Step::Run(sql) => Ok(sql.clone()),
        Step::Unless(sql) => Ok(format!(
            "SELECT 1 / (CASE WHEN COUNT(*) = 0 THEN 1 ELSE 0 END) FROM ({sql}) AS \"millstream_guard\""
        )),
        Step::CopyIn(_) => Err(Error::bug("rows for a connection are given to the Data API")),
    }
}

fn value(of: &Field) -> Option<String> {
    match of {
        Field::StringValue(text) => Some(text.clone()),
        Field::LongValue(number) => Some(number.to_string()),
        Field::DoubleValue(number) => Some(number.to_string()),
        Field::BooleanValue(is) => Some(is.to_string()),
        _ => None,
    }
}
