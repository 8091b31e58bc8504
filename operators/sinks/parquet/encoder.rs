//! Encodes a sink's rows on a thread of its own, so that the threads of the dataflow never compress or wait for a disk.
//!
//! The sink hands batches over and goes on; the thread cuts them by directory, encodes and compresses page by page, and
//! writes out row groups that are full. So what is left for a checkpoint are the last page of each column, the writing
//! of the last row group and the fsync.
//!
//! How it fails: the thread ends with the first error, and the next call of the sink gives it. A sink that is dropped
//! waits for the call its thread is in: whoever opens the lake next is alone with the staged files.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};
use tokio::sync::{mpsc, oneshot};

use super::super::disk::create_dirs;
use super::file::{FileFormat, Finished, OpenFile, Promised};
use super::files::{self, Files};
use super::partition::Partitioner;

/// Batches that wait for the thread: it has work while the sink's task gets the next one. Many more wait on the edge
/// before the sink, which is limited in bytes.
const QUEUED_BATCHES: usize = 4;

/// Gives files their names.
pub(super) trait Names: Send + 'static {
    /// The staged name of the next file in a directory, and its name in the lake.
    fn next(&mut self, directory: &str) -> (String, String);

    /// Files are of the checkpoint after `epoch` from here on.
    fn follow(&mut self, epoch: Epoch);
}

/// What a checkpoint can promise.
#[derive(Default)]
pub(super) struct Prepared {
    /// Files that go on growing.
    pub open: Vec<Promised>,
    /// Files that have become whole since the last checkpoint.
    pub finished: Vec<Finished>,
}

enum Command {
    Write(RecordBatch),
    Prepare {
        epoch: Epoch,
        close_after: Duration,
        reply: oneshot::Sender<Prepared>,
    },
}

/// The sink's end.
pub(super) struct Encoder {
    /// None once it is dropped.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Encoder {
    /// Starts the thread.
    pub fn start(
        partitioner: Partitioner,
        format: FileFormat,
        staging: PathBuf,
        files: Files,
        names: impl Names,
    ) -> Result<Encoder> {
        let (commands, received) = mpsc::channel(QUEUED_BATCHES);
        let worker = Worker {
            partitioner,
            format,
            staging,
            files,
            names,
        };
        let thread = thread::Builder::new()
            .name("parquet-encoder".into())
            .spawn(move || worker.run(received))
            .map_err(|e| Error::config(format!("cannot start a thread: {e}; raise the limit of threads")))?;
        Ok(Encoder {
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Hands rows over; waits while there are many.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.send(Command::Write(rows)).await
    }

    /// Makes durable what was written. Files that have been open for `close_after` or longer are closed.
    pub async fn prepare(&mut self, epoch: Epoch, close_after: Duration) -> Result<Prepared> {
        let (reply, prepared) = oneshot::channel();
        let command = Command::Prepare {
            epoch,
            close_after,
            reply,
        };
        self.send(command).await?;
        match prepared.await {
            Ok(prepared) => Ok(prepared),
            Err(_) => Err(self.failure()),
        }
    }

    async fn send(&mut self, command: Command) -> Result<()> {
        let sent = match &self.commands {
            Some(commands) => commands.send(command).await.is_ok(),
            None => false,
        };
        match sent {
            true => Ok(()),
            false => Err(self.failure()),
        }
    }

    /// Why the thread has ended, or is about to.
    fn failure(&mut self) -> Error {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            Some(Err(_)) => Error::bug("the thread that encodes parquet panicked"),
            Some(Ok(Ok(()))) | None => Error::bug("the thread that encodes parquet is gone"),
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // Its error is of rows that nobody waits for any more.
            drop(thread.join());
        }
    }
}

/// The thread's end.
struct Worker<N> {
    partitioner: Partitioner,
    format: FileFormat,
    staging: PathBuf,
    files: Files,
    names: N,
}

impl<N: Names> Worker<N> {
    /// Until the sink is dropped or something fails. Batches that a dropped sink has left in the queue are not written.
    fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<()> {
        while let Some(command) = commands.blocking_recv() {
            match command {
                // Nobody waits for it where the pipeline has failed meanwhile.
                Command::Write(_) if commands.is_closed() => {}
                Command::Prepare { reply, .. } if reply.is_closed() => {}
                Command::Write(rows) => self.write(rows)?,
                Command::Prepare {
                    epoch,
                    close_after,
                    reply,
                } => {
                    let prepared = self.prepare(epoch, close_after)?;
                    drop(reply.send(prepared));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, rows: RecordBatch) -> Result<()> {
        for (directory, rows) in self.partitioner.split(rows)? {
            let rows = self.format.of(&rows)?;
            let (staging, format, names) = (&self.staging, &self.format, &mut self.names);
            self.files.write(directory, &rows, |directory| {
                create_dirs(staging)?;
                let (staged, name) = names.next(directory);
                OpenFile::create(staging, staged, files::key(directory, &name), format)
            })?;
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, close_after: Duration) -> Result<Prepared> {
        self.files.finish_where(|file| file.age() >= close_after)?;
        let open = self.files.promise(&self.format)?;
        self.files.sync(&self.staging)?;
        self.names.follow(epoch);
        Ok(Prepared {
            open,
            finished: std::mem::take(&mut self.files.finished),
        })
    }
}
