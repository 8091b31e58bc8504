error: date_column: column "name" is varchar(7), neither a date nor a timestamp; cast it in a query
