error: key: column "loaded_by" is only declared (is_noop), so rows have no value in it; name another
