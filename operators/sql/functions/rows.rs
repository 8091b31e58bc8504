//! Functions of texts and integers, row by row: what they have in common.
//!
//! A [`Definition`] is what differs. Its `make` turns the literal arguments of a call into what is done for each
//! row: that is where a path or a pattern is read, once while planning (a malformed one is refused there) and once
//! per batch.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Int64Array, Int64Builder, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

/// A function.
#[derive(Debug)]
pub(super) struct Definition {
    /// Its name in SQL.
    pub name: &'static str,
    /// The lists of arguments it takes.
    pub takes: &'static [&'static [Kind]],
    /// What it gives.
    pub gives: Gives,
    /// The function for one row, from the arguments that are literals.
    pub make: Make,
}

/// From a call's literals to what is done for each row; says what is wrong with them.
pub(super) type Make = fn(&Literals<'_>) -> Result<PerRow, String>;

/// What is done for a row without NULLs; `None` is NULL.
pub(super) type PerRow = Box<dyn for<'a> Fn(&Row<'a>) -> Option<Value<'a>>>;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A text that must be a literal.
    Literal,
    Integer,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Text,
    Boolean,
    Integer,
}

/// A value that a function gives.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i64),
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<Cow<'a, str>>) -> Value<'a> {
        Value::Text(text.into())
    }
}

/// The arguments of a call that are literals: `None` where one is not, or is NULL.
pub(super) struct Literals<'a>(Vec<Option<&'a ScalarValue>>);

impl Literals<'_> {
    /// How many arguments the call has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The text of argument `index`.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.0.get(index).copied().flatten()?.try_as_str().flatten()
    }

    /// The integer of argument `index`.
    pub fn integer(&self, index: usize) -> Option<i64> {
        match self.0.get(index).copied().flatten()? {
            ScalarValue::Int64(value) => *value,
            _ => None,
        }
    }
}

/// The arguments of one row, none of them NULL.
pub(super) struct Row<'a> {
    columns: &'a [Column<'a>],
    row: usize,
}

impl<'a> Row<'a> {
    /// The text of argument `index`, which is one.
    pub fn text(&self, index: usize) -> &'a str {
        match &self.columns[index] {
            Column::Text(values, one) => values.value(if *one { 0 } else { self.row }),
            Column::Integer(..) => "",
        }
    }

    /// The integer of argument `index`, if it is given.
    pub fn integer(&self, index: usize) -> Option<i64> {
        match self.columns.get(index)? {
            Column::Integer(values, one) => Some(values.value(if *one { 0 } else { self.row })),
            Column::Text(..) => None,
        }
    }
}

/// An argument's values, or its one value for all rows.
enum Column<'a> {
    Text(&'a StringArray, bool),
    Integer(&'a Int64Array, bool),
}

impl<'a> Column<'a> {
    fn of(values: &'a ArrayRef, one: bool) -> Result<Column<'a>> {
        match values.data_type() {
            DataType::Utf8 => Ok(Column::Text(values.as_string(), one)),
            DataType::Int64 => Ok(Column::Integer(values.as_primitive::<Int64Type>(), one)),
            other => internal_err!("an argument was not coerced: {other}"),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Text(values, one) => values.is_null(if *one { 0 } else { row }),
            Column::Integer(values, one) => values.is_null(if *one { 0 } else { row }),
        }
    }
}

/// A [`Definition`] as DataFusion takes it.
#[derive(Debug)]
pub(super) struct RowFunction {
    definition: &'static Definition,
    signature: Signature,
}

impl RowFunction {
    pub fn udf(definition: &'static Definition) -> ScalarUDF {
        let types = |kinds: &&[Kind]| TypeSignature::Exact(kinds.iter().map(|k| k.data_type()).collect());
        let takes = definition.takes.iter().map(types).collect();
        ScalarUDF::from(RowFunction {
            definition,
            signature: Signature::one_of(takes, Volatility::Immutable),
        })
    }

    /// What is done for each row of a call with these literals.
    fn make(&self, literals: &Literals<'_>) -> Result<PerRow> {
        let name = self.definition.name;
        (self.definition.make)(literals).or_else(|problem| plan_err!("{name}(): {problem}"))
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Text | Kind::Literal => DataType::Utf8,
            Kind::Integer => DataType::Int64,
        }
    }
}

impl Gives {
    fn data_type(self) -> DataType {
        match self {
            Gives::Text => DataType::Utf8,
            Gives::Boolean => DataType::Boolean,
            Gives::Integer => DataType::Int64,
        }
    }
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for RowFunction {}

impl std::hash::Hash for RowFunction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.definition.gives.data_type())
    }

    /// Runs while planning, with the call's literals: what is wrong with them is refused here.
    fn return_field_from_args(&self, call: ReturnFieldArgs) -> Result<FieldRef> {
        let name = self.definition.name;
        let takes = self
            .definition
            .takes
            .iter()
            .find(|t| t.len() == call.scalar_arguments.len());
        for (index, kind) in takes.into_iter().flat_map(|kinds| kinds.iter().enumerate()) {
            if *kind == Kind::Literal && call.scalar_arguments[index].is_none() {
                return plan_err!("{name}(): argument {} must be a literal text", index + 1);
            }
        }
        let checked = self.make(&Literals(call.scalar_arguments.to_vec()))?;
        drop(checked);
        Ok(Arc::new(Field::new(
            name,
            self.definition.gives.data_type(),
            true,
        )))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let literals = call.args.iter().map(|arg| match arg {
            ColumnarValue::Scalar(value) => Some(value),
            ColumnarValue::Array(_) => None,
        });
        let literals = literals.collect::<Vec<_>>();
        let per_row = self.make(&Literals(literals.clone()))?;
        let arrays = call.args.iter().map(|arg| match arg {
            ColumnarValue::Scalar(value) => value.to_array(),
            ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let columns = arrays.iter().zip(&literals);
        let columns = columns.map(|(array, literal)| Column::of(array, literal.is_some()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let one = literals.iter().all(Option::is_some);
        let rows = if one { 1 } else { call.number_rows };
        let values = (0..rows).map(|row| match columns.iter().any(|c| c.is_null(row)) {
            true => None,
            false => per_row(&Row {
                columns: &columns,
                row,
            }),
        });
        let result = collect(self.definition.gives, values, rows);
        match one {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// The values as a column; one of another kind than announced would be NULL.
fn collect<'a>(gives: Gives, values: impl Iterator<Item = Option<Value<'a>>>, rows: usize) -> ArrayRef {
    match gives {
        Gives::Text => {
            let mut column = StringBuilder::with_capacity(rows, 0);
            for value in values {
                match value {
                    Some(Value::Text(text)) => column.append_value(text),
                    _ => column.append_null(),
                }
            }
            Arc::new(column.finish())
        }
        Gives::Boolean => {
            let mut column = BooleanBuilder::with_capacity(rows);
            for value in values {
                match value {
                    Some(Value::Boolean(it)) => column.append_value(it),
                    _ => column.append_null(),
                }
            }
            Arc::new(column.finish())
        }
        Gives::Integer => {
            let mut column = Int64Builder::with_capacity(rows);
            for value in values {
                match value {
                    Some(Value::Integer(it)) => column.append_value(it),
                    _ => column.append_null(),
                }
            }
            Arc::new(column.finish())
        }
    }
}
