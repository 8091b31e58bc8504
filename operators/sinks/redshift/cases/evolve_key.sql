error: "public"."people": column "id" is new and cannot be a key: a column's type is not changed under its rows; rename the column in a query, cast it, or change the table by hand
