//! Native sessions and the broker's core as a conversation, without a socket.

mod house;
mod login;
mod publish;
mod take;
mod topology;
mod will;
