//! Bytes that nobody wrote, read as everything that the files hold. For `fuzz/`; never part of a release.

use crate::broker::{Time, WireForm};

use super::change::Change;
use super::chunk::{CHUNK_HEAD, ChunkHead, big_slice, key_of, salt as chunk_salt, sealed};
use super::digest::Digest;
use super::extent::{Extent, SPAN_MAX};
use super::home::{ChunkRow, apply_live, read_quarantine, two};
use super::part::{PART_HEAD, PartHead, salt};
use super::reader::raw_slice;
use super::record::{Forms, MESSAGE, REF, Record, Records, seal};
use super::recover::Recovery;

/// Everything here has this number: the mailbox, the part, the chunk.
const NUMBER: u64 = 1;

/// Reads the bytes in every way there is, as they are and with their checksums made right.
pub fn read(bytes: &[u8], forms: &[&'static WireForm]) {
    let forms = Forms::new(forms);
    read_rows(bytes);
    read_records(bytes, salt(NUMBER), &forms);
    let key = key_of(NUMBER, NUMBER);
    read_rows(&sealed(&key, bytes));
    for (head, salt) in [(PART_HEAD, salt(NUMBER)), (CHUNK_HEAD, chunk_salt(NUMBER))] {
        let mut whole = vec![0; head];
        whole.extend_from_slice(bytes);
        seal_all(&mut whole, head, salt);
        read_records(&whole[head..], salt, &forms);
        read_part(&whole);
        if let Some(row) = ChunkRow::rebuild((NUMBER, NUMBER), &whole) {
            let again = row.encode((NUMBER, NUMBER));
            assert!(ChunkRow::decode((NUMBER, NUMBER), &again).is_some(), "a row is none any more");
        }
    }
}

/// Makes the checksum of every head right, and of the data behind it.
fn seal_all(bytes: &mut [u8], mut at: usize, salt: u32) {
    while at < bytes.len() {
        at += seal(&mut bytes[at..], salt).unwrap_or(8);
    }
}

fn read_rows(row: &[u8]) {
    let key = (NUMBER, NUMBER);
    if let Some(row) = ChunkRow::decode(key, row) {
        let span = (row.end - NUMBER) as u32;
        let mut extent = Extent::home(NUMBER, span, row.transient);
        if let Some(words) = row.words.clone()
            && let Some(sparse) = extent.clone().with_words(words)
        {
            extent = sparse;
        }
        let mut runs = Vec::new();
        row.digest.recover(&extent, |seq| (seq % 3 == 0).then_some((1, Time(2))), &mut runs);
        assert!(runs.len() <= SPAN_MAX as usize, "more messages than positions");
        let row = row.encode(key);
        assert!(ChunkRow::decode(key, &row).is_some(), "a row is none any more");
    }
    let mut extent = Extent::home(NUMBER, 200, false);
    if apply_live(key, row, &mut extent).is_some() {
        assert!(extent.positions().count() == extent.count as usize, "the live map miscounts");
    }
    read_quarantine(key, row);
    two(&key_of(key.0, key.1), row);
    Digest::decode(row);
    PartHead::read(row, NUMBER);
    raw_slice(row, NUMBER);
    ChunkHead::read(row, NUMBER, NUMBER);
    big_slice(row, NUMBER, 0);
}

fn read_records(bytes: &[u8], salt: u32, forms: &Forms) {
    let mut exchange = None;
    let mut messages: Vec<Record<'_>> = Vec::new();
    for record in Records::new(bytes, 0, salt).flatten() {
        if !record.is_message() {
            Change::read(&record);
            continue;
        }
        record.rest();
        record.big();
        record.target();
        if let Some(data) = record.data() {
            let _ = record.message(data, forms, &mut exchange);
        }
        let mut moved = Vec::new();
        record.moved(record.big(), &mut moved, salt);
        same(&record, &moved, salt);
        if record.kind == REF
            && let Some(base) = messages.iter().find(|it| it.kind == MESSAGE)
        {
            moved.clear();
            base.message_for(&record, None, &mut moved, salt);
            same(&record, &moved, salt);
        }
        moved.clear();
        record.reference_to((NUMBER, 0), &mut moved, salt);
        same(&record, &moved, salt);
        messages.push(record);
    }
}

/// What is moved is where it was: the same message of the same mailbox, at rest as before.
fn same(record: &Record<'_>, moved: &[u8], salt: u32) {
    let moved = Record::at(moved, 0, salt).expect("a moved record is whole");
    let of = |it: &Record<'_>| (it.mailbox(), it.seq(), it.rest());
    assert_eq!(of(&moved), of(record));
}

fn read_part(bytes: &[u8]) {
    let mut recovery =
        Recovery { keep_transient: bytes.len().is_multiple_of(2), ..Recovery::default() };
    recovery.replay_part(NUMBER, bytes);
    let _ = recovery.finish();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::broker::NEUTRAL;

    /// A dose of what the fuzz target does, from its own seeds.
    #[test]
    fn damaged_bytes_are_read_without_harm() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/store_record");
        let mut state = 11_u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n
        };
        let mut count = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            let seed = seed.unwrap();
            if !seed.file_name().to_string_lossy().starts_with("seed-") {
                // Found by a run of the fuzzer.
                continue;
            }
            let seed = std::fs::read(seed.path()).unwrap();
            for _ in 0..400 {
                let mut bytes = seed.clone();
                for _ in 0..random(6) {
                    let at = random(bytes.len());
                    match random(5) {
                        0 => bytes[at] = 0xFF,
                        1 => bytes[at] = 0,
                        2 => bytes[at] ^= 1 << random(8),
                        3 => bytes.truncate(at.max(1)),
                        _ => {
                            let copied = bytes[at..].to_vec();
                            bytes.extend_from_slice(&copied);
                        }
                    }
                }
                read(&bytes, &[&NEUTRAL]);
                count += 1;
            }
        }
        assert!(count >= 400, "the seeds are missing");
    }
}
