//! A record: one change as bytes, with checksums. The same form in the journal and in chunks.
//!
//! ```text
//! 0  crc u32        CRC-32C of the head from byte 4 on, begun with the salt of the place it lies in
//! 4  data_crc u32   CRC-32C of the data
//! 8  data_len u32
//! 12 kind u8 | flags u8 | head_len u16
//! 16 the kind's fields, then the data, then zeros up to a multiple of 8
//! ```
//! A damaged record is told from its neighbours: the next one is found by its own checksum.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::broker::{Message, MessageId, Name, Parts, Rest, Span, Time, WireForm};

pub(super) const MESSAGE: u8 = 1;
pub(super) const REF: u8 = 2;
pub(super) const REMOVE: u8 = 3;
pub(super) const NEXT: u8 = 4;
pub(super) const MARK: u8 = 5;
pub(super) const ATTEMPTS: u8 = 6;
pub(super) const DROP: u8 = 7;
pub(super) const QUARANTINE: u8 = 8;
pub(super) const DEFINE: u8 = 9;
pub(super) const UNDEFINE: u8 = 10;
/// The journal was opened: what a clean stop said is no longer so.
pub(super) const OPENED: u8 = 11;

const PERSISTENT: u8 = 1;
const REDELIVERED: u8 = 2;
const TRANSIENT: u8 = 4;
const EXTENDED: u8 = 8;
/// The data lies in parts of its own; in its place stands where.
const BIG: u8 = 16;
const EXPIRATION: u8 = 32;
/// Found by a key, and read without its neighbours.
const KEYED: u8 = 64;

const PREFIX: usize = 16;
const MESSAGE_HEAD: usize = 80;
const REF_HEAD: usize = 64;
const EXTENSION: usize = 32;

/// Data beyond this goes into parts of its own.
pub(super) const BIG_MIN: usize = 128 * 1024;
/// `BigPlace` as bytes.
pub(super) const BIG_PLACE: usize = 16;

/// No position is as high, damaged marks included: what is counted on from here does not overflow.
const SEQ_MAX: u64 = 3 << 62;

/// A record as it lies in its part or chunk. The head was verified, the data not yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) start: usize,
    pub(super) size: usize,
    flags: u8,
    head: &'a [u8],
    data_crc: u32,
    unverified: &'a [u8],
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) start: usize,
}

/// The records of a part or chunk in order; damaged stretches come as `Err`.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: u32,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, salt: u32) -> Self {
        Self { bytes, at, salt }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        if let Some(record) = Record::at(self.bytes, self.at, self.salt) {
            self.at += record.size;
            return Some(Ok(record));
        }
        let start = self.at;
        self.at += 8;
        while self.at < self.bytes.len() && Record::at(self.bytes, self.at, self.salt).is_none() {
            self.at += 8;
        }
        Some(Err(Damage { start }))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

impl<'a> Record<'a> {
    /// The record that starts here, if its head is whole.
    pub(super) fn at(bytes: &'a [u8], start: usize, salt: u32) -> Option<Self> {
        let bytes = bytes.get(start..)?;
        if bytes.len() < PREFIX {
            return None;
        }
        let head_len = usize::from(u16_at(bytes, 14));
        let data_len = u32_at(bytes, 8) as usize;
        let kind = bytes[12];
        let least = match kind {
            MESSAGE => MESSAGE_HEAD,
            REF => REF_HEAD,
            ATTEMPTS => 48,
            REMOVE | QUARANTINE => 40,
            NEXT | MARK => 32,
            DROP | DEFINE | UNDEFINE => 24,
            OPENED => PREFIX,
            _ => return None,
        };
        let size = padded(head_len + data_len);
        if head_len < least || size > bytes.len() {
            return None;
        }
        let head = &bytes[..head_len];
        if crc32c_append(salt, &head[4..]) != u32_at(head, 0) {
            return None;
        }
        let has_seq = matches!(kind, MESSAGE | REF | REMOVE | NEXT | MARK | ATTEMPTS | QUARANTINE);
        if has_seq && u64_at(head, 24) > SEQ_MAX {
            return None;
        }
        let flags = head[13];
        if flags & (EXTENDED | EXPIRATION) != 0 && head_len < least + EXTENSION {
            return None;
        }
        Some(Self {
            kind,
            start,
            size,
            flags,
            head,
            data_crc: u32_at(head, 4),
            unverified: &bytes[head_len..head_len + data_len],
        })
    }

