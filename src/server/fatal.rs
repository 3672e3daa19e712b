//! Ends the process when going on would mean saying something false.

use std::process;

/// The exit code of a broker whose store failed (`EX_IOERR`).
pub const STORE_FAILED: i32 = 74;

/// Nothing is confirmed after this.
pub(super) fn exit(reason: &str) -> ! {
    tracing::error!("{reason}; the broker stops, what was confirmed is safe");
    process::exit(STORE_FAILED);
}

/// Aborts when the thread or task that holds it panics: its state cannot be trusted any more.
pub(super) struct AbortOnPanic(pub(super) &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} panicked; the broker aborts, what was confirmed is safe", self.0);
            process::abort();
        }
    }
}
