//! Recovery from a checkpoint that is not the newest one, because that cannot be read any more: the lake holds rows
//! of later checkpoints, which the sources will replay, so they are taken back first.
//!
//! Before it publishes, the sink notes the checkpoint in its own directory; a recovery at an earlier one
//! knows by that. Files opened after the earlier checkpoint are removed (their names say so). A file that was open
//! then, and is published since, is fetched back into staging, where recovery cuts it at what was promised. Both
//! can be repeated after a crash in the middle.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use millstream_engine::message::Epoch;
use millstream_engine::sink::SinkContext;
use millstream_engine::{Error, Result};

use super::super::disk::{cannot, create_dirs, sync_dir};
use super::files::name_of;
use super::{Lake, Promise};

/// Notes durably that files of `epoch` are about to be published.
pub(super) fn note(data_dir: &Path, epoch: Epoch) -> Result<()> {
    if noted(data_dir)? == Some(epoch) {
        return Ok(());
    }
    create_dirs(data_dir)?;
    let (path, new) = (record(data_dir), data_dir.join("published.tmp"));
    let write = || {
        let mut file = File::create(&new)?;
        write!(file, "{}", epoch.0)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|e| cannot("write", &path, e))?;
    sync_dir(data_dir)
}

/// The checkpoint noted last.
pub(super) fn noted(data_dir: &Path) -> Result<Option<Epoch>> {
    let path = record(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot("read", &path, e)),
    };
    let number = text.trim().parse();
    number.map(|number| Some(Epoch(number))).map_err(|_| {
        Error::config(format!(
            "{}: {text:?} is not a checkpoint; remove the file",
            path.display()
        ))
    })
}

/// Takes back what was published after the checkpoint `epoch`, whose `promise` is about to be kept.
pub(super) async fn undo(
    lake: &Lake,
    epoch: Epoch,
    promise: &Promise,
    staged: &str,
    cx: &SinkContext,
) -> Result<()> {
    create_dirs(&lake.staging)?;
    for open in &promise.open {
        lake.store.fetch_back(&lake.staging, open).await?;
    }
    // Staged names are hidden.
    let prefix = &staged[1..];
    let later = |key: &str| opened_in(name_of(key), prefix).is_some_and(|opened| opened > epoch);
    let removed = lake.store.remove("", &later).await?;
    tracing::warn!(
        pipeline = cx.pipeline,
        sink = cx.name,
        epoch = epoch.0,
        removed,
        "a later checkpoint had published files; they are taken out of the lake and their rows read again"
    );
    Ok(())
}

/// The checkpoint a file of ours was opened for.
fn opened_in(name: &str, prefix: &str) -> Option<Epoch> {
    let rest = name.strip_prefix(prefix)?.strip_suffix(".parquet")?;
    let (epoch, _) = rest.split_once('-')?;
    epoch.parse().ok().map(Epoch)
}

fn record(data_dir: &Path) -> PathBuf {
    data_dir.join("published")
}
