//! A body that is written a piece at a time, with a rest after each: messages must not wait for a long page, nor for the
//! writing of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use crate::management::Pieces;

pub(super) struct Scroll {
    parts: VecDeque<Box<dyn Pieces>>,
    /// Written at once, to the socket too.
    piece_size: usize,
    pace: Pace,
    resting: Option<Rest>,
    first: Option<Bytes>,
}

/// What comes between two pieces.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// Others have their turn.
    Steady,
    /// Nobody is in a hurry for the end of it.
    Resting(Duration),
}

enum Rest {
    Turn,
    Time(Pin<Box<Sleep>>),
}

impl Scroll {
    pub(super) fn new(
        parts: impl IntoIterator<Item = Box<dyn Pieces>>,
        piece_size: usize,
        pace: Pace,
    ) -> Self {
        Self { parts: parts.into_iter().collect(), piece_size, pace, resting: None, first: None }
    }

    /// With its length, where one piece is all.
    pub(super) fn into_body(mut self) -> axum::body::Body {
        let first = self.next_piece().unwrap_or_default();
        if self.parts.is_empty() {
            return first.into();
        }
        self.first = Some(first);
        axum::body::Body::new(self)
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let size = self.piece_size;
        let mut piece = String::with_capacity(size + size / 8);
        while piece.len() < size
            && let Some(part) = self.parts.front_mut()
        {
            if !part.write(size, &mut piece) {
                self.parts.pop_front();
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl Body for Scroll {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.resting.as_mut() {
            Some(Rest::Turn) => {
                self.resting = None;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Rest::Time(sleep)) => ready!(sleep.as_mut().poll(context)),
            None => {}
        }
        let piece = self.first.take().or_else(|| self.next_piece());
        self.resting = piece.as_ref().map(|_| match self.pace {
            Pace::Steady => Rest::Turn,
            Pace::Resting(time) => Rest::Time(Box::pin(sleep(time))),
        });
        Poll::Ready(piece.map(|it| Ok(Frame::data(it))))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Says ten bytes at a time.
    struct Tens(usize);

    impl Pieces for Tens {
        fn write(&mut self, size: usize, out: &mut String) -> bool {
            while self.0 > 0 && out.len() < size {
                out.push_str("0123456789");
                self.0 -= 1;
            }
            self.0 > 0
        }
    }

    fn scroll(tens: [usize; 2]) -> Scroll {
        let parts = tens.map(|it| -> Box<dyn Pieces> { Box::new(Tens(it)) });
        Scroll::new(parts, 25, Pace::Steady)
    }

    #[test]
    fn others_have_their_turn_after_each_piece() {
        let mut scroll = scroll([4, 2]);
        let mut context = Context::from_waker(Waker::noop());
        let mut sizes = Vec::new();
        loop {
            match Pin::new(&mut scroll).poll_frame(&mut context) {
                Poll::Pending => sizes.push(0),
                Poll::Ready(Some(Ok(frame))) => {
                    sizes.push(frame.into_data().expect("data").len());
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(never))) => match never {},
            }
        }
        assert_eq!(sizes, [30, 0, 30, 0]);
    }

    #[test]
    fn what_is_one_piece_has_a_length() {
        let length = |tens| scroll(tens).into_body().size_hint().exact();
        assert_eq!(length([1, 1]), Some(20));
        assert_eq!(length([0, 0]), Some(0));
        assert_eq!(length([4, 2]), None);
    }
}
