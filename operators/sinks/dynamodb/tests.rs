//! The sink on its own; with a service behind it: `server/tests/dynamodb.rs`.
