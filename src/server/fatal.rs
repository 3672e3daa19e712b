//! Ends the process when going on would mean saying something false.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process;

/// The exit code of a broker whose store failed (`EX_IOERR`).
pub const STORE_FAILED: i32 = 74;

/// Nothing is confirmed after this.
pub(super) fn exit(reason: &str) -> ! {
    tracing::error!("{reason}; the broker stops, what was confirmed is safe");
    process::exit(STORE_FAILED);
}

/// Runs what must not panic: its state could not be trusted any more, so the process aborts.
pub(super) fn or_abort<T>(name: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("{name} panicked; the broker aborts, what was confirmed is safe");
        process::abort()
    })
}

/// The same for a task.
pub(super) async fn or_abort_task<T>(name: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| or_abort(name, || work.as_mut().poll(context))).await
}
