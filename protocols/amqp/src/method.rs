//! A method: a command of the protocol with its arguments.
//!
//! One table gives the variants, their ids and names, and both directions of the wire. The methods
//! that every message passes also have readers in `publish` and writers in `delivery`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::argument::{Argument, ArgumentError, ArgumentReader, ArgumentWriter};
use crate::frame::{FrameKind, put_frame};
use crate::raw_table::ValueError;
use crate::reader::Reader;
use crate::short_string::ShortString;
use crate::value::FieldTable;

/// Why a method cannot be read; the numbers are those of its class and method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    #[error("unknown class {0}")]
    UnknownClass(u16),
    #[error("unknown method {1} of class {0}")]
    UnknownMethod(u16, u16),
    /// Both are 0 when the ids themselves are cut.
    #[error("method {method} of class {class} ends inside its arguments")]
    Truncated { class: u16, method: u16 },
    #[error("method {method} of class {class} has bytes after its arguments")]
    Trailing { class: u16, method: u16 },
    #[error("method {method} of class {class}: {error}")]
    BadTable { class: u16, method: u16, error: ValueError },
}

impl MethodError {
    /// The ids for the close that answers, 0 where unknown.
    pub const fn ids(&self) -> (u16, u16) {
        match *self {
            Self::UnknownClass(class) => (class, 0),
            Self::UnknownMethod(class, method)
            | Self::Truncated { class, method }
            | Self::Trailing { class, method }
            | Self::BadTable { class, method, .. } => (class, method),
        }
    }

    const fn of_argument((class, method): (u16, u16), error: ArgumentError) -> Self {
        match error {
            ArgumentError::Truncated => Self::Truncated { class, method },
            ArgumentError::BadTable(error) => Self::BadTable { class, method, error },
        }
    }
}

/// The class and method ids that a payload begins with.
pub fn method_ids(payload: &[u8]) -> Option<(u16, u16)> {
    let mut reader = Reader::new(payload);
    Some((reader.u16()?, reader.u16()?))
}

/// The type of an argument by its name in the specification.
macro_rules! argument {
    (bit) => {
        bool
    };
    (octet) => {
        u8
    };
    (short) => {
        u16
    };
    (long) => {
        u32
    };
    (longlong) => {
        u64
    };
    (shortstr) => {
        ShortString
    };
    (longstr) => {
        Bytes
    };
    (table) => {
        FieldTable
    };
}

/// `[…]` before and `+ […]` behind the arguments are reserved: read and ignored, written as zero.
macro_rules! methods {
    ($(
        $class:literal $id:literal $variant:ident $name:literal
            $([$($lead:ident)*])? $({ $($field:ident: $kind:ident),* })? $(+ [$($tail:ident)*])?
    )*) => {
        /// Every method of the protocol and of RabbitMQ's extensions.
        ///
        /// Its `Debug` shows all arguments, the secrets of `connection.start-ok`,
        /// `connection.secure-ok` and `connection.update-secret` too.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method {
            $(
                #[doc = $name]
                $variant $({ $($field: argument!($kind)),* })?,
            )*
        }

        impl Method {
            /// The ids of class and method.
            pub const fn ids(&self) -> (u16, u16) {
                match self {
                    $(Self::$variant { .. } => ($class, $id),)*
                }
            }

            /// The name in the specification, as in "queue.declare".
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                }
            }

            fn read(ids: (u16, u16), from: &mut ArgumentReader<'_>) -> Result<Self, MethodError> {
                let bad = |error| MethodError::of_argument(ids, error);
                Ok(match ids {
                    $(($class, $id) => {
                        $($(<argument!($lead)>::read(from).map_err(bad)?;)*)?
                        let method = Self::$variant $({
                            $($field: Argument::read(from).map_err(bad)?),*
                        })?;
                        $($(<argument!($tail)>::read(from).map_err(bad)?;)*)?
                        method
                    })*
                    (class, method) if [$($class),*].contains(&class) => {
                        return Err(MethodError::UnknownMethod(class, method));
                    }
                    (class, _) => return Err(MethodError::UnknownClass(class)),
                })
            }

            fn write(&self, to: &mut ArgumentWriter<'_>) {
                match self {
                    $(Self::$variant $({ $($field),* })? => {
                        $($(<argument!($lead)>::default().write(to);)*)?
                        $($($field.write(to);)*)?
                        $($(<argument!($tail)>::default().write(to);)*)?
                    })*
                }
            }
        }
    };
}

