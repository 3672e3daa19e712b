//! Every setting with its meaning and default, beside each other.

use std::path::PathBuf;

use super::value::{
    Address, ByteSize, CertificateName, ClientCertificate, DirectoryUrl, DnsSource, HostName,
    HostTags, Identity, KeyPrefix, PeerAddresses, Period, Secret, Setting, Share, WebsocketFrame,
};
use crate::peers::PeerAddress;

/// Declares sections of settings: a struct with defaults for each, its keys for documents and errors, and a way to set them by name.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])*
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr, )*
        }
    )*) => {
        /// All settings of a broker.
        #[derive(Clone, Debug, Default)]
        pub struct Config {
            $( $(#[doc = $about])* pub $section: $Section, )*
        }

        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $type, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        impl Config {
            /// Names of sections, what they are about, and their keys.
            pub(super) const SECTIONS: &[Section] = &[
                $( Section {
                    name: stringify!($section),
                    about: concat!($($about),*),
                    keys: &[ $( Key {
                        name: stringify!($key),
                        about: concat!($($doc),*),
                        default: || { let default: $type = $default; default.show() },
                    } ),* ],
                } ),*
            ];

            /// Sets a known key; `None` where there is no such key.
            pub(super) fn set(&mut self, section: &str, key: &str, text: &str) -> Option<Result<(), String>> {
                match (section, key) {
                    $( $( (stringify!($section), stringify!($key)) => {
                        Some(Setting::parse(text).map(|value| self.$section.$key = value))
                    } )* )*
                    _ => None,
                }
            }
        }
    };
}

pub(super) struct Section {
    pub(super) name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by the test that writes the documents")
    )]
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

pub(super) struct Key {
    pub(super) name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by the test that writes the documents")
    )]
    pub(super) about: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by the test that writes the documents")
    )]
    pub(super) default: fn() -> String,
}

