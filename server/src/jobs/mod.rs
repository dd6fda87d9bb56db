//! Background work. Each job is a pass that may run any number of times, on any node, and does what is still to do.

pub mod expire;
pub mod housekeeping;
