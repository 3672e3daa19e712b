//! A digest: what recovery must know of the messages of an extent, without their bodies.

use crate::broker::{RecoveredRun, Rest, Seq, Time};

use super::extent::Extent;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    runs: Vec<DigestRun>,
}

/// Neighbouring positions, alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DigestRun {
    first: u64,
    count: u32,
    rest: Rest,
    sizes: Sizes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sizes {
    All(u32),
    Each(Vec<u32>),
}

/// Can stand in one run with neighbours of its lane.
fn plain(rest: &Rest) -> bool {
    rest.expires == Time::ZERO && rest.deliver_at == Time::ZERO && rest.attempts == 0
}

fn alike(a: &Rest, b: &Rest) -> bool {
    plain(a) && plain(b) && a.lane == b.lane && a.redelivered == b.redelivered
}

impl DigestRun {
    fn size(&self, seq: u64) -> u32 {
        match &self.sizes {
            Sizes::All(size) => *size,
            Sizes::Each(sizes) => sizes[(seq - self.first) as usize],
        }
    }

    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

impl Digest {
    /// Positions come in ascending order.
    pub(super) fn push(&mut self, seq: u64, rest: Rest, size: u32) {
        if let Some(run) = self.runs.last_mut()
            && run.end() == seq
            && alike(&run.rest, &rest)
        {
            match &mut run.sizes {
                Sizes::All(all) if *all == size => {}
                Sizes::All(all) => {
                    let mut each = vec![*all; run.count as usize];
                    each.push(size);
                    run.sizes = Sizes::Each(each);
                }
                Sizes::Each(each) => each.push(size),
            }
            run.count += 1;
            return;
        }
        self.runs.push(DigestRun { first: seq, count: 1, rest, sizes: Sizes::All(size) });
    }

