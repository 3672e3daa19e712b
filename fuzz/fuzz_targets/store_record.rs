//! The store's decoders on any bytes: records, parts, chunks and the rows beside them, also with right checksums.

#![no_main]

use libfuzzer_sys::fuzz_target;

use pillarbox::server::FORMS;
use pillarbox::store::arbitrary;

fuzz_target!(|bytes: &[u8]| arbitrary::read(bytes, &FORMS));
