//! The integration tests: one binary, real stores.

mod backup;
mod broker;
mod caches;
mod certificate;
mod contract;
mod distributions;
mod doctor;
mod faults;
mod harness;
mod http;
mod jobs;
mod kill;
mod members;
mod model;
mod plans;
mod postgres;
mod processes;
mod projection;
mod redis;
mod replica;
mod sqlite_log;
mod statements;
mod sweep;
mod telemetry;
mod verify;
mod verify_rows;
mod webhooks;

// The reference model and the command generator are those of the domain's own tests.
#[path = "../../../domain/tests/rules/generate.rs"]
mod generate;
#[path = "../../../domain/tests/rules/model.rs"]
mod reference;
