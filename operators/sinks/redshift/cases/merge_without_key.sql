error: mode: merge needs the columns that together name a row; name them in key
