//! The lines of raw files that are JSON objects. Others are left out, and counted: a delivery that broke off in the middle
//! of a line must not keep the rest from readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::object_store::{Error, Result};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream};
use serde::de::IgnoredAny;

/// Bytes of a line at most: what is longer is no row, and must not fill memory.
const LINE_BYTES: usize = 64 << 20;

/// Lines that were left out, by file.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut(Arc<Mutex<BTreeMap<String, u64>>>);

impl LeftOut {
    fn add(&self, file: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(file.to_owned()).or_default() += 1;
    }

    pub fn all(&self) -> Vec<(String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(file, lines)| (file.clone(), *lines)).collect()
    }
}

/// Passes on the good lines of `file`.
pub(super) fn good_lines(
    from: BoxStream<'static, Result<Bytes>>,
    file: String,
    left_out: LeftOut,
) -> BoxStream<'static, Result<Bytes>> {
    let lines = Lines {
        file,
        left_out,
        begun: Vec::new(),
    };
    let good = stream::try_unfold(Some((from, lines)), |state| async move {
        let Some((mut from, mut lines)) = state else {
            return Ok(None);
        };
        match from.try_next().await? {
            Some(bytes) => Ok(Some((lines.push(&bytes)?, Some((from, lines))))),
            None => Ok(Some((lines.end(), None))),
        }
    });
    let good = good.try_filter(|bytes: &Bytes| std::future::ready(!bytes.is_empty()));
    Box::pin(good)
}

struct Lines {
    file: String,
    left_out: LeftOut,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<Bytes> {
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (ended, begun) = bytes.split_at(whole);
        let mut good = Vec::with_capacity(self.begun.len() + ended.len());
        for line in ended.split_inclusive(|b| *b == b'\n') {
            match self.begun.is_empty() {
                true => self.take(line, &mut good),
                false => {
                    let mut joined = std::mem::take(&mut self.begun);
                    joined.extend_from_slice(line);
                    self.take(&joined, &mut good);
                }
            }
        }
        self.begun.extend_from_slice(begun);
        match self.begun.len() > LINE_BYTES {
            true => Err(too_long(&self.file)),
            false => Ok(good.into()),
        }
    }

    /// The last line may have no end.
    fn end(&mut self) -> Bytes {
        let (last, mut good) = (std::mem::take(&mut self.begun), Vec::new());
        self.take(&last, &mut good);
        good.into()
    }

    fn take(&self, line: &[u8], good: &mut Vec<u8>) {
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        match text.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
            true => {
                good.extend_from_slice(text);
                good.push(b'\n');
            }
            false => self.left_out.add(&self.file),
        }
    }
}

fn too_long(file: &str) -> Error {
    let message = format!("{file} has a line of more than {} MiB", LINE_BYTES >> 20);
    Error::Generic {
        store: "lines",
        source: Box::new(millstream_engine::Error::data(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_left_out_wherever_the_bytes_are_cut() {
        let text = b"{\"a\":1}\n\nnot json\n  {\"a\":2} \r\n[1]\n{\"a\":\n{\"a\":3}";
        for size in 1..text.len() {
            let mut lines = Lines {
                file: "f".into(),
                left_out: LeftOut::default(),
                begun: Vec::new(),
            };
            let mut good = Vec::new();
            for part in text.chunks(size) {
                good.extend(lines.push(part).unwrap());
            }
            good.extend(lines.end());
            assert_eq!(good, b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", "cut by {size}");
            assert_eq!(lines.left_out.all(), [("f".to_string(), 3)]);
        }
    }
}
