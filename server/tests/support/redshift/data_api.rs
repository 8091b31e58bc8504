//! The Redshift Data API before the stand-in: JSON 1.1 over HTTP. Statements go on by themselves, and are said to be under
//! way the first time somebody asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::postgres::{Postgres, Rows};
use super::stand_in::{Redshift, Session};

/// How often somebody asked again for a statement that was under way.
pub static FOLLOWED: AtomicUsize = AtomicUsize::new(0);
/// Statements that were cancelled.
pub static CANCELLED: AtomicUsize = AtomicUsize::new(0);

/// Statements, and whether somebody has asked for them.
type Known = HashMap<String, (Statement, bool)>;

enum Statement {
    Running(AbortHandle),
    Done(Result<Rows, String>),
    Aborted,
}

#[derive(Clone)]
struct Api {
    behind: u16,
    s3: String,
    said: Arc<Mutex<Vec<String>>>,
    known: Arc<Mutex<Known>>,
}

/// Serves it; gives its address. It ends with the test process.
pub fn start(redshift: &Redshift, tables: &Postgres, s3: &str) -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket of ours");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    let api = Api {
        behind: tables.port,
        s3: s3.into(),
        said: redshift.said.clone(),
        known: Arc::default(),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let socket = TcpListener::from_std(socket).expect("it does not block");
            while let Ok((client, _)) = socket.accept().await {
                let api = api.clone();
                tokio::spawn(async move { drop(serve(client, api).await) });
            }
        });
    });
    url
}

async fn serve(client: TcpStream, api: Api) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let (mut line, mut length, mut target, mut last) = (String::new(), 0, String::new(), false);
        loop {
            line.clear();
            if client.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or(0);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => target = value.into(),
                Some((name, value)) if name.eq_ignore_ascii_case("connection") => last = value == "close",
                None if line.trim().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = api.answer(&target, &body).await;
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        client.get_mut().write_all((head + &answer).as_bytes()).await?;
        if last {
            return Ok(());
        }
    }
}

impl Api {
    async fn answer(&self, target: &str, body: &Value) -> (&'static str, Value) {
        let refuse = |why: &str| {
            (
                "400 Bad Request",
                json!({ "__type": "ValidationException", "Message": why }),
            )
        };
        let id = body["Id"].as_str().unwrap_or_default();
        match target {
            "RedshiftData.ExecuteStatement" | "RedshiftData.BatchExecuteStatement" => {
                let provisioned = ["ClusterIdentifier", "DbUser", "Database"].map(|key| &body[key]);
                let serverless = ["WorkgroupName", "DbUser", "Database"].map(|key| &body[key]);
                if provisioned != [&json!("warehouse"), &json!("loader"), &json!("shop")]
                    && serverless != [&json!("millstream"), &Value::Null, &json!("advertising")]
                {
                    return refuse("no such cluster, database or user");
                }
                let sql = body["Sql"].as_str().map(|sql| vec![sql.to_string()]);
                let all = body["Sqls"].as_array();
                let all = all.map(|all| {
                    all.iter()
                        .filter_map(|s| s.as_str().map(ToString::to_string))
                        .collect()
                });
                let Some(statements): Option<Vec<String>> = sql.or(all) else {
                    return refuse("no statement");
                };
                let id = self.begin(statements, body["Sqls"].is_array());
                ("200 OK", json!({ "Id": id }))
            }
            "RedshiftData.DescribeStatement" => {
                let mut all = self.known.lock().expect("no test panics with it");
                let Some((statement, asked)) = all.get_mut(id) else {
                    return refuse("no such statement");
                };
                let first = !std::mem::replace(asked, true);
                let status = match statement {
                    _ if first => json!({ "Id": id, "Status": "STARTED" }),
                    Statement::Running(_) => {
                        FOLLOWED.fetch_add(1, SeqCst);
                        json!({ "Id": id, "Status": "STARTED" })
                    }
                    Statement::Aborted => json!({ "Id": id, "Status": "ABORTED" }),
                    Statement::Done(Ok(rows)) => {
                        json!({ "Id": id, "Status": "FINISHED", "HasResultSet": !rows.is_empty() })
                    }
                    Statement::Done(Err(why)) => {
                        json!({ "Id": id, "Status": "FAILED", "Error": format!("ERROR: {why}") })
                    }
                };
                ("200 OK", status)
            }
            "RedshiftData.CancelStatement" => {
                let mut all = self.known.lock().expect("no test panics with it");
                let Some((statement, _)) = all.get_mut(id) else {
                    return refuse("no such statement");
                };
                let Statement::Running(task) = statement else {
                    return refuse("it is not running");
                };
                // PostgreSQL rolls back what a session leaves.
                task.abort();
                *statement = Statement::Aborted;
                CANCELLED.fetch_add(1, SeqCst);
                ("200 OK", json!({ "Status": true }))
            }
            "RedshiftData.GetStatementResult" => {
                let all = self.known.lock().expect("no test panics with it");
                let Some((Statement::Done(Ok(rows)), _)) = all.get(id) else {
                    return refuse("no result");
                };
                let value = |value: &Option<String>| match value {
                    Some(text) => json!({ "stringValue": text }),
                    None => json!({ "isNull": true }),
                };
                let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.iter().map(value).collect()).collect();
                ("200 OK", json!({ "Records": rows }))
            }
            other => refuse(&format!("{other:?} is not known")),
        }
    }

    /// Begins statements; gives their id.
    fn begin(&self, statements: Vec<String>, batch: bool) -> String {
        let mut all = self.known.lock().expect("no test panics with it");
        let id = format!("statement-{}", all.len());
        let (api, of) = (self.clone(), id.clone());
        let task = tokio::spawn(async move {
            let done = api.run(&statements, batch).await;
            let mut all = api.known.lock().expect("no test panics with it");
            if let Some((statement @ Statement::Running(_), _)) = all.get_mut(&of) {
                *statement = Statement::Done(done);
            }
        });
        all.insert(id.clone(), (Statement::Running(task.abort_handle()), false));
        id
    }

    /// In a session of its own, a batch in one transaction.
    async fn run(&self, statements: &[String], batch: bool) -> Result<Rows, String> {
        let session = Session::open(self.behind, self.s3.clone(), self.said.clone()).await;
        let session = session.map_err(|e| e.to_string())?;
        let told = |(_, message): (String, String)| message;
        if batch {
            session.run("BEGIN").await.map_err(told)?;
        }
        let mut rows = Vec::new();
        for statement in statements {
            // PostgreSQL rolls back what a session leaves.
            rows = session.run(statement).await.map_err(told)?;
        }
        if batch {
            session.run("COMMIT").await.map_err(told)?;
        }
        Ok(rows)
    }
}
