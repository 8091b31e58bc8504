//! Warehouses for tests: a real PostgreSQL, and a Redshift stand-in before one.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod fates;
pub mod postgres;