    /// The extent's live messages, added to the mailbox's runs.
    pub(super) fn recover(
        &self,
        extent: &Extent,
        attempts: impl Fn(u64) -> Option<(u32, Time)>,
        out: &mut Vec<RecoveredRun>,
    ) {
        let whole = extent.words().is_none();
        for run in &self.runs {
            let (first, end) = (run.first.max(extent.first), run.end().min(extent.end()));
            if first >= end {
                continue;
            }
            if let (true, Sizes::All(size), true) = (whole, &run.sizes, run.count > 1) {
                // Attempts make a message odd, also where its neighbours are plain.
                let mut from = first;
                while from < end {
                    let odd = (from..end).find(|&seq| attempts(seq).is_some()).unwrap_or(end);
                    let count = (odd - from) as u32;
                    if count > 0 {
                        let bytes = u64::from(*size) * u64::from(count);
                        add(out, from, count, bytes, run.rest);
                    }
                    if odd < end {
                        one(out, odd, run, &attempts);
                    }
                    from = odd + 1;
                }
            } else {
                for seq in (first..end).filter(|&seq| extent.has(seq)) {
                    one(out, seq, run, &attempts);
                }
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.runs.len() as u64);
        let mut at = 0;
        for run in &self.runs {
            let rest = &run.rest;
            let uniform = matches!(run.sizes, Sizes::All(_));
            put(out, run.first - at);
            at = run.end();
            put(out, run.count.into());
            out.push(
                u8::from(rest.redelivered) | u8::from(!plain(rest)) << 1 | u8::from(uniform) << 2,
            );
            out.push(rest.lane);
            put(out, rest.since.0);
            if !plain(rest) {
                put(out, rest.expires.0);
                put(out, rest.deliver_at.0);
                put(out, rest.attempts.into());
            }
            match &run.sizes {
                Sizes::All(size) => put(out, (*size).into()),
                Sizes::Each(sizes) => sizes.iter().for_each(|size| put(out, (*size).into())),
            }
        }
    }

    pub(super) fn decode(mut from: &[u8]) -> Option<Self> {
        let from = &mut from;
        let count = take(from)?;
        let mut runs = Vec::new();
        let mut at = 0_u64;
        for _ in 0..count {
            let first = at.checked_add(take(from)?)?;
            let count = u32::try_from(take(from)?).ok()?;
            at = first.checked_add(count.into())?;
            let (&[flags, lane], left) = from.split_first_chunk::<2>()?;
            *from = left;
            let mut rest = Rest {
                since: Time(take(from)?),
                lane,
                redelivered: flags & 1 != 0,
                ..Rest::default()
            };
            if flags & 2 != 0 {
                rest.expires = Time(take(from)?);
                rest.deliver_at = Time(take(from)?);
                rest.attempts = u32::try_from(take(from)?).ok()?;
            }
            let sizes = if flags & 4 != 0 {
                Sizes::All(u32::try_from(take(from)?).ok()?)
            } else {
                let each = (0..count).map(|_| take(from).and_then(|size| size.try_into().ok()));
                Sizes::Each(each.collect::<Option<_>>()?)
            };
            runs.push(DigestRun { first, count, rest, sizes });
        }
        from.is_empty().then_some(Self { runs })
    }
}

fn one(
    out: &mut Vec<RecoveredRun>,
    seq: u64,
    run: &DigestRun,
    attempts: &impl Fn(u64) -> Option<(u32, Time)>,
) {
    let mut rest = run.rest;
    if let Some((count, deliver_at)) = attempts(seq) {
        rest.attempts = count;
        rest.deliver_at = deliver_at;
    }
    add(out, seq, 1, run.size(seq).into(), rest);
}

/// Runs become no longer than this, so that where a stream's times and sizes are is not lost.
const RUN_MESSAGES_MAX: u32 = 1024;
const RUN_BYTES_MAX: u64 = 1 << 20;

fn add(out: &mut Vec<RecoveredRun>, first: u64, count: u32, bytes: u64, rest: Rest) {
    if let Some(last) = out.last_mut()
        && last.first.0 + u64::from(last.count) == first
        && alike(&last.rest, &rest)
        && let Some(sum) = last.count.checked_add(count)
        && sum <= RUN_MESSAGES_MAX
        && last.bytes + bytes <= RUN_BYTES_MAX
    {
        last.count = sum;
        last.bytes += bytes;
        return;
    }
    out.push(RecoveredRun { first: Seq(first), count, bytes, rest });
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = from.split_first()?;
        *from = left;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_survives_its_bytes_and_neighbours_merge() {
        let mut digest = Digest::default();
        for seq in 5..20 {
            digest.push(seq, Rest { since: Time(99), ..Rest::default() }, 1024);
        }
        digest.push(20, Rest { lane: 3, ..Rest::default() }, 7);
        digest.push(21, Rest { lane: 3, ..Rest::default() }, 8);
        digest.push(30, Rest { expires: Time(1 << 40), ..Rest::default() }, 9);
        digest.push(31, Rest { expires: Time(1 << 40), ..Rest::default() }, 9);
        let mut bytes = Vec::new();
        digest.encode(&mut bytes);
        assert_eq!(Digest::decode(&bytes), Some(digest.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Digest::decode(&bytes[..cut]), None, "{cut}");
        }

        let mut extent = Extent::home(5, 27, false);
        extent.remove(22, 30);
        extent.remove(5, 7);
        let mut out = Vec::new();
        let attempts = |seq| (seq == 10).then_some((2, Time(3)));
        digest.recover(&extent, attempts, &mut out);
        let shape: Vec<_> = out.iter().map(|run| (run.first.0, run.count, run.bytes)).collect();
        let expected = [
            (7, 3, 3 << 10),
            (10, 1, 1 << 10),
            (11, 9, 9 << 10),
            (20, 2, 15),
            (30, 1, 9),
            (31, 1, 9),
        ];
        assert_eq!(shape, expected);
    }
}
