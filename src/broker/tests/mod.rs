//! The broker as a whole, at value level: commands in, effects out, a model of the store behind.

mod batch;
mod browse;
mod consuming;
mod cursors;
mod dedup;
mod disk;
mod dying;
mod groups;
mod house;
mod inspecting;
mod keys;
mod paging;
mod peers;
mod permissions;
mod policies;
mod publishing;
mod quotas;
mod random;
mod recovery;
mod request;
mod retry;
mod schedule;
mod selecting;
mod streams;
mod timeout;
mod topology;
