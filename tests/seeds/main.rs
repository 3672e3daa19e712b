//! What the seeds got wrong: each test names the defect, and its number in the list of the project's seeds.
//!
//! Cases that need several hosts (5, 10, 11, 16, 17, 18), limits of rates (27) and key-value mailboxes (13, 29) are kept with
//! those features.

mod broker;
mod http;
mod life;
mod messages;
