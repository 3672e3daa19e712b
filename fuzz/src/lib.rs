//! What the fuzz targets share: a house without sockets, the conversations held in it, and who listens to them.
//!
//! A conversation is held twice, whole and cut. The broker must hear the same commands and the clients the same bytes.

#[cfg(feature = "house")]
pub mod amqp;
pub mod cuts;
#[cfg(feature = "house")]
pub mod house;
#[cfg(feature = "house")]
pub mod native;
#[cfg(feature = "house")]
pub mod stomp;
#[cfg(feature = "house")]
mod tape;

#[cfg(feature = "house")]
pub use tape::{Tape, tape};