    pub(super) fn data(&self) -> Option<&'a [u8]> {
        (crc32c(self.unverified) == self.data_crc).then_some(self.unverified)
    }

    /// The data as it lies there, for those who set it aside or move it.
    pub(super) fn unverified(&self) -> &'a [u8] {
        self.unverified
    }

    pub(super) fn mailbox(&self) -> u64 {
        u64_at(self.head, 16)
    }

    /// The position of a message, reference or quarantine, the first of a removal, the value of a mark or next.
    pub(super) fn seq(&self) -> u64 {
        u64_at(self.head, 24)
    }

    pub(super) fn is_message(&self) -> bool {
        matches!(self.kind, MESSAGE | REF)
    }

    pub(super) fn transient(&self) -> bool {
        self.flags & TRANSIENT != 0
    }

    pub(super) fn keyed(&self) -> bool {
        self.flags & KEYED != 0
    }

    pub(super) fn big(&self) -> Option<BigPlace> {
        if self.kind != MESSAGE || self.flags & BIG == 0 || self.unverified.len() != BIG_PLACE {
            return None;
        }
        Some(BigPlace::read(self.unverified))
    }

    pub(super) fn is_big(&self) -> bool {
        self.kind == MESSAGE && self.flags & BIG != 0
    }

    /// Where a reference finds its message: part or shared chunk, and offset.
    pub(super) fn target(&self) -> (u64, u32) {
        (u64_at(self.head, 40), u32_at(self.head, 52))
    }

    pub(super) fn body_len(&self) -> u32 {
        if self.kind == MESSAGE { u32_at(self.head, 64) } else { u32_at(self.head, 56) }
    }

    /// The second number of a removal (count) or attempts (attempts).
    pub(super) fn number(&self) -> u32 {
        u32_at(self.head, 32)
    }

    /// Until when a message with attempts stays invisible.
    pub(super) fn deliver_at(&self) -> u64 {
        u64_at(self.head, 40)
    }

    /// A definition's key and value, or a quarantine's reason and the damaged record.
    pub(super) fn pair(&self) -> Option<(&'a [u8], &'a [u8])> {
        let at = if self.kind == QUARANTINE { 32 } else { 16 };
        let split = u32_at(self.head, at) as usize;
        self.data()?.split_at_checked(split)
    }

    pub(super) fn rest(&self) -> Rest {
        let reference = self.kind == REF;
        let extension = self.flags & EXTENDED != 0;
        let at = if reference { REF_HEAD } else { MESSAGE_HEAD };
        let (expires, deliver_at) =
            if extension { (u64_at(self.head, at), u64_at(self.head, at + 8)) } else { (0, 0) };
        let since = if reference {
            u64_at(self.head, 32)
        } else if extension {
            u64_at(self.head, at + 16)
        } else {
            u64_at(self.head, 48).saturating_add(u32_at(self.head, 56).into())
        };
        Rest {
            since: Time(since),
            expires: Time(expires),
            deliver_at: Time(deliver_at),
            lane: if reference { self.head[60] } else { self.head[75] },
            attempts: if reference { u32_at(self.head, 48) } else { u32_at(self.head, 60) },
            redelivered: self.flags & REDELIVERED != 0,
        }
    }

    /// The message from its verified data, which is `data()` or what the big parts hold.
    pub(super) fn message(
        &self,
        data: &[u8],
        forms: &Forms,
        exchange_before: &mut Option<Name>,
    ) -> Result<Arc<Message>, String> {
        if self.kind != MESSAGE {
            return Err("the record is not a message".into());
        }
        let exchange_len = usize::from(self.head[74]);
        let key_len = u32::from(u16_at(self.head, 72)) | u32::from(u16_at(self.head, 78)) << 16;
        let properties_len = u32_at(self.head, 68);
        let body_len = self.body_len();
        let sum = exchange_len as u64
            + u64::from(key_len)
            + u64::from(properties_len)
            + u64::from(body_len);
        if sum != data.len() as u64 {
            return Err("the lengths of the record's parts do not add up".into());
        }
        let (exchange, rest) = data.split_at(exchange_len);
        let exchange = match exchange_before {
            Some(name) if name.as_bytes() == exchange => name.clone(),
            _ => {
                let text = std::str::from_utf8(exchange)
                    .map_err(|_| "the exchange's name is not text".to_owned())?;
                exchange_before.insert(Name::from(text)).clone()
            }
        };
        let form = forms
            .get(self.head[77])
            .ok_or_else(|| format!("no protocol here knows wire form {}", self.head[77]))?;
        let key = Span { start: 0, end: key_len };
        let properties = Span { start: key.end, end: key.end + properties_len };
        let body = Span { start: properties.end, end: properties.end + body_len };
        let parts = Parts {
            exchange,
            buffer: Bytes::copy_from_slice(rest),
            key,
            properties,
            body,
            form,
            persistent: self.flags & PERSISTENT != 0,
            priority: self.head[76],
            expiration_ms: (self.flags & EXPIRATION != 0)
                .then(|| u64_at(self.head, MESSAGE_HEAD + 24)),
        };
        let id = u128::from_le_bytes(self.head[32..48].try_into().expect("sixteen bytes"));
        let accepted = Time(u64_at(self.head, 48));
        Ok(Arc::new(Message::restored(parts, MessageId(id), accepted)))
    }

    /// This message as the one that a reference stands for: the body moves in with its holder.
    pub(super) fn message_for(
        &self,
        reference: &Record<'_>,
        big: Option<BigPlace>,
        out: &mut Vec<u8>,
        salt: u32,
    ) {
        let start = out.len();
        let rest = reference.rest();
        let mut head = [0; MESSAGE_HEAD + EXTENSION];
        head[..MESSAGE_HEAD].copy_from_slice(&self.head[..MESSAGE_HEAD]);
        let expiration =
            if self.flags & EXPIRATION != 0 { u64_at(self.head, MESSAGE_HEAD + 24) } else { 0 };
        let kept = self.flags & (PERSISTENT | BIG | EXPIRATION);
        head[13] = kept | EXTENDED | (reference.flags & (REDELIVERED | TRANSIENT | KEYED));
        head[14..16].copy_from_slice(&((MESSAGE_HEAD + EXTENSION) as u16).to_le_bytes());
        head[16..24].copy_from_slice(&reference.mailbox().to_le_bytes());
        head[24..32].copy_from_slice(&reference.seq().to_le_bytes());
        head[60..64].copy_from_slice(&rest.attempts.to_le_bytes());
        head[75] = rest.lane;
        put_extension(&mut head[MESSAGE_HEAD..], &rest, expiration);
        out.extend_from_slice(&head);
        match big {
            Some(place) => put_big(out, start, place),
            None => out.extend_from_slice(self.unverified),
        }
        finish(out, start, salt);
    }

    /// This message as a reference to its own body in a shared chunk, or a reference pointed there.
    pub(super) fn reference_to(&self, target: (u64, u32), out: &mut Vec<u8>, salt: u32) {
        let rest = self.rest();
        let resting = Resting {
            mailbox: self.mailbox(),
            seq: self.seq(),
            rest: &rest,
            transient: self.transient(),
            keyed: self.keyed(),
        };
        put_reference(out, resting, self.body_len(), target, salt);
    }

    /// The same message for another place; a big body moves with it.
    pub(super) fn moved(&self, big: Option<BigPlace>, out: &mut Vec<u8>, salt: u32) {
        let start = out.len();
        out.extend_from_slice(self.head);
        match big {
            Some(place) => put_big(out, start, place),
            None => out.extend_from_slice(self.unverified),
        }
        finish(out, start, salt);
    }
}

