//! The native protocol: bytes to frames and back.
