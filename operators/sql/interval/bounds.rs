//! Reads from a join's condition how far apart in event time two rows that match can be.
//!
//! Each conjunct that compares sums of event times and intervals is brought to the form
//! `right - left <comparison> constant`. The conjuncts stay in the condition, so what is read here decides only
//! how long rows are kept, and whether a comparison includes its limit does not matter.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::expressions::{BinaryExpr, CastExpr, Column, Literal};

const DAY: i64 = 86_400_000_000;

/// A right row can match a left row when its event time is at least `lower` and at most `upper` after it;
/// microseconds, which may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub lower: i64,
    pub upper: i64,
}

impl Bounds {
    /// The event times, relative to that of a row of `side`, at which its matches stand.
    pub fn partners(&self, side: usize) -> (i64, i64) {
        match side {
            0 => (self.lower, self.upper),
            _ => (-self.upper, -self.lower),
        }
    }

    /// How long after a row of `side` its last match can stand.
    pub fn reach(&self, side: usize) -> i64 {
        self.partners(side).1
    }
}

/// What a condition says about time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub lower: Option<i64>,
    pub upper: Option<i64>,
    /// A bound in months, which have no fixed length.
    pub in_months: bool,
}

impl Found {
    /// Adds what one conjunct says; `side_of` tells whose event time a column of it is.
    pub fn add(&mut self, conjunct: &Arc<dyn PhysicalExpr>, side_of: &dyn Fn(usize) -> Option<usize>) {
        let Some(compare) = conjunct.downcast_ref::<BinaryExpr>() else {
            return;
        };
        let sides = [compare.left(), compare.right()].map(|e| Sum::of(e, side_of));
        let [Some(left), Some(right)] = sides else {
            return;
        };
        let Some(sum) = left.minus(right) else { return };
        // right - left <op> constant
        let (op, constant) = match (sum.left, sum.right) {
            (-1, 1) => (Some(*compare.op()), sum.micros.checked_neg()),
            (1, -1) => (compare.op().swap(), Some(sum.micros)),
            _ => return,
        };
        let (Some(op), Some(constant)) = (op, constant) else {
            return;
        };
        if sum.months && !matches!(op, Operator::NotEq) {
            self.in_months = true;
            return;
        }
        match op {
            Operator::Gt | Operator::GtEq => self.at_least(constant),
            Operator::Lt | Operator::LtEq => self.at_most(constant),
            Operator::Eq => self.exactly(constant),
            _ => {}
        }
    }

    fn at_least(&mut self, micros: i64) {
        self.lower = Some(self.lower.map_or(micros, |known| known.max(micros)));
    }

    fn at_most(&mut self, micros: i64) {
        self.upper = Some(self.upper.map_or(micros, |known| known.min(micros)));
    }

    /// The right row stands exactly that much after the left one.
    pub fn exactly(&mut self, micros: i64) {
        self.at_least(micros);
        self.at_most(micros);
    }
}

/// A sum of the two event times, each some times, and a constant.
#[derive(Clone, Copy, Default)]
struct Sum {
    left: i64,
    right: i64,
    micros: i64,
    /// Months stand in it too.
    months: bool,
}

impl Sum {
    fn of(expr: &Arc<dyn PhysicalExpr>, side_of: &dyn Fn(usize) -> Option<usize>) -> Option<Sum> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return match side_of(column.index())? {
                0 => Some(Sum {
                    left: 1,
                    ..Sum::default()
                }),
                _ => Some(Sum {
                    right: 1,
                    ..Sum::default()
                }),
            };
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return constant(literal.value());
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return keeps_micros(cast.cast_type()).then(|| Sum::of(cast.expr(), side_of))?;
        }
        let sum = expr.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (Sum::of(sum.left(), side_of)?, Sum::of(sum.right(), side_of)?);
        match sum.op() {
            Operator::Plus => left.minus(right.negated()?),
            Operator::Minus => left.minus(right),
            _ => None,
        }
    }

    fn negated(self) -> Option<Sum> {
        Sum::default().minus(self)
    }

    fn minus(self, other: Sum) -> Option<Sum> {
        Some(Sum {
            left: self.left - other.left,
            right: self.right - other.right,
            micros: self.micros.checked_sub(other.micros)?,
            months: self.months || other.months,
        })
    }
}

/// Casts that leave microseconds as they are.
fn keeps_micros(to: &DataType) -> bool {
    use TimeUnit::{Microsecond, Nanosecond};
    matches!(
        to,
        DataType::Timestamp(Microsecond | Nanosecond, _)
            | DataType::Duration(Microsecond | Nanosecond)
            | DataType::Interval(_)
    )
}

/// An interval or duration.
fn constant(value: &ScalarValue) -> Option<Sum> {
    let whole = |nanos: i64| (nanos % 1_000 == 0).then_some(nanos / 1_000);
    let days = |days: i32| i64::from(days) * DAY;
    let (micros, months) = match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) => {
            (days(v.days).checked_add(whole(v.nanoseconds)?)?, v.months != 0)
        }
        ScalarValue::IntervalDayTime(Some(v)) => (
            days(v.days).checked_add(i64::from(v.milliseconds) * 1_000)?,
            false,
        ),
        ScalarValue::IntervalYearMonth(Some(months)) => (0, *months != 0),
        ScalarValue::DurationSecond(Some(v)) => (v.checked_mul(1_000_000)?, false),
        ScalarValue::DurationMillisecond(Some(v)) => (v.checked_mul(1_000)?, false),
        ScalarValue::DurationMicrosecond(Some(v)) => (*v, false),
        ScalarValue::DurationNanosecond(Some(v)) => (whole(*v)?, false),
        _ => return None,
    };
    Some(Sum {
        micros,
        months,
        ..Sum::default()
    })
}
