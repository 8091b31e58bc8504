//! What a warehouse says when something fails, sorted by who must act.
//!
//! PostgreSQL gives a code for everything. Redshift gives `XX000`, an internal error, for most of what COPY does not
//! like, and its Data API no code at all, so that the text has to tell.

use millstream_engine::{Error, ErrorClass};

/// Why a statement failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// SQLSTATE, where the warehouse gave one.
    pub code: String,
    pub message: String,
    /// The connection broke: whether the statement was carried out is not known.
    pub lost: bool,
}

/// SQLSTATEs of passing troubles, by their beginning: of the connection, of resources, deadlocks and serialization, locks,
/// a server that is starting or stopping.
const RETRY: [&str; 6] = ["08", "53", "40", "55P03", "57P", "57014"];

/// Somebody else created the same thing in the same moment.
const RACES: [&str; 3] = ["42P07", "42701", "42710"];

/// Parts of Redshift's texts, in lower case.
const RETRY_TEXTS: [&str; 11] = [
    "serializable isolation violation",
    "could not serialize",
    "slowdown",
    "please reduce your request rate",
    "503",
    "timeout",
    "timed out",
    "try again",
    "connection",
    "out of memory",
    "is being restored",
];
const DATA_TEXTS: [&str; 6] = [
    "stl_load_errors",
    "sys_load_error_detail",
    "stl_error",
    "incompatible parquet schema",
    "value too long",
    "number of columns",
];
const RIGHTS_TEXTS: [&str; 6] = [
    "accessdenied",
    "access denied",
    "not authorized",
    "permission denied",
    "does not exist",
    "must be owner",
];

impl Failure {
    /// Of a connection.
    pub fn of(e: &tokio_postgres::Error) -> Failure {
        let Some(db) = e.as_db_error() else {
            let mut message = e.to_string();
            let mut cause = std::error::Error::source(e);
            while let Some(e) = cause {
                message = format!("{message}: {e}");
                cause = e.source();
            }
            return Failure {
                message,
                lost: true,
                ..Failure::default()
            };
        };
        let mut message = db.message().to_string();
        for more in [db.detail(), db.hint()].into_iter().flatten() {
            message += &format!(" ({})", more.trim());
        }
        Failure {
            code: db.code().code().into(),
            message,
            lost: false,
        }
    }

    /// Of a service that gives no code.
    pub fn told(message: impl Into<String>) -> Failure {
        let message = message.into();
        Failure {
            message,
            ..Failure::default()
        }
    }

    /// Whether a guard was hit that divides by zero.
    pub fn is_division_by_zero(&self) -> bool {
        self.code == "22012" || self.message.to_lowercase().contains("divi") && self.message.contains("zero")
    }

    /// Whether COPY has written down somewhere what it did not like.
    pub fn has_load_errors(&self) -> bool {
        let text = self.message.to_lowercase();
        DATA_TEXTS[..3].iter().any(|part| text.contains(part))
    }

    /// The error of `doing`.
    pub fn into_error(self, doing: impl std::fmt::Display) -> Error {
        let class = self.class();
        let code = match self.code.as_str() {
            "" => String::new(),
            code => format!(" [{code}]"),
        };
        let message = format!("{doing}: {}{code}", self.message);
        match class {
            ErrorClass::Retry { .. } => Error::retry(message),
            ErrorClass::Data => Error::data(message),
            _ => Error::config(format!("{message}{}", self.help())),
        }
    }

    fn class(&self) -> ErrorClass {
        const RETRY_CLASS: ErrorClass = ErrorClass::Retry { after: None };
        let text = self.message.to_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let code = self.code.as_str();
        match code {
            _ if self.lost && (text.contains("certificate") || text.contains("does not support tls")) => {
                ErrorClass::Config
            }
            _ if self.lost && (text.contains("password missing") || text.contains("authentication")) => {
                ErrorClass::Config
            }
            _ if self.lost => RETRY_CLASS,
            _ if RETRY.iter().any(|r| code.starts_with(r)) || RACES.contains(&code) => RETRY_CLASS,
            // Two that create one table: PostgreSQL's own catalog refuses the second.
            "23505" if text.contains("\"pg_") => RETRY_CLASS,
            "" | "XX000" if says(&DATA_TEXTS) => ErrorClass::Data,
            "" | "XX000" if says(&RIGHTS_TEXTS) => ErrorClass::Config,
            "" | "XX000" if says(&RETRY_TEXTS) => RETRY_CLASS,
            _ if code.starts_with("22") || code.starts_with("23") => ErrorClass::Data,
            _ => ErrorClass::Config,
        }
    }

    fn help(&self) -> &'static str {
        match self.code.as_str() {
            "28P01" | "28000" => "; check user and password",
            "42501" => "; grant the user what docs/warehouse.md lists",
            "3D000" => "; check the database in url",
            "3F000" => "; create the schema, or name another one in schema",
            _ if self.message.to_lowercase().contains("certificate") => {
                "; name the certificate that vouches for the warehouse in tls_ca, and connect by the host name it is for"
            }
            _ => "; check names and rights (docs/warehouse.md)",
        }
    }
}

/// Why statements were not carried out, as far as is known.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The warehouse refused, or the connection to it broke.
    Failed(Failure),
    /// Something before the warehouse: what was staged, or the Data API.
    Error(Error),
}

impl Stopped {
    /// The error of `doing`.
    pub fn into_error(self, doing: impl std::fmt::Display) -> Error {
        match self {
            Stopped::Failed(failure) => failure.into_error(doing),
            Stopped::Error(error) => error.within(doing),
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_who_must_act() {
        for (code, message, expect) in [
            ("40001", "could not serialize access", "retry"),
            ("40P01", "deadlock detected", "retry"),
            ("57P03", "the database system is starting up", "retry"),
            ("42P07", "relation \"t\" already exists", "retry"),
            (
                "23505",
                "duplicate key value violates unique constraint \"pg_type_typname_nsp_index\"",
                "retry",
            ),
            (
                "23505",
                "duplicate key value violates unique constraint \"t_pkey\"",
                "data",
            ),
            ("23502", "null value in column", "data"),
            ("22001", "value too long for type character varying(3)", "data"),
            ("28P01", "password authentication failed", "config"),
            ("42501", "permission denied for table t", "config"),
            ("3F000", "schema \"x\" does not exist", "config"),
            (
                "XX000",
                "Load into table 't' failed.  Check 'stl_load_errors' system table for details.",
                "data",
            ),
            (
                "XX000",
                "1023 Serializable isolation violation on table - 100",
                "retry",
            ),
            (
                "XX000",
                "S3ServiceException:Access Denied,Status 403,Error AccessDenied",
                "config",
            ),
            (
                "XX000",
                "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown",
                "retry",
            ),
            (
                "XX000",
                "Spectrum Scan Error. has an incompatible Parquet schema for column",
                "data",
            ),
            ("", "ERROR: relation \"x\" does not exist", "config"),
        ] {
            let failure = Failure {
                code: code.into(),
                message: message.into(),
                lost: false,
            };
            let class = match failure.class() {
                ErrorClass::Retry { .. } => "retry",
                ErrorClass::Data => "data",
                ErrorClass::Config => "config",
                ErrorClass::Bug => "bug",
            };
            assert_eq!(class, expect, "{code} {message}");
        }
    }
}
