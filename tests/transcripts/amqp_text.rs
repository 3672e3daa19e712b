//! AMQP frames as text and back, from a table of methods that knows nothing of the codec it tests.
//!
//! ```text
//! 1 basic.publish exchange=logs key=app.error mandatory
//! 1 header size=5 delivery-mode=2 headers={n=1,s="x",l=[1l,true]}
//! 1 body "hello"
//! ```

use std::fmt::Write;

const METHODS: &str = include_str!("methods.txt");

/// Properties of a content header from the highest flag down.
const PROPERTIES: [(&str, &str); 14] = [
    ("content-type", "shortstr"),
    ("content-encoding", "shortstr"),
    ("headers", "table"),
    ("delivery-mode", "octet"),
    ("priority", "octet"),
    ("correlation-id", "shortstr"),
    ("reply-to", "shortstr"),
    ("expiration", "shortstr"),
    ("message-id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user-id", "shortstr"),
    ("app-id", "shortstr"),
    ("cluster-id", "shortstr"),
];

struct Schema {
    name: &'static str,
    ids: (u16, u16),
    fields: Vec<(&'static str, Option<&'static str>)>,
}

fn schemas() -> impl Iterator<Item = Schema> {
    METHODS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a method has a name");
        let (class, method) = words.next().and_then(|ids| ids.split_once('.')).expect("ids");
        let fields = words
            .map(|word| {
                word.split_once(':').map_or((word, None), |(kind, name)| (kind, Some(name)))
            })
            .collect();
        let ids = (class.parse().expect("class"), method.parse().expect("method"));
        Schema { name, ids, fields }
    })
}

/// One line as a frame, or as the bytes of `raw`.
pub(crate) fn encode(line: &str) -> Vec<u8> {
    if let Some(hex) = line.strip_prefix("raw ") {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        return digits
            .chunks(2)
            .map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")
            })
            .collect();
    }
    if line == "protocol-header" {
        return b"AMQP\0\0\x09\x01".to_vec();
    }
    let (channel, rest) = line.split_once(' ').expect("a channel and a method");
    let channel: u16 = channel.parse().unwrap_or_else(|_| panic!("channel in {line:?}"));
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let arguments = parse_arguments(rest);
    let (kind, payload) = match name {
        "heartbeat" => (8, Vec::new()),
        "body" => (3, text(rest.trim())),
        "header" => (2, encode_header(&arguments)),
        name => (1, encode_method(name, &arguments)),
    };
    frame(kind, channel, &payload)
}

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

type Arguments = Vec<(String, String)>;

/// `name=value` words and bare flags; brackets and quotes hold spaces together.
fn parse_arguments(text: &str) -> Arguments {
    split(text, ' ')
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !word.starts_with('"') => (name.into(), value.into()),
            _ => (word, "true".into()),
        })
        .collect()
}

fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut quoted) = (Vec::new(), String::new(), 0, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if c == at && depth == 0 && !quoted {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Quoted or bare; `\xHH` stands for a byte, `"x"*n` repeats.
fn text(value: &str) -> Vec<u8> {
    if let Some((piece, count)) = value.rsplit_once("\"*") {
        let count: usize = count.parse().expect("a count");
        return text(&format!("{piece}\"")).repeat(count);
    }
    let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value);
    let mut bytes = Vec::new();
    let mut rest = bare;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).expect("a byte in hex"));
        rest = &after[2..];
    }
    bytes.extend(rest.bytes());
    bytes
}

