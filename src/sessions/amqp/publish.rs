//! Publishing on a channel: a method, a header and body frames become one message.
//!
//! Mostly the three lie next to each other in what was read; the message is then a slice of it.
//! Otherwise an `Assembly` gathers them in a buffer of its own.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_amqp::{
    ContentHeader, PropertiesRef, PublishRef, ReplyCode, ShortString, array_values,
    decode_content_header, decode_publish, table_entries,
};

use super::channel::{Channel, Mode};
use super::line::Line;
use super::name::{REPLY_TO, name};
use super::properties::{AMQP, Rewrite};
use super::reply::{Fault, Ids, PUBLISH};
use super::whole::Whole;
use crate::broker::access::check_sender;
use crate::broker::{
    Announce, CONFIRM, CONFIRM_HOME, Command, Message, Name, Parts, Publish, SPREAD_TAGS, Span,
    Time,
};
use crate::sessions::Outbox;

/// Ten years in milliseconds, RabbitMQ's bound.
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;
/// What is reserved for an announced body before any of it came.
const RESERVE_MAX: usize = 1 << 20;
const CLASS_BASIC: u16 = 60;

/// A publish whose content is still on its way.
#[derive(Debug)]
pub(super) struct Assembly {
    exchange: Name,
    mandatory: bool,
    /// Routing key, properties and what has come of the body.
    buffer: BytesMut,
    key: Span,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    ExpectHeader,
    ExpectBody { checked: Checked, properties: Span, missing: u64, empty_bodies: u32 },
}

/// What the header said, found good.
#[derive(Debug)]
struct Checked {
    persistent: bool,
    priority: u8,
    expiration_ms: Option<u64>,
    more_keys: Option<Vec<Bytes>>,
    home: bool,
    wants_tags: bool,
    rewrite: Rewrite,
}

/// A message whose parts lie in one buffer.
struct Assembled {
    exchange: Name,
    mandatory: bool,
    checked: Checked,
    buffer: Bytes,
    key: Span,
    properties: Span,
    body: Span,
}

impl Channel {
    /// A message in one piece of what was read.
    #[inline]
    pub(super) fn publish_whole(
        &mut self,
        whole: &Whole<'_>,
        read: &Bytes,
        now: Time,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        self.expect_method()?;
        let exchange = self.exchange_of(&whole.publish)?;
        let checked = self.check(&whole.header, line)?;
        let key = whole.publish.routing_key;
        let last = if whole.body.is_empty() { whole.header.properties } else { whole.body };
        let start = offset(key, read);
        let buffer = read.slice(start..offset(last, read) + last.len());
        let span = |part: &[u8]| {
            let at = (offset(part, read) - start) as u32;
            Span { start: at, end: at + part.len() as u32 }
        };
        let properties = span(whole.header.properties);
        let body = match whole.body {
            [] => Span { start: properties.end, end: properties.end },
            body => span(body),
        };
        let key = span(key);
        let mandatory = whole.publish.mandatory;
        let message = Assembled { exchange, mandatory, checked, buffer, key, properties, body };
        self.publish(message, now, line, out)
    }

    /// A publish by itself.
    pub(super) fn begin(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let publish = decode_publish(payload).map_err(Fault::of_method)?;
        let exchange = self.exchange_of(&publish)?;
        let key = Span { start: 0, end: publish.routing_key.len() as u32 };
        self.assembly = Some(Box::new(Assembly {
            exchange,
            mandatory: publish.mandatory,
            buffer: BytesMut::from(publish.routing_key),
            key,
            stage: Stage::ExpectHeader,
        }));
        Ok(())
    }

