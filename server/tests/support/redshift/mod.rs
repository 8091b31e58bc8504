//! Warehouses for tests: a real PostgreSQL, a Redshift stand-in before one, and a proxy that stops at a word.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod copy;
pub mod fates;
mod grammar;
pub mod postgres;
pub mod stand_in;