sections! {
    /// Where clients connect: `ADDR:PORT`, port `0` for a free one, or `none`.
    listen: Listen {
        /// AMQP 0-9-1 without TLS.
        amqp: Address = Address::local(5672),
        /// STOMP without TLS.
        stomp: Address = Address::local(61613),
        /// HTTP without TLS: the API at `/api`, a console at `/`, `/metrics`, STOMP over websockets at `/ws`, and an example page at `/examples/stomp`.
        http: Address = Address::local(15672),
        /// `/metrics` alone, over HTTP and without a login: for Prometheus, as RabbitMQ has it on port 15692. Who can reach it sees all names.
        metrics: Address = Address::Off,
        /// The native protocol without TLS.
        native: Address = Address::local(8475),
        /// Links from other hosts.
        peers: Address = Address::Off,
        /// AMQP 0-9-1 over TLS. This and what follows is off unless `tls.certificate` is set.
        amqp_tls: Address = Address::local(5671),
        /// STOMP over TLS.
        stomp_tls: Address = Address::local(61614),
        /// HTTP over TLS, with websockets.
        http_tls: Address = Address::local(15671),
        /// The native protocol over TLS.
        native_tls: Address = Address::local(8477),
    }

    /// Certificates; see `docs/tls.md`. Changed files are read again without a restart.
    tls: Tls {
        /// PEM file with the broker's certificate, and behind it those that lead to its authority.
        certificate: Option<PathBuf> = None,
        /// PEM file with the private key of that certificate.
        key: Option<PathBuf> = None,
        /// PEM file with the authorities whose clients' certificates are believed. Without it no client is asked for one.
        client_ca: Option<PathBuf> = None,
        /// Whether a client must have a certificate of `tls.client_ca`: `optional` or `required`. A wrong one is refused either way.
        client_certificate: ClientCertificate = ClientCertificate::Optional,
        /// What of a client's certificate is the name of its user: `distinguished_name`, `common_name`, or the first `dns_name`, `email` or `uri` of its alternative names.
        user_from: CertificateName = CertificateName::DistinguishedName,
        /// Clients have so long for the handshake.
        handshake_timeout: Period = Period::seconds(5),
    }

    /// The first administrator, defined while nobody but `guest` is known.
    login: Login {
        /// `guest` may log in from this machine only; anybody else takes the place of `guest` and may come from everywhere.
        user: String = "guest".into(),
        /// Better given as `PILLARBOX__LOGIN__PASSWORD` than written into a file.
        password: Secret = Secret::new("guest"),
    }

    /// What clients may take.
    limits: Limits {
        /// Further clients wait to be accepted.
        connections_max: u32 = 10_000,
        /// Clients that have logged in; further ones are refused, AMQP's with 530. `0` for no limit but the one above.
        logins_max: u32 = 0,
        /// Connections accepted each second, those of four seconds at once after a quiet while; further clients wait to be accepted. `0` for as fast as they come.
        accepts_per_second: u32 = 0,
        /// Connections from one address of another host, or from one /64 network of IPv6, that have not logged in; further ones are closed at once. `0` for no limit but that of `connections_max`.
        pending_logins_max: u32 = 1000,
        /// A client that has not logged in by then is cut off.
        login_timeout: Period = Period::seconds(10),
        /// So many logins of one user from one place may fail at once; further ones wait three seconds and are refused while it lasts. `0` lets everybody guess. A place is a host, or on this host a user of its system. Logins that were right before are not held up.
        failed_logins_max: u32 = 10,
        /// So many failed logins are forgotten every minute.
        failed_logins_per_minute: u32 = 5,
        /// A client that takes nothing of what it is sent for so long is cut off.
        write_stall: Period = Period::seconds(30),
        /// Larger messages are refused.
        message_size_max: ByteSize = ByteSize(128 << 20),
        /// Sent to a connection and not yet taken by its socket: it gets no more until it took some.
        window_bytes: ByteSize = ByteSize(1 << 20),
        /// The same, counted in messages.
        window_deliveries: u32 = 4096,
        /// A delivery that is not settled for so long goes back to its mailbox; `0` waits for ever.
        consumer_timeout: Period = Period::seconds(1800),
    }

    /// AMQP 0-9-1.
    amqp: Amqp {
        /// The largest frame, in bytes, that clients are offered; 4096 at least.
        frame_max: u32 = 131_072,
        /// The largest frame before the login is done, in bytes; 4096 at least, 65,536 at most.
        login_frame_max: u32 = 8192,
        /// Channels of one connection.
        channels_max: u16 = 2047,
        /// Consumers of one channel; a further one ends the connection with 530.
        channel_consumers_max: u32 = 10_000,
        /// Publishes and settlements of one transaction; a further one closes its channel with 406.
        transaction_operations_max: u32 = 100_000,
        /// The messages of one transaction; a further one closes its channel with 406.
        transaction_bytes_max: ByteSize = ByteSize(256 << 20),
        /// Bodies of a connection's channels that are announced and not complete; beyond this it is closed with 506.
        unfinished_bytes_max: ByteSize = ByteSize(512 << 20),
        /// The interval that clients are offered; `0` offers none.
        heartbeat: Period = Period::seconds(60),
        /// Product and version that clients are told, as some branch on them: `rabbitmq` (3.13) or `pillarbox`.
        identity: Identity = Identity::RabbitMq,
        /// The user as whom clients log in that give no name (mechanism `ANONYMOUS`). Without it the mechanism is not offered.
        anonymous_user: String = String::new(),
    }

    /// STOMP 1.0, 1.1 and 1.2, over TCP and over websockets.
    stomp: Stomp {
        /// Refuse to buffer a frame larger than this; its client is told and the connection closed.
        frame_size_max: ByteSize = ByteSize(16 << 20),
        /// The same before the login is done; 64 KiB at most.
        login_frame_size_max: ByteSize = ByteSize(64 << 10),
        /// Headers of one frame; more are an error that closes the connection, as with the next two.
        headers_max: u32 = 100,
        /// One header, name and value.
        header_size_max: ByteSize = ByteSize(8 << 10),
        /// All headers of one frame.
        headers_size_max: ByteSize = ByteSize(32 << 10),
        /// Subscriptions of one connection; a further one closes it.
        subscriptions_max: u32 = 10_000,
        /// Temporary queues of one connection; a further one closes it.
        temp_queues_max: u32 = 1000,
        /// Open transactions of one connection; a further one is refused.
        transactions_max: u32 = 16,
        /// Frames of one transaction; a further one ends it.
        transaction_frames_max: u32 = 1024,
        /// Bodies of one transaction; a further one ends it.
        transaction_bytes_max: ByteSize = ByteSize(64 << 20),
        /// The virtual host of clients that name none.
        default_vhost: String = "/".into(),
        /// The exchange that `/topic` destinations lead to.
        topic_exchange: String = "amq.topic".into(),
        /// Whether a NACK without a `requeue` header puts the message back.
        nack_requeues: bool = true,
        /// The user of clients that name none; empty for nobody.
        default_user: String = "guest".into(),
        /// The password of clients that give none.
        default_password: Secret = Secret::new("guest"),
        /// Whether a client may leave out CONNECT: it is `stomp.default_user` then, speaks STOMP 1.0, and its first frame is done at once.
        implicit_connect: bool = false,
        /// Whether a CONNECT without `login` is of the user whom the client's certificate names.
        certificate_login: bool = false,
        /// Whether the user over a websocket is the one of its request's `Authorization: Basic`, or without one `stomp.default_user`, whatever CONNECT says.
        http_login: bool = false,
        /// What goes out over a websocket: `text`, or binary where it is not UTF-8, or always `binary`.
        websocket_frame: WebsocketFrame = WebsocketFrame::Text,
    }

    /// The HTTP listener and its websockets.
    http: Http {
        /// Other places whose pages may open a websocket, with commas between them: `https://shop.example,https://admin.example:8443`. Pages of this host and of the same machine always may.
        origins: String = String::new(),
        /// Names besides `localhost` under which a listener on a loopback address is reached, with commas between them.
        hosts: String = String::new(),
        /// Clients have so long to send the head of a request.
        head_timeout: Period = Period::seconds(10),
        /// Larger bodies of requests are refused.
        body_size_max: ByteSize = ByteSize(20 << 20),
        /// Counters are looked at so often, for rates.
        sample_interval: Period = Period::seconds(5),
    }

    /// Other hosts; see `docs/peers.md`.
    peers: Peers {
        /// Where other hosts are dialled, with commas between them: `b.example:8476,10.0.0.3:8476`. Naming one host that is up is enough to find all.
        hosts: PeerAddresses = PeerAddresses::default(),
        /// What people call this host: one name for each host. Without it, the machine's name.
        name: Option<HostName> = None,
        /// Words that say what kind of host this is, with commas between them: publishers can [want hosts with them](peers.md#hosts-with-tags).
        tags: HostTags = HostTags::default(),
        /// Where other hosts dial this one. Without it, the address of `listen.peers`, or where that is all of this machine's addresses, the one it reaches other hosts from.
        advertise: Option<PeerAddress> = None,
        /// What all hosts know and nobody else does: 16 bytes at least. Needed unless all hosts are on this machine or have certificates. Better given as `PILLARBOX__PEERS__SECRET` or as a file.
        secret: Option<Secret> = None,
        /// A file with the secret, instead; white space at its end does not count.
        secret_file: Option<PathBuf> = None,
        /// PEM file with this host's certificate, and behind it those that lead to its authority: links speak TLS, and both ends show one.
        certificate: Option<PathBuf> = None,
        /// PEM file with the private key of that certificate.
        key: Option<PathBuf> = None,
        /// PEM file with the authorities whose certificates make a host: one that signs for these hosts and nobody else.
        ca: Option<PathBuf> = None,
        /// A name of DNS that leads to the other hosts: `pillarbox.default.svc.cluster.local:8476` for each of its addresses with that port, or `_peers._tcp.example.com` for SRV records.
        dns: Option<DnsSource> = None,
        /// DNS is asked so often.
        dns_interval: Period = Period::seconds(30),
        /// Consul's agent, `http://127.0.0.1:8500`, where hosts find each other.
        consul: Option<DirectoryUrl> = None,
        /// The token for it.
        consul_token: Option<Secret> = None,
        /// An etcd, `http://127.0.0.1:2379`, where hosts find each other.
        etcd: Option<DirectoryUrl> = None,
        /// Where this host tells the others by UDP who there is, and hears it from them: `10.0.0.1:8477`. Needs a secret. In programs built with the feature `gossip`.
        gossip: Address = Address::Off,
        /// Where some other hosts do the same, with commas between them: `b.example:8477,10.0.0.3:8477`. One that is up is enough.
        gossip_seeds: PeerAddresses = PeerAddresses::default(),
        /// Keys of Consul and etcd begin so.
        directory_prefix: KeyPrefix = KeyPrefix::new("pillarbox/hosts"),
        /// A host that is no longer heard of leaves Consul and etcd after so long; 10 seconds at least.
        directory_ttl: Period = Period::seconds(15),
        /// A link gives a sign of life twice in this time, and is given up after twice of it without one.
        heartbeat: Period = Period::seconds(10),
        /// A host that no link reached and no directory named for so long is no longer dialled. It may come back by itself.
        forget_after: Period = Period::seconds(7 * 24 * 3600),
    }

    /// The data on disk.
    store: Store {
        /// Belongs to one running broker at a time.
        directory: PathBuf = PathBuf::from("pillarbox-data"),
        /// Keeps everything in memory instead: for tests, nothing survives a stop.
        in_memory: bool = false,
        /// With less free space than this, publishers are stopped. A share is of the file system, and never more than 1 GiB.
        /// What waits to be moved to `home.redb` counts as used.
        disk_free_min: Share = Share::Percent(5),
        /// Messages on their way to the disk: beyond this, publishers wait.
        undurable_max: ByteSize = ByteSize(64 << 20),
    }

    /// Memory of the process.
    memory: Memory {
        /// With more in use than this, publishers are stopped. A share is of the machine's memory, or of the control group's limit.
        used_max: Share = Share::Percent(60),
        /// Messages that are not persistent are moved to disk beyond this. A share is of the same, and never more than 1 GiB.
        /// A connection that holds so much unsettled gets no more until it settles.
        messages_max: Share = Share::Percent(25),
    }

    /// Threads and time.
    runtime: Runtime {
        /// Threads for connections and the broker; `0` chooses: 1 on up to two cores, else one less than there are, 8 at most.
        workers: u16 = 0,
        /// On a stop, clients have so long to leave.
        stop_timeout: Period = Period::seconds(10),
    }

    /// What the broker tells on stderr.
    log: Log {
        /// `error`, `warn`, `info`, `debug` or `trace`; also for parts: `info,pillarbox::server=debug`.
        level: String = "info".into(),
    }
}
