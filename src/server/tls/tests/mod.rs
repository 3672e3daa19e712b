//! Handshakes, files that change, and whole servers behind TLS.

mod handshakes;
mod links;
mod pki;
mod reloading;
mod served;