    pub(super) fn header(
        &mut self,
        payload: &[u8],
        now: Time,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        match &self.assembly {
            Some(assembly) if matches!(assembly.stage, Stage::ExpectHeader) => {}
            Some(_) => return Err(Fault::unexpected_frame(EXPECTED_BODY, PUBLISH)),
            None => return Err(Fault::unexpected_frame(EXPECTED_METHOD, (0, 0))),
        }
        let header = decode_content_header(payload).map_err(Fault::of_content)?;
        let checked = self.check(&header, line)?;
        line.unfinished_bytes = line.unfinished_bytes.saturating_add(header.body_size);
        if line.unfinished_bytes > line.settings.unfinished_bytes_max {
            let text = "too many unfinished messages on this connection";
            return Err(Fault::new(ReplyCode::RESOURCE_ERROR, text, PUBLISH));
        }
        let Some(assembly) = &mut self.assembly else {
            return Ok(());
        };
        let reserve = usize::try_from(header.body_size).unwrap_or(RESERVE_MAX).min(RESERVE_MAX);
        assembly.buffer.reserve(header.properties.len() + reserve);
        let start = assembly.buffer.len() as u32;
        assembly.buffer.extend_from_slice(header.properties);
        let properties = Span { start, end: assembly.buffer.len() as u32 };
        let missing = header.body_size;
        assembly.stage = Stage::ExpectBody { checked, properties, missing, empty_bodies: 0 };
        if missing == 0 { self.complete(now, line, out) } else { Ok(()) }
    }

    pub(super) fn body(
        &mut self,
        payload: &[u8],
        now: Time,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(assembly) = &mut self.assembly else {
            return Err(Fault::unexpected_frame(EXPECTED_METHOD, (0, 0)));
        };
        let Stage::ExpectBody { missing, empty_bodies, .. } = &mut assembly.stage else {
            return Err(Fault::unexpected_frame(EXPECTED_HEADER, PUBLISH));
        };
        *missing = missing.checked_sub(payload.len() as u64).ok_or_else(|| {
            Fault::unexpected_frame("content body is larger than its header announced", PUBLISH)
        })?;
        *empty_bodies = if payload.is_empty() { *empty_bodies + 1 } else { 0 };
        if *empty_bodies > line.settings.empty_bodies_max {
            let text = "too many empty content body frames";
            return Err(Fault::new(ReplyCode::FRAME_ERROR, text, PUBLISH));
        }
        assembly.buffer.extend_from_slice(payload);
        line.unfinished_bytes = line.unfinished_bytes.saturating_sub(payload.len() as u64);
        if *missing == 0 { self.complete(now, line, out) } else { Ok(()) }
    }

    /// A method may come now: no content is awaited.
    pub(super) fn expect_method(&self) -> Result<(), Fault> {
        match &self.assembly {
            None => Ok(()),
            Some(assembly) => match assembly.stage {
                Stage::ExpectHeader => Err(Fault::unexpected_frame(EXPECTED_HEADER, PUBLISH)),
                Stage::ExpectBody { .. } => Err(Fault::unexpected_frame(EXPECTED_BODY, PUBLISH)),
            },
        }
    }

    /// The channel ends amid a message.
    pub(super) fn abandon_content(&mut self, line: &mut Line) {
        if let Some(assembly) = self.assembly.take()
            && let Stage::ExpectBody { missing, .. } = assembly.stage
        {
            line.unfinished_bytes = line.unfinished_bytes.saturating_sub(missing);
        }
    }

    fn complete(&mut self, now: Time, line: &mut Line, out: &mut Outbox) -> Result<(), Fault> {
        let Some(assembly) = self.assembly.take() else {
            return Ok(());
        };
        let Assembly { exchange, mandatory, buffer, key, stage } = *assembly;
        let Stage::ExpectBody { checked, properties, .. } = stage else {
            return Ok(());
        };
        let body = Span { start: properties.end, end: buffer.len() as u32 };
        let buffer = buffer.freeze();
        let message = Assembled { exchange, mandatory, checked, buffer, key, properties, body };
        self.publish(message, now, line, out)
    }

