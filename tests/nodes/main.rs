//! Real nodes on loopback, asked from outside: what a user may rely on, a subject a file. One program, so that the kit is
//! built once, and that a test which waits for a node keeps no other subject's waiting.
//!
//! What needs the machine for itself, or all of its time, is a program of its own beside this folder.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod batch;
mod client_api;
mod clocks;
mod cluster;
mod counters;
mod disk_faults;
mod durability;
mod emptied;
mod expiry;
mod forgetting;
mod healing;
mod hints;
mod listing;
mod redis_clients;
mod resp;
mod rot;
mod sessions;
mod socket_junk;
mod sync;
mod versions;
mod watching;
