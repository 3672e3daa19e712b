//! Publisher confirms of a channel: which tags are known, and how to say them with few frames.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pillarbox_amqp::{encode_ack, encode_nack};

/// Tags count the publishes since confirm.select, from 1.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    given: u64,
    /// Every tag up to here was said.
    said: u64,
    /// Every tag up to here is known.
    known: u64,
    /// Of the known tags those that no acknowledgement of many may cover, in order.
    apart: Vec<(u64, Apart)>,
    /// Known beyond a tag that is not.
    early: BTreeMap<u64, Apart>,
}

/// How a tag stands that is said by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    Taken,
    Refused,
    Said,
}

impl Confirms {
    /// The tag of the next publish.
    pub(super) fn next(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// The broker took or refused the publish of this tag.
    pub(super) fn settle(&mut self, tag: u64, taken: bool) {
        if tag <= self.known || tag > self.given {
            return;
        }
        let how = if taken { Apart::Taken } else { Apart::Refused };
        if tag != self.known + 1 {
            self.early.insert(tag, how);
            return;
        }
        self.know(tag, how);
        while let Some(entry) = self.early.first_entry()
            && *entry.key() == self.known + 1
        {
            let (tag, how) = entry.remove_entry();
            self.know(tag, how);
        }
    }

    fn know(&mut self, tag: u64, how: Apart) {
        self.known = tag;
        if how != Apart::Taken {
            self.apart.push((tag, how));
        }
    }

    /// Says all that is known and was not said, in order of tags: the client sees no acknowledgement
    /// of many that passes over a refusal, and no tag twice.
    pub(super) fn flush(&mut self, channel: u16, wire: &mut BytesMut) {
        for (tag, how) in std::mem::take(&mut self.apart) {
            self.acknowledge(tag - 1, channel, wire);
            if how == Apart::Refused {
                encode_nack(wire, channel, tag, false);
            }
            self.said = tag;
        }
        self.acknowledge(self.known, channel, wire);
        for (tag, how) in &mut self.early {
            match how {
                Apart::Taken => encode_ack(wire, channel, *tag, false),
                Apart::Refused => encode_nack(wire, channel, *tag, false),
                Apart::Said => {}
            }
            *how = Apart::Said;
        }
    }

    fn acknowledge(&mut self, upto: u64, channel: u16, wire: &mut BytesMut) {
        if upto > self.said {
            encode_ack(wire, channel, upto, upto - self.said > 1);
            self.said = upto;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_amqp::{Method, next_frame};
    use rstest::rstest;

    /// Tags settled between flushes, a minus for a refusal, `0` for a flush.
    #[rstest]
    #[case(&[1, 0], "ack 1")]
    #[case(&[1, 2, 3, 0], "ack ..3")]
    #[case(&[2, 3, 0, 1, 0], "ack 2, ack 3, ack 1")]
    #[case(&[1, -2, 3, 4, 0], "ack 1, nack 2, ack ..4")]
    #[case(&[-1, -2, 0], "nack 1, nack 2")]
    #[case(&[3, -2, 0, 1, 0, 4, 0], "nack 2, ack 3, ack 1, ack 4")]
    #[case(&[1, 1, 0, 1, 0], "ack 1")]
    #[case(&[9, 0], "")]
    fn confirms_are_said_in_few_frames(#[case] steps: &[i64], #[case] expected: &str) {
        let mut confirms = Confirms::default();
        (0..5).for_each(|_| {
            confirms.next();
        });
        let mut wire = BytesMut::new();
        for step in steps {
            match *step {
                0 => confirms.flush(1, &mut wire),
                tag => confirms.settle(tag.unsigned_abs(), tag > 0),
            }
        }
        assert_eq!(said(&wire), expected);
    }

    fn said(mut wire: &[u8]) -> String {
        let mut said = Vec::new();
        while let Ok(Some(frame)) = next_frame(wire, 4096) {
            wire = &wire[frame.wire_len()..];
            said.push(match Method::decode(frame.payload) {
                Ok(Method::BasicAck { delivery_tag, multiple: true }) => {
                    format!("ack ..{delivery_tag}")
                }
                Ok(Method::BasicAck { delivery_tag, .. }) => format!("ack {delivery_tag}"),
                Ok(Method::BasicNack { delivery_tag, .. }) => format!("nack {delivery_tag}"),
                other => format!("{other:?}"),
            });
        }
        said.join(", ")
    }
}
