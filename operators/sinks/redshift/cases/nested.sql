error: no warehouse column holds column "list" of type List(Int64); cast it in a query
