//! The types of a warehouse column: from the SQL a schema is written in, to Arrow, and back to SQL.
//!
//! The words are Redshift's, which counts the width of text in bytes and takes the aliases of PostgreSQL. A type is
//! written back under the name Redshift shows it by in its catalog, or, for PostgreSQL, under one that holds the same
//! values. See <https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html>.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_engine::config::did_you_mean;

/// The widest `varchar`, in bytes; what `varchar(max)` stands for.
pub const VARCHAR_MAX: u32 = 65_535;

/// The widest `char`, in bytes.
pub const CHAR_MAX: u32 = 4_096;

/// The width of `varchar` and `text` without one.
const VARCHAR_DEFAULT: u32 = 256;

/// Digits of a `decimal`, at most.
const DECIMAL_DIGITS: u8 = 38;

/// Digits of a `decimal` without a precision.
const DECIMAL_DEFAULT: u8 = 18;

/// Key of a field's metadata: its `sql_attr`, such as `varchar(7) not null distkey`.
pub const SQL: &str = "sql";

/// Key of a schema's metadata: the names of the columns it is sorted by, with commas between them.
pub const SORTKEY: &str = "sortkey";

/// Key of a schema's metadata: the name of its table.
pub const TABLE: &str = "table";

/// Whose SQL is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Amazon Redshift.
    #[default]
    Redshift,
    /// PostgreSQL, without keys of distribution and order.
    Postgres,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// 16 bits.
    SmallInt,
    /// 32 bits.
    Integer,
    /// 64 bits.
    BigInt,
    /// Four bytes.
    Real,
    /// Eight bytes.
    Double,
    /// Digits, and how many of them are behind the point.
    Decimal(u8, u8),
    /// True or false.
    Boolean,
    /// Text of a fixed width in bytes; blanks at its end mean nothing.
    Char(u32),
    /// Text, at most so many bytes of UTF-8.
    Varchar(u32),
    /// A day.
    Date,
    /// A time without a zone, to the microsecond.
    Timestamp,
    /// A time in UTC, to the microsecond.
    TimestampTz,
    /// JSON.
    Super,
}

impl SqlType {
    /// Parses the type that `text` begins with; what follows is given back, trimmed.
    ///
    /// # Errors
    /// What is wrong with it and what to write.
    pub fn parse_prefix(text: &str) -> Result<(SqlType, &str), TypeError> {
        let (word, rest) = word(text);
        let word = word.to_ascii_lowercase();
        let (arguments, rest) = arguments(rest)?;
        let (word, rest) = two_words(word, rest, arguments.is_some());
        // Of "character varying(7)" the arguments follow the second word.
        let (arguments, rest) = match arguments {
            None => self::arguments(rest)?,
            some => (some, rest),
        };
        let (name, rest) = zone(word, rest);
        let found = SqlType::named(&name, arguments.as_deref())?;
        Ok((found, rest.trim_start()))
    }

    fn named(name: &str, arguments: Option<&str>) -> Result<SqlType, TypeError> {
        let plain = |of: SqlType| match arguments {
            None => Ok(of),
            Some(_) => Err(TypeError::new(format!("{name} takes no width"))),
        };
        match name {
            "smallint" | "int2" => plain(SqlType::SmallInt),
            "integer" | "int" | "int4" => plain(SqlType::Integer),
            "bigint" | "int8" => plain(SqlType::BigInt),
            "real" | "float4" => plain(SqlType::Real),
            "double precision" | "float8" | "float" => plain(SqlType::Double),
            "decimal" | "numeric" => decimal(arguments),
            "boolean" | "bool" => plain(SqlType::Boolean),
            "char" | "character" | "nchar" => width(name, arguments, 1, CHAR_MAX).map(SqlType::Char),
            "bpchar" => width(name, arguments, VARCHAR_DEFAULT, CHAR_MAX).map(SqlType::Char),
            "varchar" | "nvarchar" | "character varying" | "text" => {
                width(name, arguments, VARCHAR_DEFAULT, VARCHAR_MAX).map(SqlType::Varchar)
            }
            "date" => plain(SqlType::Date),
            "timestamp" | "timestamp without time zone" => plain(SqlType::Timestamp),
            "timestamptz" | "timestamp with time zone" => plain(SqlType::TimestampTz),
            "super" => plain(SqlType::Super),
            other => Err(TypeError {
                message: format!("unknown type {other:?}"),
                help: did_you_mean(other, NAMES.iter().copied(), '`', "types"),
            }),
        }
    }

