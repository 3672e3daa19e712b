//! Two native clients and a broker.

#![no_main]

use libfuzzer_sys::fuzz_target;

use pillarbox_fuzz::house::converse;
use pillarbox_fuzz::native::Native;

fuzz_target!(|bytes: &[u8]| converse::<Native>(bytes));
