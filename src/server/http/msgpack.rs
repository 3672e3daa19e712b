//! MessagePack, as far as messages need it: what a peer sends may be damaged, and is never nested deep.

use bytes::Bytes;

use crate::broker::{Table, TableKey, Value};

const DEPTH_MAX: u32 = 32;

pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader(bytes);
    let value = reader.value(0)?;
    if reader.0.is_empty() { Ok(value) } else { Err("more than one msgpack value".into()) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(size).ok_or("msgpack that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of so many bytes, the largest first.
    fn number(&mut self, size: usize) -> Result<u64, String> {
        Ok(self.take(size)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn size(&mut self, size: usize) -> Result<usize, String> {
        Ok(self.number(size)? as usize)
    }

    fn bytes(&mut self, size: usize) -> Result<Bytes, String> {
        self.take(size).map(Bytes::copy_from_slice)
    }

    fn value(&mut self, depth: u32) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("msgpack nested too deep".into());
        }
        let head = self.take(1)?[0];
        Ok(match head {
            0..=0x7f => Value::I64(head.into()),
            0xe0..=0xff => Value::I64((head as i8).into()),
            0x80..=0x8f => self.map(usize::from(head & 15), depth)?,
            0x90..=0x9f => self.array(usize::from(head & 15), depth)?,
            0xa0..=0xbf => Value::Text(self.bytes(usize::from(head & 31))?),
            0xc0 => Value::Void,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let size = self.size(1 << (head - 0xc4))?;
                Value::Binary(self.bytes(size)?)
            }
            0xca => Value::F32(f32::from_bits(self.number(4)? as u32)),
            0xcb => Value::F64(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => {
                let number = self.number(1 << (head - 0xcc))?;
                Value::I64(i64::try_from(number).map_err(|_| "a msgpack number too large")?)
            }
            0xd0..=0xd3 => {
                let size = 1 << (head - 0xd0);
                let unused = 64 - 8 * size as u32;
                Value::I64((self.number(size)? << unused) as i64 >> unused)
            }
            0xd9..=0xdb => {
                let size = self.size(1 << (head - 0xd9))?;
                Value::Text(self.bytes(size)?)
            }
            0xdc | 0xdd => {
                let count = self.size(2 << (head - 0xdc))?;
                self.array(count, depth)?
            }
            0xde | 0xdf => {
                let count = self.size(2 << (head - 0xde))?;
                self.map(count, depth)?
            }
            other => {
                return Err(format!("msgpack of type {other:#04x}, which messages do not use"));
            }
        })
    }

    fn array(&mut self, count: usize, depth: u32) -> Result<Value, String> {
        // A claim costs nothing: each value takes a byte at least.
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(values))
    }

    fn map(&mut self, count: usize, depth: u32) -> Result<Value, String> {
        let mut fields = Table::new();
        for _ in 0..count {
            let name = self.value(depth + 1)?;
            let name =
                name.as_bytes().cloned().ok_or("a msgpack map with a name that is no text")?;
            let value = self.value(depth + 1)?;
            fields.0.push((TableKey(name), value));
        }
        Ok(Value::Table(fields))
    }
}

pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(value, &mut out);
    out
}

fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Void => out.push(0xc0),
        Value::Bool(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::F32(number) => {
            out.push(0xca);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::F64(number) => put_f64(*number, out),
        Value::Decimal { scale, value } => {
            put_f64(f64::from(*value) / 10f64.powi((*scale).into()), out);
        }
        Value::Text(text) => {
            head(text.len(), [(32, 0xa0)], [0xd9, 0xda, 0xdb], out);
            out.extend_from_slice(text);
        }
        Value::Binary(bytes) => {
            head(bytes.len(), [], [0xc4, 0xc5, 0xc6], out);
            out.extend_from_slice(bytes);
        }
        Value::Timestamp(seconds) => {
            out.push(0xcf);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        Value::Table(fields) => {
            head(fields.0.len(), [(16, 0x80)], [0, 0xde, 0xdf], out);
            for (name, value) in &fields.0 {
                put(&Value::Text(name.0.clone()), out);
                put(value, out);
            }
        }
        Value::Array(all) => {
            head(all.len(), [(16, 0x90)], [0, 0xdc, 0xdd], out);
            all.iter().for_each(|value| put(value, out));
        }
        number => {
            let number = number.as_i64().unwrap_or_default();
            match i8::try_from(number) {
                Ok(small @ -32..) => out.push(small as u8),
                _ => {
                    out.push(0xd3);
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
}

fn put_f64(number: f64, out: &mut Vec<u8>) {
    out.push(0xcb);
    out.extend_from_slice(&number.to_be_bytes());
}

/// A size in the shortest form: inside the type's byte, or behind it in 1, 2 or 4 bytes; 0 stands for no such form.
fn head<const N: usize>(size: usize, inside: [(usize, u8); N], behind: [u8; 3], out: &mut Vec<u8>) {
    for (below, head) in inside {
        if size < below {
            return out.push(head | size as u8);
        }
    }
    let [one, two, four] = behind;
    if one != 0 && size <= usize::from(u8::MAX) {
        out.extend_from_slice(&[one, size as u8]);
    } else if size <= usize::from(u16::MAX) {
        out.push(two);
        out.extend_from_slice(&(size as u16).to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&(size as u32).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Void),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::I64),
            any::<f64>().prop_map(Value::F64),
            ".{0,40}".prop_map(|text| Value::Text(text.into())),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|it| Value::Binary(it.into())),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                prop::collection::vec((".{0,20}", inner), 0..20).prop_map(|all| {
                    let pair = |(name, value): (String, Value)| (TableKey(name.into()), value);
                    Value::Table(Table(all.into_iter().map(pair).collect()))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in values()) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            value in values(),
            cut in any::<prop::sample::Index>(),
        ) {
            let _ = decode(&bytes);
            let whole = encode(&value);
            prop_assert!(decode(&whole[..cut.index(whole.len())]).is_err());
        }
    }

    #[test]
    fn depth_and_claims_are_bounded() {
        assert!(decode(&[0x91; 100_000]).is_err());
        assert!(decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode(&[0xc6, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(decode(&[0xd1, 0xff, 0x00]), Ok(Value::I64(-256)));
    }
}