    /// The Arrow type whose values it holds. JSON is text.
    pub fn to_arrow(self) -> DataType {
        match self {
            SqlType::SmallInt => DataType::Int16,
            SqlType::Integer => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Real => DataType::Float32,
            SqlType::Double => DataType::Float64,
            SqlType::Decimal(digits, behind) => DataType::Decimal128(digits, behind as i8),
            SqlType::Boolean => DataType::Boolean,
            SqlType::Char(_) | SqlType::Varchar(_) | SqlType::Super => DataType::Utf8,
            SqlType::Date => DataType::Date32,
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The type that holds the values of an Arrow type, where there is one. Text is as wide as can be.
    pub fn of_arrow(of: &DataType) -> Option<SqlType> {
        Some(match of {
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => SqlType::SmallInt,
            DataType::Int32 | DataType::UInt16 => SqlType::Integer,
            DataType::Int64 | DataType::UInt32 => SqlType::BigInt,
            DataType::UInt64 => SqlType::Decimal(20, 0),
            DataType::Float16 | DataType::Float32 => SqlType::Real,
            DataType::Float64 => SqlType::Double,
            DataType::Decimal32(digits, behind)
            | DataType::Decimal64(digits, behind)
            | DataType::Decimal128(digits, behind) => SqlType::Decimal(*digits, u8::try_from(*behind).ok()?),
            DataType::Boolean => SqlType::Boolean,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Varchar(VARCHAR_MAX),
            DataType::Date32 => SqlType::Date,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
            DataType::Dictionary(_, values) => SqlType::of_arrow(values)?,
            _ => return None,
        })
    }

    /// The type of a column: what its [`SQL`] metadata says, else what holds its Arrow type.
    ///
    /// # Errors
    /// The metadata is no type, or no type holds such values.
    pub fn of_field(field: &Field) -> Result<SqlType, TypeError> {
        if let Some(sql) = field.metadata().get(SQL) {
            return SqlType::parse_prefix(sql).map(|(found, _)| found);
        }
        SqlType::of_arrow(field.data_type()).ok_or_else(|| {
            let (name, of) = (field.name(), field.data_type());
            TypeError::new(format!("no warehouse column holds column {name:?} of type {of}"))
        })
    }

    /// Bytes that a text may have.
    pub fn width(self) -> Option<u32> {
        match self {
            SqlType::Char(bytes) | SqlType::Varchar(bytes) => Some(bytes),
            SqlType::Super => Some(VARCHAR_MAX),
            _ => None,
        }
    }

    /// Its name in `dialect`.
    pub fn sql(self, dialect: Dialect) -> String {
        match (self, dialect) {
            (SqlType::SmallInt, _) => "smallint".into(),
            (SqlType::Integer, _) => "integer".into(),
            (SqlType::BigInt, _) => "bigint".into(),
            (SqlType::Real, _) => "real".into(),
            (SqlType::Double, _) => "double precision".into(),
            (SqlType::Decimal(digits, behind), _) => format!("decimal({digits},{behind})"),
            (SqlType::Boolean, _) => "boolean".into(),
            (SqlType::Char(bytes), _) => format!("char({bytes})"),
            (SqlType::Varchar(bytes), _) => format!("varchar({bytes})"),
            (SqlType::Date, _) => "date".into(),
            (SqlType::Timestamp, _) => "timestamp".into(),
            (SqlType::TimestampTz, _) => "timestamptz".into(),
            (SqlType::Super, Dialect::Redshift) => "super".into(),
            (SqlType::Super, Dialect::Postgres) => "text".into(),
        }
    }

    /// Whether a column can become `wider` where it stands: Redshift and PostgreSQL widen `varchar`, and nothing else
    /// without writing the table again.
    pub fn widens_to(self, wider: SqlType) -> bool {
        matches!((self, wider), (SqlType::Varchar(from), SqlType::Varchar(to)) if from < to)
    }

    /// Whether every value of it is one of `other`, too.
    pub fn fits(self, other: SqlType) -> bool {
        match (self, other) {
            (SqlType::Varchar(from), SqlType::Varchar(to)) => from <= to,
            (from, to) => from == to,
        }
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql(Dialect::Redshift))
    }
}

impl FromStr for SqlType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<SqlType, TypeError> {
        match SqlType::parse_prefix(text.trim())? {
            (found, "") => Ok(found),
            (_, rest) => Err(TypeError::new(format!("{rest:?} follows the type"))),
        }
    }
}

/// Why a text is no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: Option<String>,
}

impl TypeError {
    pub(super) fn new(message: impl Into<String>) -> TypeError {
        let (message, help) = (message.into(), None);
        TypeError { message, help }
    }
}

/// What may be written.
const NAMES: &[&str] = &[
    "smallint",
    "int2",
    "integer",
    "int",
    "int4",
    "bigint",
    "int8",
    "real",
    "float4",
    "double precision",
    "float8",
    "float",
    "decimal",
    "numeric",
    "boolean",
    "bool",
    "char",
    "character",
    "nchar",
    "bpchar",
    "varchar",
    "nvarchar",
    "character varying",
    "text",
    "date",
    "timestamp",
    "timestamptz",
    "super",
];

/// The word that `text` begins with, and what follows.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    text.split_at(end.unwrap_or(text.len()))
}

/// What stands between the brackets that `text` begins with, and what follows.
fn arguments(text: &str) -> Result<(Option<String>, &str), TypeError> {
    let Some(inner) = text.trim_start().strip_prefix('(') else {
        return Ok((None, text));
    };
    match inner.split_once(')') {
        Some((inside, rest)) => Ok((Some(inside.trim().into()), rest)),
        None => Err(TypeError::new("a bracket is not closed")),
    }
}

