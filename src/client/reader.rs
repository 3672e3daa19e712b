//! Frames from the broker, each to whom it belongs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    self as wire, Code, Deliveries, FLAG_MORE, Frame, Kind, Refused, decode_pushed, next_frame,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::line::{Answer, Shared};
use super::message::Delivery;
use super::{Error, Pushed, RefusedMessage};

/// A message may be as large as another protocol lets it be.
pub(super) const FRAME_SIZE_MAX: u32 = 1 << 30;
const READ_SIZE: usize = 64 << 10;

/// Reads until the connection ends.
pub(super) async fn run(
    mut socket: impl AsyncRead + Unpin,
    mut input: BytesMut,
    shared: Arc<Shared>,
) {
    loop {
        if let Err(error) = take(&mut input, &shared).await {
            return shared.end(&error);
        }
        input.reserve(READ_SIZE);
        match socket.read_buf(&mut input).await {
            Ok(0) => return shared.end(&Error::Lost("the broker went away".into())),
            Ok(_) => {}
            Err(error) => return shared.end(&Error::lost(&error)),
        }
    }
}

/// Takes all whole frames.
async fn take(input: &mut BytesMut, shared: &Shared) -> Result<(), Error> {
    let mut end = 0;
    while let Some(frame) = next(&input[end..])? {
        end += frame.wire_len();
    }
    let read = input.split_to(end).freeze();
    let mut at = 0;
    while let Some(frame) = next(&read[at..])? {
        at += frame.wire_len();
        if let Some(full) = dispatch(&frame, &read, shared)? {
            full.has_room().await;
        }
    }
    Ok(())
}

fn next(input: &[u8]) -> Result<Option<Frame<'_>>, Error> {
    next_frame(input, FRAME_SIZE_MAX).map_err(|error| Error::Malformed(error.to_string()))
}

/// A queue is returned that should be emptied before more is read.
fn dispatch(
    frame: &Frame<'_>,
    read: &Bytes,
    shared: &Shared,
) -> Result<Option<Arc<super::subscription::Queue>>, Error> {
    let answer = match frame.kind {
        Kind::Delivered => {
            let number = frame.id as u16;
            let queue = shared.lock().subscriptions.get(&number).cloned();
            let Some(queue) = queue else { return Ok(None) };
            let deliveries = deliveries(frame, read, number)?.0;
            return Ok(queue.add(deliveries).then_some(queue));
        }
        Kind::Cancelled => {
            let refused = Refused::decode(frame.payload)?;
            let queue = shared.lock().subscriptions.get(&(frame.id as u16)).cloned();
            if let Some(queue) = queue {
                let text = refused.text.to_owned();
                let code = refused.code;
                // In good order: all that was asked for was sent.
                queue.end((code != Code::Closing).then_some(Error::Refused { code, text }));
            }
            return Ok(None);
        }
        Kind::Pulled => {
            let (deliveries, left) = deliveries(frame, read, 0)?;
            let mut state = shared.lock();
            let Some(waiting) = state.waiting.get_mut(&frame.id) else { return Ok(None) };
            waiting.add(deliveries, left);
            if frame.has(FLAG_MORE) {
                return Ok(None);
            }
            Ok(Answer::Pulled(std::mem::take(&mut waiting.begun)))
        }
        Kind::Pushed => {
            let wire::Pushed { taken, refused, duplicates } = decode_pushed(frame.payload)?;
            let duplicates = duplicates.iter().map(|it| (it.index, it.position)).collect();
            let refused = refused.iter().map(|it| RefusedMessage {
                index: it.index,
                code: it.refused.code,
                text: it.refused.text.to_owned(),
            });
            Ok(Answer::Pushed(Pushed { taken, refused: refused.collect(), duplicates }))
        }
        Kind::Done => {
            let payload = read.slice_ref(frame.payload);
            Ok(Answer::Done(payload, frame.has(FLAG_MORE)))
        }
        Kind::Refused => {
            let refused = Refused::decode(frame.payload)?;
            Err(Error::Refused { code: refused.code, text: refused.text.to_owned() })
        }
        Kind::Goodbye => {
            let refused = Refused::decode(frame.payload)?;
            let text = refused.text.to_owned();
            return Err(match refused.code {
                Code::Closing => Error::Closed(text),
                code => Error::Refused { code, text },
            });
        }
        _ => return Ok(None),
    };
    if let Some(waiting) = shared.lock().waiting.remove(&frame.id) {
        let _ = waiting.to.send(answer);
    }
    Ok(None)
}

fn deliveries(
    frame: &Frame<'_>,
    read: &Bytes,
    subscription: u16,
) -> Result<(Vec<Delivery>, u64), Error> {
    let found = Deliveries::decode(frame.payload)?;
    // The count was compared with the bytes there are.
    let mut deliveries = Vec::with_capacity(found.count as usize);
    let payload = read.slice_ref(frame.payload);
    for message in found.messages() {
        deliveries.push(Delivery::read(&message?, &payload, found.mailbox, subscription));
    }
    Ok((deliveries, found.left))
}
