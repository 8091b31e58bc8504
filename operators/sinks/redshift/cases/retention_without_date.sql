error: retention_days: rows of a streaming pipeline grow old by a column; name it in date_column