/// `double precision` and `character varying`.
fn two_words(first: String, rest: &str, has_arguments: bool) -> (String, &str) {
    let (second, after) = word(rest);
    match (first.as_str(), second.to_ascii_lowercase().as_str()) {
        ("double", "precision") | ("character", "varying") if !has_arguments => {
            (format!("{first} {}", second.to_ascii_lowercase()), after)
        }
        _ => (first, rest),
    }
}

/// `timestamp with time zone`, `timestamp without time zone`.
fn zone(name: String, rest: &str) -> (String, &str) {
    if name != "timestamp" {
        return (name, rest);
    }
    let (with, after) = word(rest);
    let (time, after) = word(after);
    let (zone, after) = word(after);
    let words = [with, time, zone].map(str::to_ascii_lowercase);
    match words.each_ref().map(String::as_str) {
        ["with" | "without", "time", "zone"] => (format!("{name} {}", words.join(" ")), after),
        _ => (name, rest),
    }
}

fn width(name: &str, argument: Option<&str>, default: u32, most: u32) -> Result<u32, TypeError> {
    let Some(argument) = argument else {
        return Ok(default);
    };
    if argument.eq_ignore_ascii_case("max") {
        return Ok(most);
    }
    match argument.parse() {
        Ok(bytes) if (1..=most).contains(&bytes) => Ok(bytes),
        _ => Err(TypeError::new(format!(
            "{name}({argument}) is no width; write 1 to {most} bytes"
        ))),
    }
}

fn decimal(arguments: Option<&str>) -> Result<SqlType, TypeError> {
    let Some(arguments) = arguments else {
        return Ok(SqlType::Decimal(DECIMAL_DEFAULT, 0));
    };
    let (digits, behind) = arguments.split_once(',').unwrap_or((arguments, "0"));
    match (digits.trim().parse::<u8>(), behind.trim().parse::<u8>()) {
        (Ok(digits), Ok(behind)) if (1..=DECIMAL_DIGITS).contains(&digits) && behind <= digits => {
            Ok(SqlType::Decimal(digits, behind))
        }
        _ => Err(TypeError::new(format!(
            "decimal({arguments}) is no precision; write decimal(digits, digits behind the point), at most {DECIMAL_DIGITS} digits"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_parsed_and_written_back() {
        for (text, expect) in [
            ("int2", "smallint"),
            ("INT", "integer"),
            ("int8", "bigint"),
            ("float4", "real"),
            ("float", "double precision"),
            ("Double  Precision", "double precision"),
            ("numeric", "decimal(18,0)"),
            ("numeric(10)", "decimal(10,0)"),
            ("decimal( 38 , 2 )", "decimal(38,2)"),
            ("bool", "boolean"),
            ("char", "char(1)"),
            ("character(12)", "char(12)"),
            ("character varying(7)", "varchar(7)"),
            ("varchar", "varchar(256)"),
            ("VARCHAR(MAX)", "varchar(65535)"),
            ("text", "varchar(256)"),
            ("date", "date"),
            ("timestamp without time zone", "timestamp"),
            ("timestamp with time zone", "timestamptz"),
            ("super", "super"),
            ("varchar(0)", "varchar(0) is no width; write 1 to 65535 bytes"),
            (
                "varchar(65536)",
                "varchar(65536) is no width; write 1 to 65535 bytes",
            ),
            ("char(4097)", "char(4097) is no width; write 1 to 4096 bytes"),
            ("varchar(7", "a bracket is not closed"),
            ("int(4)", "int takes no width"),
            (
                "decimal(3,4)",
                "decimal(3,4) is no precision; write decimal(digits, digits behind the point), at most 38 digits",
            ),
            ("varchr(7)", "unknown type \"varchr\""),
            ("", "unknown type \"\""),
        ] {
            let got = text.parse::<SqlType>();
            let shown = got.as_ref().map_or_else(TypeError::to_string, SqlType::to_string);
            assert_eq!(shown, expect, "{text:?}");
            if let Ok(found) = got {
                assert_eq!(found.to_string().parse(), Ok(found), "{text:?}");
                let arrow = found.to_arrow();
                let back = SqlType::of_arrow(&arrow).expect("a type of ours");
                assert_eq!(back.to_arrow(), arrow, "{text:?}");
            }
        }
    }

    #[test]
    fn what_follows_a_type_is_given_back() {
        for (text, expect) in [
            ("varchar(7) not null distkey", "varchar(7) | not null distkey"),
            ("timestamp default sysdate", "timestamp | default sysdate"),
            ("double precision sortkey", "double precision | sortkey"),
            ("character varying (7) encode lzo", "varchar(7) | encode lzo"),
        ] {
            let (found, rest) = SqlType::parse_prefix(text).expect("a type");
            assert_eq!(format!("{found} | {rest}"), expect, "{text:?}");
        }
    }
}
