//! What DataFusion gives in batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_engine::sql::{WINDOW_END, WINDOW_START};
use millstream_engine::time::{Timestamp, timestamp_type};

use super::stream::{Stream, TABLES};
use crate::window::Interval;

/// A plain session whose tables hold the given rows of the stream, and which knows the window.
pub fn session(stream: &Stream, window: Interval, rows: &[Vec<u32>; 3]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let bounds = [(WINDOW_START, window.start), (WINDOW_END, window.end)];
    for (name, at) in bounds {
        let value = ScalarValue::TimestampMicrosecond(Some(at.0), None);
        let constant = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
        let function = create_udf(name, vec![], timestamp_type(), Volatility::Immutable, constant);
        context.register_udf(function);
    }
    for (table, name) in TABLES.iter().enumerate() {
        let indices = UInt32Array::from(rows[table].clone());
        let rows = take_record_batch(&stream.tables[table].rows, &indices).expect("rows");
        let rows = with_bounds(rows, bounds);
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("table");
        context.register_table(*name, Arc::new(table)).expect("register");
    }
    context
}

fn with_bounds(rows: RecordBatch, bounds: [(&str, Timestamp); 2]) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (bound, at) in bounds {
        fields.push(Arc::new(Field::new(bound, timestamp_type(), false)));
        let bound = TimestampMicrosecondArray::from_value(at.0, rows.num_rows());
        columns.push(Arc::new(bound) as ArrayRef);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows")
}

/// The query's result in the session.
pub async fn batch_result(query: &str, context: &SessionContext) -> Result<Vec<RecordBatch>> {
    context.sql(query).await?.collect().await
}
