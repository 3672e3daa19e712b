//! Pillarbox: a message broker for every host.
//!
//! Read `ARCHITECTURE.md` first: three machines (codec, session, broker), a store, and one thin ring with all the I/O.

pub mod broker;
pub mod client;
pub mod config;
mod embedded;
pub mod management;
pub mod peers;
pub mod server;
pub mod sessions;
pub mod store;
pub mod telemetry;

pub use client::{Client, Session};
pub use embedded::Broker;