fn put_big(out: &mut Vec<u8>, start: usize, place: BigPlace) {
    let data = place.bytes();
    out.extend_from_slice(&data);
    out[start + 4..start + 8].copy_from_slice(&crc32c(&data).to_le_bytes());
}

/// Where a big body lies: in parts of the journal, or under an id in home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BigPlace {
    pub(super) id: u64,
    pub(super) parts: u32,
}

impl BigPlace {
    fn read(bytes: &[u8]) -> Self {
        Self { id: u64_at(bytes, 0), parts: u32_at(bytes, 8) }
    }

    fn bytes(self) -> [u8; BIG_PLACE] {
        let mut bytes = [0; BIG_PLACE];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.parts.to_le_bytes());
        bytes
    }
}

/// The wire forms that stored messages may have.
#[derive(Clone, Default)]
pub(super) struct Forms(Vec<&'static WireForm>);

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|form| form.name)).finish()
    }
}

impl Forms {
    pub(super) fn new(forms: &[&'static WireForm]) -> Self {
        Self(forms.to_vec())
    }

    fn get(&self, id: u8) -> Option<&'static WireForm> {
        self.0.iter().find(|form| form.id == id).copied()
    }
}

/// Where a new message comes to rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resting<'a> {
    pub(super) mailbox: u64,
    pub(super) seq: u64,
    pub(super) rest: &'a Rest,
    pub(super) transient: bool,
    pub(super) keyed: bool,
}

