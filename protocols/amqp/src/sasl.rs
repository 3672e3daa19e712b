//! SASL responses: the user and password that a client sends with connection.start-ok.

use crate::raw_table::{check_table, table_entries};

/// User and password of a PLAIN response, which is NUL user NUL password.
///
/// Another identity to act for, before the first NUL, is not accepted; nor is a third NUL.
pub fn decode_plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = response.split(|&byte| byte == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some([]), Some(user), Some(password), None) => Some((user, password)),
        _ => None,
    }
}

/// LOGIN and PASSWORD of an AMQPLAIN response, which is the body of a table without its length.
pub fn decode_amqplain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    check_table(response).ok()?;
    Some((long_string(response, b"LOGIN")?, long_string(response, b"PASSWORD")?))
}

fn long_string<'a>(table_body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    table_entries(table_body)
        .find_map(|(key, tag, value)| (key == name && tag == b'S').then_some(value))
}
