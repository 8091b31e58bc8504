//! Log lines on standard error: for people, or one JSON object per line for machines.
//!
//! `RUST_LOG` chooses what is logged: a level, or `target=level` pairs; `info` and above by default. Libraries log what
//! they send at the lower levels, so secrets that are known are taken out of every line.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use millstream_engine::secret::Secrets;
use millstream_engine::time::Timestamp;

use crate::cli::LogFormat;

/// What no line may say.
static SECRETS: LazyLock<RwLock<Secrets>> = LazyLock::new(|| RwLock::new(Secrets::of_environment()));

/// Starts logging; called once per process, before anything can log.
pub fn init(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = wanted.parse::<Targets>().ok().filter(|_| !wanted.is_empty());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Hiding(io::stderr()));
    let lines = match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => lines.event_format(Json).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

/// Takes `secrets` out of every line from now on.
pub fn hide(secrets: &Secrets) {
    let mut known = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    known.extend(secrets);
}

/// `text` without the secrets that are known.
pub fn without_secrets(text: &str) -> String {
    let known = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    known.hide(text)
}

/// A log without secrets. Lines come whole.
struct Hiding<W>(W);

impl<W: Write> Write for Hiding<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let hidden = without_secrets(&String::from_utf8_lossy(line));
        self.0.write_all(hidden.as_bytes())?;
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `{"at":"…Z","level":"INFO","target":"…","message":"…",<fields>}`: flat, so that a log shipper needs no
/// mapping. Spans are left out: pipeline and node are fields of the events that need them.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        let mut fields = Fields(Map::new());
        fields.put("at", Timestamp::now().to_string().into());
        fields.put("level", level(*about.level()).into());
        fields.put("target", about.target().into());
        event.record(&mut fields);
        writeln!(line, "{}", Value::Object(fields.0))
    }
}

fn level(of: Level) -> &'static str {
    match of {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.into(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.event_format(Json));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pipeline = "ads", rows = 3, "said \"no\"\nand left");
        });
        let bytes = lines.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["pipeline"], "ads");
        assert_eq!(line["rows"], 3);
        assert_eq!(line["message"], "said \"no\"\nand left");
        assert!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
}