fn encode_method(name: &str, arguments: &Arguments) -> Vec<u8> {
    let schema = schemas().find(|it| it.name == name).unwrap_or_else(|| panic!("no method {name}"));
    for (given, _) in arguments {
        let known = schema.fields.iter().any(|(_, name)| *name == Some(given.as_str()));
        assert!(known, "{name} has no field {given}");
    }
    let mut out = Vec::new();
    out.extend(schema.ids.0.to_be_bytes());
    out.extend(schema.ids.1.to_be_bytes());
    let mut bits = 0;
    for (kind, name) in &schema.fields {
        let given = arguments.iter().find(|(given, _)| Some(given.as_str()) == *name);
        let value = given.map_or("", |(_, value)| value.as_str());
        if *kind == "bit" {
            if bits % 8 == 0 {
                out.push(0);
            }
            if value == "true" {
                *out.last_mut().expect("an octet of bits") |= 1 << (bits % 8);
            }
            bits += 1;
        } else {
            bits = 0;
            put(kind, value, &mut out);
        }
    }
    out
}

fn encode_header(arguments: &Arguments) -> Vec<u8> {
    let get = |name: &str| arguments.iter().find(|(given, _)| given == name).map(|(_, it)| &**it);
    let mut out = Vec::new();
    put("short", get("class").unwrap_or("60"), &mut out);
    put("short", get("weight").unwrap_or("0"), &mut out);
    put("longlong", get("size").unwrap_or("0"), &mut out);
    let (mut flags, mut values) = (0_u16, Vec::new());
    for (place, (name, kind)) in PROPERTIES.iter().enumerate() {
        if let Some(value) = get(name) {
            flags |= 1 << (15 - place);
            put(kind, value, &mut values);
        }
    }
    out.extend(flags.to_be_bytes());
    out.extend(values);
    out
}

fn put(kind: &str, value: &str, out: &mut Vec<u8>) {
    let number = || match value {
        "" => 0,
        value => value.parse::<u64>().unwrap_or_else(|_| panic!("number {value:?}")),
    };
    match kind {
        "octet" => out.push(number() as u8),
        "short" => out.extend((number() as u16).to_be_bytes()),
        "long" => out.extend((number() as u32).to_be_bytes()),
        "longlong" => out.extend(number().to_be_bytes()),
        "shortstr" => {
            let bytes = text(value);
            out.push(u8::try_from(bytes.len()).expect("a short string"));
            out.extend(bytes);
        }
        "longstr" => put_sized(&text(value), out),
        "table" => put_sized(&table(value), out),
        other => panic!("type {other}"),
    }
}

fn put_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn table(value: &str) -> Vec<u8> {
    let inner = value.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(value);
    let mut out = Vec::new();
    for entry in split(inner, ',') {
        let (name, value) = entry.split_once('=').expect("name=value");
        put("shortstr", name, &mut out);
        put_value(value, &mut out);
    }
    out
}

fn put_value(value: &str, out: &mut Vec<u8>) {
    if value == "true" || value == "false" {
        out.extend([b't', u8::from(value == "true")]);
    } else if value == "void" {
        out.push(b'V');
    } else if value.starts_with('{') {
        out.push(b'F');
        put_sized(&table(value), out);
    } else if value.starts_with('[') {
        let mut items = Vec::new();
        for item in split(&value[1..value.len() - 1], ',') {
            put_value(&item, &mut items);
        }
        out.push(b'A');
        put_sized(&items, out);
    } else if let Some(seconds) = value.strip_prefix("@") {
        out.push(b'T');
        put("longlong", seconds, out);
    } else if let Some(Ok(number)) = value.strip_suffix('l').map(str::parse::<i64>) {
        out.push(b'l');
        out.extend(number.to_be_bytes());
    } else if let Ok(number) = value.parse::<i32>() {
        out.push(b'I');
        out.extend(number.to_be_bytes());
    } else {
        out.push(b'S');
        put_sized(&text(value), out);
    }
}