impl Resting<'_> {
    fn extended(&self, message: &Message) -> bool {
        self.rest.expires != Time::ZERO
            || self.rest.deliver_at != Time::ZERO
            || message.expiration_ms().is_some()
            || self.rest.since < message.accepted
            || self.rest.since.since_ms(message.accepted) > u64::from(u32::MAX)
    }

    fn flags(&self) -> u8 {
        (if self.rest.redelivered { REDELIVERED } else { 0 })
            | (if self.transient { TRANSIENT } else { 0 })
            | (if self.keyed { KEYED } else { 0 })
    }
}

/// Data length of a message's record.
pub(super) fn data_len(message: &Message) -> usize {
    message.exchange().len() + message.size()
}

/// At most what `put_message` or `put_reference` will write.
pub(super) fn size_max(message: &Message) -> usize {
    let data = data_len(message);
    padded(MESSAGE_HEAD + EXTENSION + if data > BIG_MIN { BIG_PLACE } else { data })
}

pub(super) const REFERENCE_SIZE_MAX: usize = REF_HEAD + EXTENSION;

/// `big` says where the data was put if not here.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    resting: Resting<'_>,
    message: &Message,
    big: Option<BigPlace>,
    salt: u32,
) {
    let start = out.len();
    let extended = resting.extended(message);
    let rest = resting.rest;
    let mut head = [0; MESSAGE_HEAD + EXTENSION];
    let head_len = if extended { MESSAGE_HEAD + EXTENSION } else { MESSAGE_HEAD };
    let mut flags = resting.flags();
    flags |= if message.persistent() { PERSISTENT } else { 0 };
    flags |= if extended { EXTENDED } else { 0 };
    flags |= if big.is_some() { BIG } else { 0 };
    flags |= if message.expiration_ms().is_some() { EXPIRATION } else { 0 };
    head[12] = MESSAGE;
    head[13] = flags;
    head[14..16].copy_from_slice(&(head_len as u16).to_le_bytes());
    head[16..24].copy_from_slice(&resting.mailbox.to_le_bytes());
    head[24..32].copy_from_slice(&resting.seq.to_le_bytes());
    head[32..48].copy_from_slice(&message.id.0.to_le_bytes());
    head[48..56].copy_from_slice(&message.accepted.0.to_le_bytes());
    let since = rest.since.since_ms(message.accepted).min(u64::from(u32::MAX)) as u32;
    head[56..60].copy_from_slice(&since.to_le_bytes());
    head[60..64].copy_from_slice(&rest.attempts.to_le_bytes());
    head[64..68].copy_from_slice(&(message.body().len() as u32).to_le_bytes());
    head[68..72].copy_from_slice(&(message.property_bytes().len() as u32).to_le_bytes());
    let key_len = (message.key().len() as u32).to_le_bytes();
    head[72..74].copy_from_slice(&key_len[..2]);
    head[78..80].copy_from_slice(&key_len[2..]);
    head[74] = message.exchange().len() as u8;
    head[75] = rest.lane;
    head[76] = message.priority();
    head[77] = message.form().id;
    if extended {
        let expiration = message.expiration_ms().unwrap_or_default();
        put_extension(&mut head[MESSAGE_HEAD..], rest, expiration);
    }
    out.extend_from_slice(&head[..head_len]);
    match big {
        Some(place) => out.extend_from_slice(&place.bytes()),
        None => put_data(out, message),
    }
    let data_crc = crc32c(&out[start + head_len..]);
    let data_len = (out.len() - start - head_len) as u32;
    out[start + 4..start + 8].copy_from_slice(&data_crc.to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&data_len.to_le_bytes());
    finish(out, start, salt);
}

