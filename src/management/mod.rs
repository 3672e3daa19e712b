//! What RabbitMQ's HTTP API says and does, as plain values: routes, questions, answers, definitions, metrics.
//!
//! Knows no socket and no clock. `server::http` asks the broker and carries what is made here.

pub mod definitions;
pub mod fault;
pub mod json;
pub mod memory;
pub mod metrics;
pub mod openapi;
pub mod peers;
pub mod pieces;
pub mod query;
pub mod routes;
pub mod samples;
pub mod strict;
#[cfg(test)]
mod tests;
pub mod value;

pub use self::fault::Fault;
pub use self::pieces::Pieces;
pub use self::query::Query;
pub use self::routes::{Call, Method, Needs, Route};
pub use self::samples::Samples;
