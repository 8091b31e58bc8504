//! A stand-in for Redshift: it speaks the PostgreSQL protocol, takes Redshift's grammar only, and keeps its tables in a
//! real PostgreSQL.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::Sink;
use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::noop::NoopStartupHandler;
use pgwire::api::query::SimpleQueryHandler;
use pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::{ClientInfo, PgWireServerHandlers, Type};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::tokio::process_socket;
use tokio_postgres::Client;

use super::copy::{LoadError, Refused, copy};
use super::grammar::{Statement, parse};
use super::postgres::{self, Postgres, Rows, simple};

/// What Redshift has and PostgreSQL has not.
const SYSTEM: &str = "
CREATE TABLE stl_load_errors (starttime timestamp DEFAULT now(), filename char(256), line_number bigint, colname char(127), \
 err_reason char(100));
CREATE VIEW sys_load_error_detail AS SELECT starttime AS start_time, filename AS file_name, line_number, \
 colname AS column_name, err_reason AS error_message FROM stl_load_errors;
CREATE TABLE svv_external_tables (schemaname text, tablename text, statement text);
CREATE FUNCTION json_parse(text) RETURNS jsonb AS 'SELECT $1::jsonb' LANGUAGE sql;
";

/// A running stand-in; it ends with the test process.
pub struct Redshift {
    pub port: u16,
    pub said: Arc<Mutex<Vec<String>>>,
}

impl Redshift {
    /// Before a PostgreSQL, reading staged files at `s3`.
    pub fn start(tables: &Postgres, s3: &str) -> Redshift {
        tables.query(SYSTEM);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("a socket of ours");
        let port = socket.local_addr().expect("an address").port();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (notes, s3, behind) = (said.clone(), s3.to_string(), tables.port);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let socket = tokio::net::TcpListener::from_std(socket).expect("it does not block");
                while let Ok((client, _)) = socket.accept().await {
                    let (s3, said) = (s3.clone(), notes.clone());
                    tokio::spawn(async move {
                        let Ok(session) = Session::open(behind, s3, said).await else {
                            return;
                        };
                        let _ = process_socket(client, None, Arc::new(Handlers(Arc::new(session)))).await;
                    });
                }
            });
        });
        Redshift { port, said }
    }

    pub fn statements(&self) -> Vec<String> {
        self.said.lock().expect("no test panics with it").clone()
    }
}

/// A connection, and the one to PostgreSQL behind it.
pub struct Session {
    client: Client,
    s3: String,
    behind: u16,
    said: Arc<Mutex<Vec<String>>>,
    in_transaction: AtomicBool,
}

impl Session {
    pub async fn open(
        behind: u16,
        s3: String,
        said: Arc<Mutex<Vec<String>>>,
    ) -> Result<Session, tokio_postgres::Error> {
        Ok(Session {
            client: postgres::connect(behind).await?,
            s3,
            behind,
            said,
            in_transaction: AtomicBool::new(false),
        })
    }

    /// Does what Redshift would do: code and message if it refuses.
    pub async fn run(&self, sql: &str) -> Result<Rows, (String, String)> {
        self.said.lock().expect("no test panics with it").push(sql.into());
        let done = self.try_run(sql).await;
        if done.is_err() && self.in_transaction.load(SeqCst) {
            // What only the stand-in refused ends the transaction, too.
            let _ = simple(&self.client, "SELECT 1/0").await;
        }
        done
    }

    async fn try_run(&self, sql: &str) -> Result<Rows, (String, String)> {
        let statement = parse(sql).map_err(|e| ("42601".to_string(), e))?;
        let internal = |message: String| ("XX000".to_string(), message);
        let alone = |what: &str| {
            let refused = || {
                (
                    "25001".to_string(),
                    format!("{what} cannot run inside a transaction block"),
                )
            };
            (!self.in_transaction.load(SeqCst))
                .then_some(())
                .ok_or_else(refused)
        };
        match statement {
            Statement::Same(sql) => {
                match sql.as_str() {
                    "BEGIN" => self.in_transaction.store(true, SeqCst),
                    "COMMIT" | "ROLLBACK" => self.in_transaction.store(false, SeqCst),
                    _ => {}
                }
                self.forward(&sql).await
            }
            Statement::Alone(sql) => {
                alone(&sql)?;
                self.forward(&sql).await
            }
            Statement::Copy(of) => match copy(&self.client, &self.s3, &of).await {
                Ok(_) => Ok(Vec::new()),
                Err(Refused::Error(message)) => Err(internal(message)),
                Err(Refused::Load(error)) => {
                    self.note(error).await;
                    Err(internal(format!(
                        "Load into table '{}' failed.  Check 'stl_load_errors' system table for details.",
                        of.into
                    )))
                }
            },
            Statement::External(sql) => {
                if !sql.contains("EXTERNAL SCHEMA") {
                    alone(&sql)?;
                }
                let names: Vec<&str> = sql.split('"').skip(1).step_by(2).collect();
                if sql.contains("CREATE EXTERNAL TABLE") || sql.contains(" PARTITION ") {
                    let quoted = sql.replace('\'', "''");
                    let (schema, table) = (names[0], names[1]);
                    self.forward(&format!(
                        "INSERT INTO svv_external_tables VALUES ('{schema}', '{table}', '{quoted}')"
                    ))
                    .await?;
                }
                Ok(Vec::new())
            }
        }
    }

    async fn forward(&self, sql: &str) -> Result<Rows, (String, String)> {
        let done = simple(&self.client, sql).await;
        let mut rows = done.map_err(|e| match e.as_db_error() {
            Some(db) => (db.code().code().to_string(), db.message().to_string()),
            None => ("08006".into(), e.to_string()),
        })?;
        for value in rows.iter_mut().flatten() {
            if value.as_deref() == Some("jsonb") {
                *value = Some("super".into());
            }
        }
        Ok(rows)
    }

    /// Outside the transaction, which is about to be rolled back.
    async fn note(&self, error: LoadError) {
        let client = postgres::connect(self.behind)
            .await
            .expect("it takes connections");
        let LoadError {
            file,
            line,
            column,
            reason,
        } = error;
        let insert = format!(
            "INSERT INTO stl_load_errors (filename, line_number, colname, err_reason) VALUES ('{file}', {line}, \
             '{column}', '{reason}')"
        );
        simple(&client, &insert).await.expect("a table of ours");
    }
}

struct Handlers(Arc<Session>);

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.0.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.0.clone()
    }
}

impl NoopStartupHandler for Session {}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, _: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match self.run(query).await {
            Ok(rows) => answer(query, rows).map(|answer| vec![answer]),
            Err((code, message)) => {
                let error = ErrorInfo::new("ERROR".into(), code, message);
                Err(PgWireError::UserError(Box::new(error)))
            }
        }
    }
}

fn answer(query: &str, rows: Rows) -> PgWireResult<Response> {
    if !query.trim_start().to_lowercase().starts_with("select") {
        return Ok(Response::Execution(Tag::new("OK")));
    }
    let width = rows.first().map_or(0, Vec::len);
    let field = |i| FieldInfo::new(format!("c{i}"), None, None, Type::VARCHAR, FieldFormat::Text);
    let fields: Arc<Vec<FieldInfo>> = Arc::new((0..width).map(field).collect());
    let mut encoded = Vec::new();
    let mut encoder = DataRowEncoder::new(fields.clone());
    for row in rows {
        for value in row {
            encoder.encode_field(&value)?;
        }
        encoded.push(Ok(encoder.take_row()));
    }
    Ok(Response::Query(QueryResponse::new(
        fields,
        futures::stream::iter(encoded),
    )))
}
