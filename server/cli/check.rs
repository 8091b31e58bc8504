//! `millstream check`: every mistake of every file, in one pass.

use crate::cli::{Exit, Which};
use crate::pipelines::{self, Loaded};

pub fn run(which: &Which) -> anyhow::Result<Exit> {
    let files = match pipelines::find(&which.paths) {
        Ok(files) => files,
        Err(error) => return Ok(pipelines::refuse(&error)),
    };
    let registry = millstream_operators::registry(Default::default());
    let loaded: Vec<Loaded> = files.into_iter().map(|file| file.load(&registry)).collect();
    for one in &loaded {
        println!("{}", one.verdict());
    }
    let all_ok = loaded.iter().all(|one| one.plan.is_ok());
    Ok(if all_ok { Exit::Ok } else { Exit::Invalid })
}
