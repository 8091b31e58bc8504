error: "public"."people": column "id" is new and cannot be a key; rename the column in a query, cast it, or change the table by hand
