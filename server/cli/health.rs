//! `millstream health`: asks a running process whether its pipelines run, where there is nothing else that could, as in
//! an image without a shell.

use crate::cli::{Exit, Global, admin};

pub fn run(global: &Global) -> anyhow::Result<Exit> {
    let (status, body) = admin::ask(global.admin, "GET", "/readyz", None)?;
    println!("{}", body.trim());
    Ok(match status {
        200 => Exit::Ok,
        _ => Exit::Failed,
    })
}
