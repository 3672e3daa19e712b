//! A frame: size, kind, flags, the id that pairs a reply with its request, and a payload.

/// Size, kind, flags and id.
pub const FRAME_HEAD_SIZE: usize = 10;
/// What the size counts besides the payload: kind, flags and id.
pub(crate) const COUNTED_HEAD_SIZE: u32 = 6;

/// Flag of a reply: the next frame with this id goes on.
pub const FLAG_MORE: u8 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $octet:literal,)*) => {
        /// What a frame is. Below 0x80 from the client, from there on from the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            pub const fn octet(self) -> u8 {
                match self {
                    $(Self::$name => $octet,)*
                }
            }

            pub const fn from_octet(octet: u8) -> Option<Self> {
                match octet {
                    $($octet => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    Login = 0x01,
    Ping = 0x02,
    /// The client is done; what it asked before is still answered.
    Close = 0x03,
    Push = 0x10,
    Pull = 0x11,
    Subscribe = 0x12,
    Unsubscribe = 0x13,
    Credit = 0x14,
    Settle = 0x15,
    /// Messages to publish when the connection ends.
    Will = 0x16,
    DeclareMailbox = 0x20,
    DeleteMailbox = 0x21,
    PurgeMailbox = 0x22,
    DeclareExchange = 0x23,
    DeleteExchange = 0x24,
    Bind = 0x25,
    Unbind = 0x26,
    Retime = 0x27,
    /// Messages of a mailbox, which stay where they are.
    Browse = 0x28,
    /// Messages that were settled and kept are ready again.
    Rewind = 0x29,
    List = 0x30,
    Define = 0x31,
    Undefine = 0x32,
    /// Another host says who it is.
    PeerHello = 0x40,
    Proof = 0x41,
    /// What lives at the host that dialled.
    Routes = 0x42,
    /// Messages for what lives at the host that was dialled.
    Forward = 0x43,
    /// Whom the host that dialled reaches.
    Hosts = 0x44,
    /// A client of the host that dialled wants something of a mailbox here.
    Visit = 0x45,
    Ask = 0x46,
    Drained = 0x47,
    Hello = 0x80,
    /// What was asked is done; the payload depends on the request.
    Done = 0x81,
    Refused = 0x82,
    /// How many messages of a push were taken, and which were not.
    Pushed = 0x83,
    /// Messages that a pull asked for.
    Pulled = 0x84,
    /// Messages of a subscription, whose number is the id.
    Delivered = 0x85,
    /// The server ended a subscription, whose number is the id.
    Cancelled = 0x86,
    /// Publishers shall wait, or, without a reason, go on.
    Blocked = 0x87,
    Pong = 0x88,
    /// The server's last word, with a code and the reason.
    Goodbye = 0x89,
    /// The host that was dialled says who it is.
    Challenge = 0xc0,
    Welcome = 0xc1,
    Learned = 0xc2,
    Taken = 0xc3,
    Answer = 0xc4,
    /// Messages of a visitor's consumer.
    Given = 0xc5,
    Ended = 0xc6,
    /// A message that the host that was dialled never takes.
    Declined = 0xc7,
}

/// One frame, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub flags: u8,
    pub id: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// How much of the input the frame takes.
    pub const fn wire_len(&self) -> usize {
        FRAME_HEAD_SIZE + self.payload.len()
    }

    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The stream is broken here; nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {size} bytes is larger than the maximum of {max}")]
    TooLarge { size: u32, max: u32 },
    #[error("a frame of {0} bytes is smaller than its head")]
    TooSmall(u32),
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
}

/// The first frame of `input`, or `None` when more bytes are needed.
///
/// `size_max` bounds the size field. A larger frame is refused from its first four bytes, so that
/// a caller never buffers it.
#[inline]
pub fn next_frame(input: &[u8], size_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((size, rest)) = input.split_first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_le_bytes(*size);
    if size > size_max {
        return Err(FrameError::TooLarge { size, max: size_max });
    }
    if size < COUNTED_HEAD_SIZE {
        return Err(FrameError::TooSmall(size));
    }
    let Some(&octet) = rest.first() else { return Ok(None) };
    let kind = Kind::from_octet(octet).ok_or(FrameError::UnknownKind(octet))?;
    let Some(whole) = rest.get(..size as usize) else { return Ok(None) };
    let Some((head, payload)) = whole.split_first_chunk::<6>() else { return Ok(None) };
    let [_, flags, id @ ..] = *head;
    Ok(Some(Frame { kind, flags, id: u32::from_le_bytes(id), payload }))
}

/// Size, kind, flags and id of a frame with so large a payload.
pub(crate) const fn frame_head(
    kind: Kind,
    flags: u8,
    id: u32,
    payload: u32,
) -> [u8; FRAME_HEAD_SIZE] {
    let [s0, s1, s2, s3] = (payload + COUNTED_HEAD_SIZE).to_le_bytes();
    let [i0, i1, i2, i3] = id.to_le_bytes();
    [s0, s1, s2, s3, kind.octet(), flags, i0, i1, i2, i3]
}
