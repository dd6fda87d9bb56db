//! What can break around a server, and what its callers see of it: never a wrong answer, never a lost or doubled effect,
//! 503 while it lasts, and service again by itself afterwards.
//!
//! Each test puts a fault under a load ([`load`]) whose every request is repeated with its idempotency key until it is
//! acknowledged. At the end the effects are counted against the keys, and the books verified.

mod clock;
mod commit;
mod database;
mod disk;
mod drain;
mod load;
mod log_tail;
mod nodes;
mod orders;
mod overload;
mod proxy;
mod slow;
mod startup;
