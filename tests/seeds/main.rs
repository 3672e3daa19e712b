//! What the seeds got wrong: each test names the defect, and its number in the list of the project's seeds.
//!
//! Those that need several hosts stand with them: 5 is `nothing_is_lost_or_doubled_while_both_hosts_are_killed_in_turn` of
//! `tests/peers`, 10 `the_directory_comes_late` of `interop/directory`, 18 the kills of `tests/hosts.rs`; so is 11, the other way round:
//! routes to a host that crashed stay, and what is sent there waits. 16 and 17 (a leader and its followers) come with replication,
//! 27 with limits of rates.

mod broker;
mod http;
mod keys;
mod life;
mod messages;
