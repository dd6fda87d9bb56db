//! The rules, tested without a store or a clock: tables of scenarios, a reference model, and random runs against both.

mod coupons;
mod generate;
mod harness;
mod jobs;
mod members;
mod model;
mod points;
mod pricing;
mod pricing_laws;
mod properties;
mod rules;
mod script;
mod webhooks;
