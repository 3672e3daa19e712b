//! The first eight bytes in each direction: which protocol, and which version of it.
//!
//! The client names the lowest and highest version it speaks; the server answers with the one
//! that is spoken, or with 0 and its own highest, and closes.

use bytes::{BufMut, BytesMut};

pub const PREFACE_SIZE: usize = 8;
/// The one version there is.
pub const VERSION: u8 = 1;

const NAME: [u8; 4] = *b"PBOX";

/// What the beginning of a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    NeedMore,
    /// The lowest and highest version the client speaks.
    Client {
        lowest: u8,
        highest: u8,
    },
    /// The version the server chose, 0 for none; and the highest it has.
    Server {
        chosen: u8,
        highest: u8,
    },
    /// Another protocol.
    Other,
}

pub fn encode_preface(out: &mut BytesMut) {
    out.put_slice(&NAME);
    out.put_slice(&[VERSION, VERSION, 0, 0]);
}

pub fn encode_answer(chosen: u8, out: &mut BytesMut) {
    out.put_slice(&NAME);
    out.put_slice(&[chosen, VERSION, 0, 0]);
}

/// What a client sent; `Other` as soon as a byte is wrong.
pub fn read_preface(input: &[u8]) -> Preface {
    match read(input) {
        Ok((lowest, highest)) => Preface::Client { lowest, highest },
        Err(other) => other,
    }
}

/// What a server answered.
pub fn read_answer(input: &[u8]) -> Preface {
    match read(input) {
        Ok((chosen, highest)) => Preface::Server { chosen, highest },
        Err(other) => other,
    }
}

fn read(input: &[u8]) -> Result<(u8, u8), Preface> {
    let name = input.len().min(NAME.len());
    if input[..name] != NAME[..name] {
        return Err(Preface::Other);
    }
    match input.first_chunk::<PREFACE_SIZE>() {
        Some([_, _, _, _, first, second, _, _]) => Ok((*first, *second)),
        None => Err(Preface::NeedMore),
    }
}
