//! The codec from outside: literal bytes, cut input, generated input and a second implementation.

mod bytes_of;
mod content;
mod delivery;
mod frames;
mod generate;
mod hostile;
mod methods;
mod oracle;
mod replies;
mod round_trip;
mod tables;
