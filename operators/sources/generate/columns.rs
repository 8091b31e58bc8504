//! Rows whose columns each follow a rule: `sequence`, `uniform` or `choice`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::source::SourceContext;
use millstream_engine::{Error, Result};

use super::options::{GenerateOptions, Schedule, ValueSpec};
use super::random::Random;
use crate::formats::json::decode_rows;

/// The generator.
pub(super) struct Columns {
    schema: SchemaRef,
    seed: u64,
    schedule: Schedule,
    rules: Vec<Rule>,
}

enum Rule {
    EventTime,
    /// Numbers that count up; with a text in front where the column is one.
    Sequence(i64, Option<String>),
    /// Numbers between two, the second left out.
    Uniform(f64, f64, Option<String>),
    /// One of the values.
    Choice(ArrayRef),
}

impl Columns {
    pub fn new(options: &GenerateOptions, cx: &SourceContext, schedule: Schedule) -> Result<Columns> {
        if options.stream.is_some() {
            return Err(Error::config("stream goes with generator = \"nexmark\""));
        }
        if let Some(name) = options
            .values
            .keys()
            .find(|name| cx.schema.index_of(name).is_err())
        {
            return Err(Error::config(format!("values: there is no column {name:?}")));
        }
        let fields = cx.schema.fields().iter().enumerate();
        let rules = fields.map(|(index, field)| match index == cx.event_time {
            true => Ok(Rule::EventTime),
            false => rule(field, options.values.get(field.name())),
        });
        Ok(Columns {
            schema: cx.schema.clone(),
            seed: options.seed,
            schedule,
            rules: rules.collect::<Result<_>>()?,
        })
    }

    pub fn rows(&self, numbers: &[u64]) -> Result<RecordBatch> {
        let columns = self.rules.iter().zip(0u64..).zip(self.schema.fields());
        let columns = columns.map(|((rule, column), field)| {
            let random = |number: u64| Random::of(self.seed, number, column);
            self.column(rule, field, numbers, &random)
        });
        Ok(RecordBatch::try_new(
            self.schema.clone(),
            columns.collect::<Result<_>>()?,
        )?)
    }

    fn column(
        &self,
        rule: &Rule,
        field: &Field,
        numbers: &[u64],
        random: &dyn Fn(u64) -> Random,
    ) -> Result<ArrayRef> {
        let numbers = numbers.iter().copied();
        let whole = |values: &mut dyn Iterator<Item = i64>, prefix: &Option<String>| -> Result<ArrayRef> {
            let values = values.collect::<Int64Array>();
            match prefix {
                Some(prefix) => {
                    let texts = values.values().iter().map(|value| format!("{prefix}{value}"));
                    Ok(Arc::new(StringArray::from_iter_values(texts)))
                }
                None => Ok(cast(&values, field.data_type())?),
            }
        };
        match rule {
            Rule::EventTime => {
                let times = numbers.map(|number| self.schedule.at(number));
                Ok(Arc::new(TimestampMicrosecondArray::from_iter_values(times)))
            }
            Rule::Sequence(first, prefix) => whole(
                &mut numbers.map(|number| first.wrapping_add(number as i64)),
                prefix,
            ),
            Rule::Uniform(from, to, _) if *field.data_type() == DataType::Float64 => {
                let values = numbers.map(|number| from + (to - from) * random(number).unit());
                Ok(Arc::new(Float64Array::from_iter_values(values)))
            }
            Rule::Uniform(from, to, prefix) => {
                let span = (to - from) as u64;
                whole(
                    &mut numbers.map(|number| *from as i64 + random(number).below(span) as i64),
                    prefix,
                )
            }
            Rule::Choice(values) => {
                let count = values.len() as u64;
                let indices = numbers.map(|number| random(number).below(count));
                Ok(take(values, &UInt64Array::from_iter_values(indices), None)?)
            }
        }
    }
}

/// The rule of a column.
fn rule(field: &Field, spec: Option<&ValueSpec>) -> Result<Rule> {
    let name = field.name();
    let refuse = |what: &str| Err(Error::config(format!("values.{name}: {what}")));
    let Some(spec) = spec else {
        return refuse("nothing says what this column holds; write for example { sequence = 1 }");
    };
    let number = matches!(
        field.data_type(),
        DataType::Int32 | DataType::Int64 | DataType::Float64
    );
    let text = *field.data_type() == DataType::Utf8;
    if spec.prefix.is_some() && !(text && spec.choice.is_none()) {
        return refuse("prefix is for numbers in a column of type string");
    }
    let prefix = text.then(|| spec.prefix.clone().unwrap_or_default());
    match (spec.sequence, spec.uniform, &spec.choice) {
        (Some(first), None, None) if number || text => Ok(Rule::Sequence(first, prefix)),
        (None, Some([from, to]), None) if number || text => {
            let (whole, small) = (
                *field.data_type() != DataType::Float64,
                *field.data_type() == DataType::Int32,
            );
            let fits = if small {
                f64::from(i32::MIN)..=f64::from(i32::MAX)
            } else {
                -9e15..=9e15
            };
            if !(from < to && fits.contains(&from) && fits.contains(&to)) {
                return refuse("uniform needs two numbers, the second larger, within the type of the column");
            }
            if whole && (from.fract() != 0.0 || to.fract() != 0.0) {
                return refuse("uniform needs whole numbers in a column that is not double");
            }
            Ok(Rule::Uniform(from, to, prefix))
        }
        (None, None, Some(values)) if !values.is_empty() => {
            let schema = Arc::new(Schema::new(vec![field.clone()]));
            let rows = values
                .iter()
                .map(|value| serde_json::json!({ name: value }))
                .collect::<Vec<_>>();
            let rows = decode_rows(schema, &rows);
            let rows =
                rows.map_err(|e| Error::config(e.to_string()).within(format!("values.{name}.choice")))?;
            Ok(Rule::Choice(Arc::clone(rows.column(0))))
        }
        (Some(_), None, None) | (None, Some(_), None) => {
            refuse("numbers go into columns of type int, bigint, double or string; write a choice")
        }
        _ => refuse("write exactly one of sequence, uniform and choice (with at least one value)"),
    }
}
