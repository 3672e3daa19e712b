//! What an operator can set of the STOMP protocol, and how far a client may go.

use pillarbox_stomp::Limits;

/// Limits and habits of STOMP sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `server` header of CONNECTED; `None` leaves it out.
    pub server: Option<String>,
    /// For clients without `login`, and for those without `passcode`.
    pub default_login: String,
    pub default_passcode: String,
    /// Everybody is the default user, whatever CONNECT says.
    pub forced_login: bool,
    /// A first frame that is not CONNECT is done for the default user.
    pub implicit_connect: bool,
    /// For clients without `host`.
    pub default_vhost: String,
    /// Where `/topic` destinations lead.
    pub topic_exchange: String,
    /// A client's certificate names the user of a CONNECT without `login`.
    pub certificate_login: bool,
    /// What a NACK without a `requeue` header says.
    pub nack_requeues: bool,
    /// From accept to CONNECTED; the client is told and the socket is closed then.
    pub login_timeout_ms: u64,
    /// A frame before login, and what may be sent ahead while the login is examined.
    pub login_frame_max: usize,
    /// Refuse to buffer a frame larger than this.
    pub frame_size_max: usize,
    pub headers_max: usize,
    pub header_line_size_max: usize,
    /// All headers of a frame together.
    pub header_block_size_max: usize,
    /// Ends of line between frames in one second, those that follow a frame not counted; then the connection is closed.
    pub heart_beats_max: u64,
    /// Subscriptions of a connection; a further one closes it.
    pub subscriptions_max: usize,
    /// Temporary queues of a connection; a further one closes it.
    pub temp_queues_max: usize,
    /// Queues that the session remembers having declared; beyond this it forgets and declares them anew.
    pub declared_max: usize,
    /// Open transactions of a connection; a further one is refused.
    pub transactions_max: usize,
    /// SEND, ACK and NACK frames of one transaction; a further one ends it.
    pub transaction_actions_max: usize,
    /// Bodies of one transaction; a further one ends it.
    pub transaction_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            server: Some(concat!("Pillarbox/", env!("CARGO_PKG_VERSION")).into()),
            default_login: "guest".into(),
            default_passcode: "guest".into(),
            forced_login: false,
            implicit_connect: false,
            default_vhost: "/".into(),
            topic_exchange: "amq.topic".into(),
            certificate_login: false,
            nack_requeues: true,
            login_timeout_ms: 10_000,
            login_frame_max: limits.frame_size_max,
            frame_size_max: 16 << 20,
            headers_max: limits.headers_max,
            header_line_size_max: limits.header_line_size_max,
            header_block_size_max: limits.header_block_size_max,
            heart_beats_max: 10_000,
            subscriptions_max: 10_000,
            temp_queues_max: 1000,
            declared_max: 10_000,
            transactions_max: 16,
            transaction_actions_max: 1024,
            transaction_bytes_max: 64 << 20,
        }
    }
}

impl Settings {
    /// What a client may send before it has logged in.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            headers_max: self.headers_max,
            header_line_size_max: self.header_line_size_max,
            header_block_size_max: self.header_block_size_max,
            frame_size_max: self.login_frame_max,
            ..Limits::default()
        }
    }
}
