//! The native codec: golden bytes, cut input, hostile input, round trips.

mod golden;
mod hostile;
mod round_trip;

/// Bytes from hexadecimal, with text between quotes; blanks do not matter.
fn wire(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in text.split('\'').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(u8::is_ascii_hexdigit).collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).expect("digits");
            bytes.push(u8::from_str_radix(pair, 16).expect("digits"));
        }
    }
    bytes
}
