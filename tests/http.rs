//! RabbitMQ's HTTP API of a whole server, over real sockets.

#[path = "http/abuse.rs"]
mod abuse;
#[path = "http/access.rs"]
mod access;
#[path = "http/definitions.rs"]
mod definitions;
#[path = "http/house.rs"]
mod house;
#[path = "http/messages.rs"]
mod messages;
#[path = "http/objects.rs"]
mod objects;
#[path = "http/watching.rs"]
mod watching;
