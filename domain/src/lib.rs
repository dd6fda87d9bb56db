//! Scrip's rules: coupons and points as pure decisions over plain data.
//!
//! A caller (the engine of the server crate) gathers commands into a batch, loads the rows they name ([`key`]) into a
//! [`state::State`], lets [`decide::decide`] judge each command in order, and commits the writes the state has collected.
//! A single request is the batch of size one, and a batch gives exactly what its commands give one by one.
//!
//! What this crate guarantees: no IO, no clock, no randomness (time and id seeds are arguments), no floats, checked
//! arithmetic. A refusal is a value, [`rejection::Rejection`], and is decided before anything is written for it.
//!
//! Reading order: [`id`], [`time`], [`command`], [`coupon`], [`points`], [`pricing`], [`rules`], [`check_in`], [`task`],
//! [`order`], [`exchange`], [`state`], [`decide`].

pub mod bulk;
pub mod check_in;
pub mod command;
pub mod condition;
pub mod coupon;
pub mod decide;
pub mod event;
pub mod exchange;
pub mod id;
pub mod job;
pub mod key;
pub mod order;
pub mod points;
pub mod pricing;
pub mod rejection;
pub mod rules;
pub mod state;
pub mod task;
pub mod tenant;
pub mod time;
pub mod webhook;

pub use command::{Command, Envelope, Idempotency};
pub use decide::{Answer, Interrupt, Outcome, decide};
pub use id::*;
pub use rejection::Rejection;
pub use state::State;
pub use time::{Day, Timestamp};
