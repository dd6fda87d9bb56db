//! The rules, tested without a store or a clock: tables of scenarios, a reference model, and random runs against both.

mod bulks;
mod codes;
mod coupons;
mod generate;
mod harness;
mod jobs;
mod limits;
mod members;
mod model;
mod orders;
mod points;
mod pricing;
mod pricing_laws;
mod programs;
mod properties;
mod rules;
mod script;
mod search;
mod webhooks;
