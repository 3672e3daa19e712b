//! What the fuzz targets share: a house without sockets, the conversations held in it, and who listens to them.
//!
//! A conversation is held twice, whole and cut. The broker must hear the same commands and the clients the same bytes.

pub mod amqp;
pub mod cuts;
pub mod house;
pub mod stomp;
mod tape;

pub use tape::{Tape, tape};