    #[inline]
    fn publish(
        &mut self,
        message: Assembled,
        now: Time,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        line.published(out);
        let message = match message.checked.rewrite.is_needed() {
            true => message.rewritten(),
            false => message,
        };
        let Assembled { exchange, mandatory, checked, buffer, key, properties, body } = message;
        let size = buffer.len() as u64;
        let parts = Parts {
            exchange,
            buffer,
            key,
            properties,
            body,
            form: &AMQP,
            persistent: checked.persistent,
            priority: checked.priority,
            expiration_ms: checked.expiration_ms,
        };
        let confirm = match &mut self.mode {
            Mode::Confirm(confirms) => Some(confirms.next()),
            Mode::Plain | Mode::Transaction(_) => None,
        };
        let mut message = Message::new(parts, now);
        message.wants_tags = checked.wants_tags;
        let message = Arc::new(message);
        let more_keys = checked.more_keys.map(Box::new);
        if let Mode::Transaction(_) = self.mode {
            let (channel, message, more_keys) = (self.id, message.clone(), more_keys.clone());
            out.commands.push(Command::Announce(Announce { channel, message, more_keys }));
        }
        let (channel, home) = (self.id, checked.home);
        let publish = Publish { channel, message, more_keys, confirm, mandatory, home };
        let command = Command::Publish(publish);
        match &mut self.mode {
            Mode::Transaction(transaction) => transaction.add(command, size, [], line, PUBLISH),
            Mode::Plain | Mode::Confirm(_) => {
                out.commands.push(command);
                Ok(())
            }
        }
    }

    /// The exchange's name: mostly that of the publish before, which costs no allocation.
    #[inline]
    fn exchange_of(&mut self, publish: &PublishRef<'_>) -> Result<Name, Fault> {
        if publish.immediate {
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "immediate=true", PUBLISH));
        }
        if self.exchange.as_bytes() != publish.exchange {
            self.exchange = name(publish.exchange, PUBLISH)?;
        }
        Ok(self.exchange.clone())
    }

    #[inline]
    fn check(&self, header: &ContentHeader<'_>, line: &Line) -> Result<Checked, Fault> {
        if header.class != CLASS_BASIC {
            return Err(Fault::unexpected_frame(
                "expected content header for class 60, got one for another class",
                PUBLISH,
            ));
        }
        if header.weight != 0 {
            return Err(Fault::unexpected_frame("content header has a weight", PUBLISH));
        }
        let (size, max) = (header.body_size, line.settings.message_size_max);
        if size > max {
            let text = format!("message size {size} is larger than configured max size {max}");
            return Err(Fault::precondition(text, PUBLISH));
        }
        let found = PropertiesRef::parse(header.properties).map_err(Fault::of_content)?;
        let mut checked = Checked {
            persistent: found.delivery_mode == Some(2),
            priority: found.priority.unwrap_or(0),
            expiration_ms: None,
            more_keys: None,
            home: false,
            wants_tags: false,
            rewrite: Rewrite::default(),
        };
        if let Some(text) = found.expiration {
            checked.expiration_ms = Some(expiration(text, PUBLISH)?);
        }
        check_sender(&line.user, line.impersonator, found.user_id)
            .map_err(|refusal| Fault::precondition(refusal.to_string(), PUBLISH))?;
        if found.reply_to == Some(REPLY_TO.as_bytes()) {
            checked.rewrite.reply_to = Some(self.answers_address()?);
        }
        if let Some(headers) = found.headers {
            read_headers(headers, &mut checked)?;
        }
        Ok(checked)
    }

    fn answers_address(&self) -> Result<ShortString, Fault> {
        match &self.reply_to {
            Some(reply_to) => Ok(reply_to.address.clone()),
            None => Err(Fault::precondition("fast reply consumer does not exist", PUBLISH)),
        }
    }
}