/// The frames of `bytes`, a line each.
pub(crate) fn decode(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.starts_with(b"AMQP") {
            lines.push("protocol-header".into());
            rest = &rest[8..];
            continue;
        }
        let (kind, channel) = (rest[0], u16::from_be_bytes([rest[1], rest[2]]));
        let size = u32::from_be_bytes([rest[3], rest[4], rest[5], rest[6]]) as usize;
        let payload = &rest[7..7 + size];
        assert_eq!(rest[7 + size], 0xCE, "frame end");
        rest = &rest[8 + size..];
        let line = match kind {
            1 => decode_method(payload),
            2 => decode_header(payload),
            3 => format!("body {}", show(payload, true)),
            8 => "heartbeat".into(),
            other => panic!("frame type {other}"),
        };
        lines.push(format!("{channel} {line}"));
    }
    lines
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, size: usize) -> u64 {
        self.take(size).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn field(&mut self, kind: &str) -> String {
        match kind {
            "octet" => self.number(1).to_string(),
            "short" => self.number(2).to_string(),
            "long" => self.number(4).to_string(),
            "longlong" => self.number(8).to_string(),
            "shortstr" => {
                let size = self.number(1) as usize;
                show(self.take(size), false)
            }
            "longstr" => {
                let size = self.number(4) as usize;
                show(self.take(size), false)
            }
            _ => {
                let size = self.number(4) as usize;
                Self(self.take(size)).table()
            }
        }
    }

    fn table(mut self) -> String {
        let mut entries = Vec::new();
        while !self.0.is_empty() {
            let name = self.field("shortstr");
            entries.push(format!("{name}={}", self.value()));
        }
        format!("{{{}}}", entries.join(","))
    }

    fn value(&mut self) -> String {
        match self.number(1) as u8 {
            b't' => (self.number(1) == 1).to_string(),
            b'V' => "void".into(),
            b'S' => {
                let size = self.number(4) as usize;
                show(self.take(size), true)
            }
            b'F' => self.field("table"),
            b'A' => {
                let size = self.number(4) as usize;
                let mut items = Self(self.take(size));
                let mut shown = Vec::new();
                while !items.0.is_empty() {
                    shown.push(items.value());
                }
                format!("[{}]", shown.join(","))
            }
            b'T' => format!("@{}", self.number(8)),
            b'l' => format!("{}l", self.number(8) as i64),
            b'I' => (self.number(4) as i32).to_string(),
            other => panic!("no text for field type {:?}", other as char),
        }
    }
}

fn decode_method(payload: &[u8]) -> String {
    let mut reader = Reader(payload);
    let ids = (reader.number(2) as u16, reader.number(2) as u16);
    let schema = schemas().find(|it| it.ids == ids).unwrap_or_else(|| panic!("no method {ids:?}"));
    let mut line = String::from(schema.name);
    let (mut bits, mut octet) = (0, 0);
    for (kind, name) in &schema.fields {
        if *kind == "bit" {
            if bits % 8 == 0 {
                octet = reader.number(1);
            }
            if octet >> (bits % 8) & 1 == 1 {
                let _ = write!(line, " {}", name.unwrap_or("reserved"));
            }
            bits += 1;
            continue;
        }
        bits = 0;
        let value = reader.field(kind);
        if let Some(name) = name
            && !matches!(&*value, "" | "0" | "{}")
        {
            let _ = write!(line, " {name}={value}");
        }
    }
    assert!(reader.0.is_empty(), "{line} has bytes behind its fields");
    line
}

fn decode_header(payload: &[u8]) -> String {
    let mut reader = Reader(payload);
    assert_eq!((reader.number(2), reader.number(2)), (60, 0), "class and weight");
    let mut line = format!("header size={}", reader.number(8));
    let flags = reader.number(2);
    for (place, (name, kind)) in PROPERTIES.iter().enumerate() {
        if flags >> (15 - place) & 1 == 1 {
            let _ = write!(line, " {name}={}", reader.field(kind));
        }
    }
    assert!(reader.0.is_empty(), "{line} has bytes behind its properties");
    line
}

fn show(bytes: &[u8], quoted: bool) -> String {
    if bytes.len() > 300 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("\"{}\"*{}", bytes[0] as char, bytes.len());
    }
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if c.is_control() => {
                    let _ = write!(shown, "\\x{:02x}", c as u32);
                }
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if quoted || shown.contains([' ', '"', '=', '{', '[', ',']) {
        format!("\"{shown}\"")
    } else {
        shown
    }
}
