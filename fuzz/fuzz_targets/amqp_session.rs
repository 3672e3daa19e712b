//! Two AMQP clients and a broker.

#![no_main]

use libfuzzer_sys::fuzz_target;

use pillarbox_fuzz::amqp::Amqp;
use pillarbox_fuzz::house::converse;

fuzz_target!(|bytes: &[u8]| converse::<Amqp>(bytes));