methods! {
    10 10 ConnectionStart "connection.start" {
        version_major: octet, version_minor: octet, server_properties: table,
        mechanisms: longstr, locales: longstr
    }
    10 11 ConnectionStartOk "connection.start-ok" {
        client_properties: table, mechanism: shortstr, response: longstr, locale: shortstr
    }
    10 20 ConnectionSecure "connection.secure" { challenge: longstr }
    10 21 ConnectionSecureOk "connection.secure-ok" { response: longstr }
    10 30 ConnectionTune "connection.tune" { channel_max: short, frame_max: long, heartbeat: short }
    10 31 ConnectionTuneOk "connection.tune-ok" {
        channel_max: short, frame_max: long, heartbeat: short
    }
    10 40 ConnectionOpen "connection.open" { vhost: shortstr } + [shortstr bit]
    10 41 ConnectionOpenOk "connection.open-ok" [shortstr]
    10 50 ConnectionClose "connection.close" {
        reply_code: short, reply_text: shortstr, class_id: short, method_id: short
    }
    10 51 ConnectionCloseOk "connection.close-ok"
    10 60 ConnectionBlocked "connection.blocked" { reason: shortstr }
    10 61 ConnectionUnblocked "connection.unblocked"
    10 70 ConnectionUpdateSecret "connection.update-secret" {
        new_secret: longstr, reason: shortstr
    }
    10 71 ConnectionUpdateSecretOk "connection.update-secret-ok"

    20 10 ChannelOpen "channel.open" [shortstr]
    20 11 ChannelOpenOk "channel.open-ok" [longstr]
    20 20 ChannelFlow "channel.flow" { active: bit }
    20 21 ChannelFlowOk "channel.flow-ok" { active: bit }
    20 40 ChannelClose "channel.close" {
        reply_code: short, reply_text: shortstr, class_id: short, method_id: short
    }
    20 41 ChannelCloseOk "channel.close-ok"

    30 10 AccessRequest "access.request" {
        realm: shortstr, exclusive: bit, passive: bit, active: bit, write: bit, read: bit
    }
    30 11 AccessRequestOk "access.request-ok" { ticket: short }

    40 10 ExchangeDeclare "exchange.declare" [short] {
        exchange: shortstr, kind: shortstr, passive: bit, durable: bit, auto_delete: bit,
        internal: bit, nowait: bit, arguments: table
    }
    40 11 ExchangeDeclareOk "exchange.declare-ok"
    40 20 ExchangeDelete "exchange.delete" [short] {
        exchange: shortstr, if_unused: bit, nowait: bit
    }
    40 21 ExchangeDeleteOk "exchange.delete-ok"
    40 30 ExchangeBind "exchange.bind" [short] {
        destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit,
        arguments: table
    }
    40 31 ExchangeBindOk "exchange.bind-ok"
    40 40 ExchangeUnbind "exchange.unbind" [short] {
        destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit,
        arguments: table
    }
    40 51 ExchangeUnbindOk "exchange.unbind-ok"

    50 10 QueueDeclare "queue.declare" [short] {
        queue: shortstr, passive: bit, durable: bit, exclusive: bit, auto_delete: bit, nowait: bit,
        arguments: table
    }
    50 11 QueueDeclareOk "queue.declare-ok" {
        queue: shortstr, message_count: long, consumer_count: long
    }
    50 20 QueueBind "queue.bind" [short] {
        queue: shortstr, exchange: shortstr, routing_key: shortstr, nowait: bit, arguments: table
    }
    50 21 QueueBindOk "queue.bind-ok"
    50 30 QueuePurge "queue.purge" [short] { queue: shortstr, nowait: bit }
    50 31 QueuePurgeOk "queue.purge-ok" { message_count: long }
    50 40 QueueDelete "queue.delete" [short] {
        queue: shortstr, if_unused: bit, if_empty: bit, nowait: bit
    }
    50 41 QueueDeleteOk "queue.delete-ok" { message_count: long }
    50 50 QueueUnbind "queue.unbind" [short] {
        queue: shortstr, exchange: shortstr, routing_key: shortstr, arguments: table
    }
    50 51 QueueUnbindOk "queue.unbind-ok"

    60 10 BasicQos "basic.qos" { prefetch_size: long, prefetch_count: short, global: bit }
    60 11 BasicQosOk "basic.qos-ok"
    60 20 BasicConsume "basic.consume" [short] {
        queue: shortstr, consumer_tag: shortstr, no_local: bit, no_ack: bit, exclusive: bit,
        nowait: bit, arguments: table
    }
    60 21 BasicConsumeOk "basic.consume-ok" { consumer_tag: shortstr }
    60 30 BasicCancel "basic.cancel" { consumer_tag: shortstr, nowait: bit }
    60 31 BasicCancelOk "basic.cancel-ok" { consumer_tag: shortstr }
    60 40 BasicPublish "basic.publish" [short] {
        exchange: shortstr, routing_key: shortstr, mandatory: bit, immediate: bit
    }
    60 50 BasicReturn "basic.return" {
        reply_code: short, reply_text: shortstr, exchange: shortstr, routing_key: shortstr
    }
    60 60 BasicDeliver "basic.deliver" {
        consumer_tag: shortstr, delivery_tag: longlong, redelivered: bit, exchange: shortstr,
        routing_key: shortstr
    }
    60 70 BasicGet "basic.get" [short] { queue: shortstr, no_ack: bit }
    60 71 BasicGetOk "basic.get-ok" {
        delivery_tag: longlong, redelivered: bit, exchange: shortstr, routing_key: shortstr,
        message_count: long
    }
    60 72 BasicGetEmpty "basic.get-empty" [shortstr]
    60 80 BasicAck "basic.ack" { delivery_tag: longlong, multiple: bit }
    60 90 BasicReject "basic.reject" { delivery_tag: longlong, requeue: bit }
    60 100 BasicRecoverAsync "basic.recover-async" { requeue: bit }
    60 110 BasicRecover "basic.recover" { requeue: bit }
    60 111 BasicRecoverOk "basic.recover-ok"
    60 120 BasicNack "basic.nack" { delivery_tag: longlong, multiple: bit, requeue: bit }

    85 10 ConfirmSelect "confirm.select" { nowait: bit }
    85 11 ConfirmSelectOk "confirm.select-ok"

    90 10 TxSelect "tx.select"
    90 11 TxSelectOk "tx.select-ok"
    90 20 TxCommit "tx.commit"
    90 21 TxCommitOk "tx.commit-ok"
    90 30 TxRollback "tx.rollback"
    90 31 TxRollbackOk "tx.rollback-ok"
}

impl Method {
    /// Reads a method from the whole payload of its frame.
    pub fn decode(payload: &[u8]) -> Result<Self, MethodError> {
        let mut reader = Reader::new(payload);
        let (Some(class), Some(method)) = (reader.u16(), reader.u16()) else {
            return Err(MethodError::Truncated { class: 0, method: 0 });
        };
        let mut arguments = ArgumentReader::new(reader.rest());
        let decoded = Self::read((class, method), &mut arguments)?;
        if arguments.is_empty() {
            Ok(decoded)
        } else {
            Err(MethodError::Trailing { class, method })
        }
    }

    /// Writes a whole frame. Its size is not compared with the negotiated maximum.
    pub fn encode(&self, channel: u16, out: &mut BytesMut) {
        let (class, method) = self.ids();
        put_frame(out, FrameKind::Method, channel, |out| {
            out.put_u16(class);
            out.put_u16(method);
            self.write(&mut ArgumentWriter::new(out));
        });
    }
}
