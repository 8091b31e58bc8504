//! `window_start()` and `window_end()`: constants of a windowed query's execution.
//!
//! The plan of a query is made once, its windows are many, so the two are functions that answer from a cell
//! ([`FiringWindow`]) which the global half sets before it executes the plan for a window. They are declared
//! volatile, which they are not: DataFusion evaluates stable functions without arguments while planning.
//! Each global half plans with a cell of its own, so that two never share one. In lower halves, which work on
//! several open panes by turns, [`substitute`] puts the pane's literal instead.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::expressions::Literal;
use millstream_engine::sql::{WINDOW_END, WINDOW_START};
use millstream_engine::time::timestamp_type;

use crate::window::Interval;

/// The window that a global half is firing.
#[derive(Debug)]
pub(in crate::sql) struct FiringWindow {
    start: AtomicI64,
    end: AtomicI64,
}

impl FiringWindow {
    /// A cell that is not set.
    pub fn new() -> Arc<FiringWindow> {
        Arc::new(FiringWindow {
            start: AtomicI64::new(i64::MIN),
            end: AtomicI64::new(i64::MIN),
        })
    }

    /// The window that the next execution is for.
    pub fn set(&self, window: Interval) {
        self.start.store(window.start.0, Ordering::Release);
        self.end.store(window.end.0, Ordering::Release);
    }
}

/// The two functions, answering from `window`.
pub(in crate::sql) fn window_functions(window: &Arc<FiringWindow>) -> [ScalarUDF; 2] {
    [Bound::Start, Bound::End].map(|bound| {
        ScalarUDF::from(WindowFunction {
            bound,
            window: Arc::clone(window),
            signature: Signature::nullary(Volatility::Volatile),
        })
    })
}

/// Which end of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sql) enum Bound {
    Start,
    End,
}

impl Bound {
    /// Name of the function, and of the column.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Start => WINDOW_START,
            Bound::End => WINDOW_END,
        }
    }

    /// This end of the given window.
    pub fn of(self, window: Interval) -> ScalarValue {
        let at = match self {
            Bound::Start => window.start,
            Bound::End => window.end,
        };
        ScalarValue::TimestampMicrosecond(Some(at.0), None)
    }
}

#[derive(Debug)]
struct WindowFunction {
    bound: Bound,
    window: Arc<FiringWindow>,
    signature: Signature,
}

impl PartialEq for WindowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound && Arc::ptr_eq(&self.window, &other.window)
    }
}

impl Eq for WindowFunction {}

impl Hash for WindowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bound.hash(state);
        Arc::as_ptr(&self.window).hash(state);
    }
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.bound.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    /// Never null, so that the result can be the event time of a stream.
    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), timestamp_type(), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let at = match self.bound {
            Bound::Start => self.window.start.load(Ordering::Acquire),
            Bound::End => self.window.end.load(Ordering::Acquire),
        };
        if at == i64::MIN {
            return internal_err!("{}() was evaluated before a window was set", self.bound.name());
        }
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(
            Some(at),
            None,
        )))
    }
}

/// Which of the two functions an expression calls, if it is a call of one.
pub(in crate::sql) fn bound_called(expr: &Arc<dyn PhysicalExpr>) -> Option<Bound> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    let function: &dyn std::any::Any = call.fun().inner().as_ref();
    function.downcast_ref::<WindowFunction>().map(|f| f.bound)
}

/// Whether an expression calls one of the two functions.
pub(in crate::sql) fn calls_window(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let mut found = false;
    let visited = expr.apply(|e| {
        found |= bound_called(e).is_some();
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// The expression with calls of the two functions replaced by the window's literals.
pub(in crate::sql) fn substitute(
    expr: &Arc<dyn PhysicalExpr>,
    window: Interval,
) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = Arc::clone(expr).transform_up(|e| {
        Ok(match bound_called(&e) {
            Some(bound) => {
                Transformed::yes(Arc::new(Literal::new(bound.of(window))) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(e),
        })
    })?;
    Ok(replaced.data)
}
