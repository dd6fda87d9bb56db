//! The integration tests: one binary, real stores.

mod contract;
mod harness;
mod postgres;
