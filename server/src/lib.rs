//! The world around the rules: stores, engine, HTTP, jobs and command line. One binary, `scrip`.
//!
//! Direction: cli -> app -> http, jobs -> engine -> store -> domain. Nothing below http knows HTTP; nothing below app
//! sees the whole configuration; nothing but [`clock`] asks for the time.

pub mod app;
pub mod bench;
pub mod calendar;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod http;
pub mod jobs;
pub mod local;
pub mod metrics;
pub mod projection;
pub mod relay;
pub mod reports;
pub mod store;
mod tls;
pub mod verify;
