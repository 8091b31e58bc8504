error: date_column: column "loaded_on" is only declared (is_noop), so rows have no value in it; name another
