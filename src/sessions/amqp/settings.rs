//! What an operator can set of the AMQP protocol, and how far a client may go.

use pillarbox_amqp::{FRAME_MIN_SIZE, FieldTable, FieldValue, ShortString};

use crate::broker::Name;

/// Limits and habits of AMQP sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    pub identity: Identity,
    /// The user that ANONYMOUS logs in as; the mechanism is not offered without one.
    pub anonymous_user: Option<Name>,
    /// Channels of a connection.
    pub channel_max: u16,
    /// Refuse to buffer a frame larger than this; proposed to the client.
    pub frame_max: u32,
    /// Proposed to the client in seconds; 0 for none. The client's answer wins.
    pub heartbeat: u16,
    /// From accept to connection.open-ok; the socket is closed then.
    pub handshake_timeout_ms: u64,
    /// A frame before tune-ok.
    pub handshake_frame_max: u32,
    /// What a client may send ahead: more is a frame error while its login is examined, and waits in the
    /// socket while its virtual host is opened.
    pub handshake_bytes_max: usize,
    /// How long a client that cannot read a login's refusal is left waiting before the socket is closed.
    pub refusal_delay_ms: u64,
    /// How long a closing connection waits for close-ok.
    pub closing_timeout_ms: u64,
    /// How long a socket stays open after close-ok, for a client that says goodbye more than once.
    pub goodbye_ms: u64,
    /// Body of a message; a larger one is refused at its header.
    pub message_size_max: u64,
    /// Bodies of all channels that are announced and not complete; beyond this the connection is closed.
    pub unfinished_bytes_max: u64,
    /// Publishes and settlements of one transaction; beyond this the channel is closed.
    pub transaction_commands_max: usize,
    pub transaction_bytes_max: u64,
    /// Consumers of a channel; beyond this the connection is closed.
    pub channel_consumers_max: usize,
    /// Body frames without a byte in a row.
    pub empty_bodies_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            identity: Identity::rabbitmq(),
            anonymous_user: None,
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
            handshake_timeout_ms: 10_000,
            handshake_frame_max: 8192,
            handshake_bytes_max: 65_536,
            refusal_delay_ms: 3000,
            closing_timeout_ms: 30_000,
            goodbye_ms: 500,
            message_size_max: 128 << 20,
            unfinished_bytes_max: 512 << 20,
            transaction_commands_max: 100_000,
            transaction_bytes_max: 256 << 20,
            channel_consumers_max: 10_000,
            empty_bodies_max: 64,
        }
    }
}

impl Settings {
    /// The smallest frame_max that a client may ask for (clients of RabbitMQ before 4.1 do).
    pub const FRAME_MAX_MIN: u32 = FRAME_MIN_SIZE;
}

/// Who the broker says it is. Client libraries branch on product and version.
#[derive(Clone, Debug)]
pub struct Identity {
    pub product: String,
    pub version: String,
    pub platform: String,
    pub copyright: String,
    pub information: String,
    pub cluster_name: String,
}

impl Identity {
    /// The own name, with a version that clients read as a RabbitMQ which has everything.
    pub fn pillarbox() -> Self {
        Self {
            product: "Pillarbox".into(),
            version: "4.0.0".into(),
            platform: "Rust".into(),
            copyright: "The Pillarbox authors".into(),
            information: concat!("Pillarbox ", env!("CARGO_PKG_VERSION")).into(),
            cluster_name: "pillarbox".into(),
        }
    }

    /// What client libraries branch on, so that they behave as with RabbitMQ; the other properties say who it is.
    pub fn rabbitmq() -> Self {
        Self {
            product: "RabbitMQ".into(),
            version: "3.13.7".into(),
            platform: concat!("Pillarbox ", env!("CARGO_PKG_VERSION")).into(),
            ..Self::pillarbox()
        }
    }

    /// The server-properties of connection.start.
    pub(super) fn properties(&self) -> FieldTable {
        let text = |name, text: &str| {
            let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
            (ShortString::from_static(name), FieldValue::LongString(bytes))
        };
        let capabilities = CAPABILITIES
            .iter()
            .map(|name| (ShortString::from_static(name), FieldValue::Bool(true)))
            .collect();
        FieldTable(vec![
            (ShortString::from_static("capabilities"), FieldValue::Table(capabilities)),
            text("cluster_name", &self.cluster_name),
            text("copyright", &self.copyright),
            text("information", &self.information),
            text("platform", &self.platform),
            text("product", &self.product),
            text("version", &self.version),
        ])
    }
}

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];