impl Assembled {
    /// The same message with other property bytes, in a buffer of its own.
    fn rewritten(self) -> Self {
        let body = self.body.of(&self.buffer);
        let mut buffer = BytesMut::with_capacity(self.buffer.len() + 64);
        buffer.extend_from_slice(self.key.of(&self.buffer));
        let key = Span { start: 0, end: buffer.len() as u32 };
        self.checked.rewrite.apply(self.properties.of(&self.buffer), &mut buffer);
        let properties = Span { start: key.end, end: buffer.len() as u32 };
        buffer.extend_from_slice(body);
        let body = Span { start: properties.end, end: buffer.len() as u32 };
        Self { buffer: buffer.freeze(), key, properties, body, ..self }
    }
}

const EXPECTED_METHOD: &str = "expected method frame, got non method frame instead";
const EXPECTED_HEADER: &str =
    "expected content header for class 60, got non content header frame instead";
const EXPECTED_BODY: &str = "expected content body, got non content body frame instead";

/// Where a part of `whole` begins in it.
fn offset(part: &[u8], whole: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}

/// Milliseconds in decimal. The texts for what is wrong are Erlang's terms, which clients print.
fn expiration(text: &[u8], ids: Ids) -> Result<u64, Fault> {
    let shown = String::from_utf8_lossy(text);
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let digits = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = String::from_utf8_lossy(&unsigned[digits..]);
    let number = unsigned[..digits]
        .iter()
        .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    let why = if digits == 0 {
        "no_integer".into()
    } else if !rest.is_empty() {
        format!("{{leftover_string,\"{rest}\"}}")
    } else if negative && number > 0 {
        format!("{{value_negative,{shown}}}")
    } else if number > EXPIRATION_MAX_MS {
        format!("{{value_too_large,{shown}}}")
    } else {
        return Ok(number);
    };
    Err(Fault::precondition(format!("invalid expiration '{shown}': {why}"), ids))
}

/// CC and BCC are arrays of further routing keys; one header says what the confirm waits for, another which hosts may take it.
fn read_headers(headers: &[u8], checked: &mut Checked) -> Result<(), Fault> {
    for (key, tag, value) in table_entries(headers) {
        if key == CONFIRM.as_bytes() {
            if (tag, value) != (b'S', CONFIRM_HOME.as_bytes()) {
                let text = format!("invalid header '{CONFIRM}': it can only be '{CONFIRM_HOME}'");
                return Err(Fault::precondition(text, PUBLISH));
            }
            checked.home = true;
            continue;
        }
        checked.wants_tags |= key == SPREAD_TAGS.as_bytes();
        if !matches!(key, b"CC" | b"BCC") {
            continue;
        }
        if tag != b'A' {
            let text = format!(
                "invalid message: {{unacceptable_type_in_header,\"{}\",{}}}",
                String::from_utf8_lossy(key),
                type_name(tag)
            );
            return Err(Fault::precondition(text, PUBLISH));
        }
        checked.rewrite.without_bcc |= key == b"BCC";
        let keys = checked.more_keys.get_or_insert_default();
        let texts = array_values(value).filter(|(tag, _)| *tag == b'S');
        // A routing key is a short string: a longer text is the key of no binding.
        let texts = texts.filter(|(_, text)| text.len() <= ShortString::LEN_MAX);
        keys.extend(texts.map(|(_, text)| Bytes::copy_from_slice(text)));
    }
    Ok(())
}

/// RabbitMQ's names of field types.
fn type_name(tag: u8) -> &'static str {
    match tag {
        b'S' => "longstr",
        b'I' => "signedint",
        b'i' => "unsignedint",
        b'D' => "decimal",
        b'T' => "timestamp",
        b'F' => "table",
        b'b' => "byte",
        b'B' => "unsignedbyte",
        b's' => "short",
        b'u' => "unsignedshort",
        b'l' | b'L' => "long",
        b'f' => "float",
        b'd' => "double",
        b't' => "bool",
        b'x' => "binary",
        _ => "void",
    }
}
