//! The integration tests: one binary, real stores.

mod contract;
mod faults;
mod harness;
mod kill;
mod model;
mod plans;
mod postgres;
mod processes;
mod statements;
mod verify;

// The reference model and the command generator are those of the domain's own tests.
#[path = "../../../domain/tests/rules/generate.rs"]
mod generate;
#[path = "../../../domain/tests/rules/model.rs"]
mod reference;
