//! Pillarbox's native protocol: bytes to frames and back, and nothing else.
//!
//! `docs/native.md` describes it byte by byte. Both ends are here: a server reads [`Request`]s and
//! writes replies, a client the other way round. Messages are borrowed from the input and written
//! straight into the output; nothing is allocated for one.

mod afar;
mod code;
mod delivery;
mod frame;
mod notice;
mod peer;
mod preface;
mod properties;
mod push;
mod reader;
mod request;
mod settle;
mod writer;

pub use afar::{
    AT_ONCE, Answer, AskRef, ConsumeRef, Ended, FoundRef, Given, GivenBatch, GivenRef, HolderRef,
    LookRef, MovedBindingRef, MovedBindings, NoRef, ResultRef, TakeOverRef, VisitRef, WishRef,
    decode_drained, encode_drained,
};
pub use code::Code;
pub use delivery::{Deliveries, DeliveryBatch, DeliveryMarks, DeliveryRef, NewDelivery};
pub use frame::{FLAG_MORE, FRAME_HEAD_SIZE, Frame, FrameError, Kind, next_frame};
pub use notice::{
    DuplicateMessage, Hello, Pushed, Refused, RefusedMessage, decode_pushed, encode_pushed,
};
pub use peer::{
    ChangeRef, Declined, Forward, ForwardBatch, ForwardedRef, HostRef, PROBE, PROOF_SIZE,
    PeerHello, RouteRef, Routes, RoutesBatch, Taken, Welcome, decode_hosts, decode_learned,
    decode_proof, encode_hosts, encode_learned, encode_proof,
};
pub use preface::{
    PREFACE_SIZE, Preface, VERSION, encode_answer, encode_preface, read_answer, read_preface,
};
pub use properties::{DEPTH_MAX, PropertiesRef, is_table};
pub use push::{Due, NewMessage, Push, PushBatch, PushedRef, Will};
pub use reader::Malformed;
pub use request::{
    Bind, Browse, DeclareExchange, DeclareMailbox, Define, DeleteExchange, DeleteMailbox, List,
    Login, Pull, Request, Retime, Rewind, Subscribe, Undefine, Unsubscribe, encode_credit,
    encode_purge,
};
pub use settle::{Outcome, RUN_SIZE, Run, Settle};
pub use writer::{FrameWriter, put_short, put_table, write_empty, write_frame};