/// Exchange, key, properties and body, one after the other.
pub(super) fn put_data(out: &mut Vec<u8>, message: &Message) {
    out.extend_from_slice(message.exchange().as_bytes());
    out.extend_from_slice(message.key());
    out.extend_from_slice(message.property_bytes());
    out.extend_from_slice(message.body());
}

/// A message whose body another record holds.
pub(super) fn put_reference(
    out: &mut Vec<u8>,
    resting: Resting<'_>,
    body_len: u32,
    target: (u64, u32),
    salt: u32,
) {
    let start = out.len();
    let rest = resting.rest;
    let extended = rest.expires != Time::ZERO || rest.deliver_at != Time::ZERO;
    let mut head = [0; REF_HEAD + EXTENSION];
    let head_len = if extended { REF_HEAD + EXTENSION } else { REF_HEAD };
    head[12] = REF;
    head[13] = resting.flags() | if extended { EXTENDED } else { 0 };
    head[14..16].copy_from_slice(&(head_len as u16).to_le_bytes());
    head[16..24].copy_from_slice(&resting.mailbox.to_le_bytes());
    head[24..32].copy_from_slice(&resting.seq.to_le_bytes());
    head[32..40].copy_from_slice(&rest.since.0.to_le_bytes());
    head[40..48].copy_from_slice(&target.0.to_le_bytes());
    head[48..52].copy_from_slice(&rest.attempts.to_le_bytes());
    head[52..56].copy_from_slice(&target.1.to_le_bytes());
    head[56..60].copy_from_slice(&body_len.to_le_bytes());
    head[60] = rest.lane;
    if extended {
        put_extension(&mut head[REF_HEAD..], rest, 0);
    }
    out.extend_from_slice(&head[..head_len]);
    finish(out, start, salt);
}

fn put_extension(out: &mut [u8], rest: &Rest, expiration_ms: u64) {
    out[..8].copy_from_slice(&rest.expires.0.to_le_bytes());
    out[8..16].copy_from_slice(&rest.deliver_at.0.to_le_bytes());
    out[16..24].copy_from_slice(&rest.since.0.to_le_bytes());
    out[24..32].copy_from_slice(&expiration_ms.to_le_bytes());
}

/// A record of numbers: removal, next, mark, attempts, drop, opened.
pub(super) fn put_numbers(out: &mut Vec<u8>, kind: u8, numbers: &[u64], salt: u32) {
    let start = out.len();
    let head_len = (PREFIX + numbers.len() * 8) as u16;
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&head_len.to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    finish(out, start, salt);
}

/// A record of numbers and two texts: a definition (no numbers), or a quarantine (mailbox and position).
pub(super) fn put_pair(
    out: &mut Vec<u8>,
    kind: u8,
    numbers: &[u64],
    pair: (&[u8], &[u8]),
    salt: u32,
) {
    let start = out.len();
    let head_len = PREFIX + numbers.len() * 8 + 8;
    let data_len = (pair.0.len() + pair.1.len()) as u32;
    let data_crc = crc32c_append(crc32c(pair.0), pair.1);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&data_crc.to_le_bytes());
    out.extend_from_slice(&data_len.to_le_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&(head_len as u16).to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(pair.0.len() as u64).to_le_bytes());
    out.extend_from_slice(pair.0);
    out.extend_from_slice(pair.1);
    finish(out, start, salt);
}

/// Makes the checksums of any bytes right as if they were a record. Returns how long it is, if it fits.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn seal(bytes: &mut [u8], salt: u32) -> Option<usize> {
    let head_len = usize::from(u16_at(bytes.get(..PREFIX)?, 14)).max(PREFIX);
    let data_len = u32_at(bytes, 8) as usize;
    let data_crc = crc32c(bytes.get(head_len..head_len + data_len)?);
    bytes[4..8].copy_from_slice(&data_crc.to_le_bytes());
    let crc = crc32c_append(salt, &bytes[4..head_len]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    Some(padded(head_len + data_len))
}

/// Pads the record and seals its head.
fn finish(out: &mut Vec<u8>, start: usize, salt: u32) {
    out.resize(start + padded(out.len() - start), 0);
    let head_len = usize::from(u16_at(out, start + 14));
    let crc = crc32c_append(salt, &out[start + 4..start + head_len]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}
