//! What the ring runs.

pub use crate::sessions::amqp::AmqpSession;
pub use crate::sessions::amqp::Settings as AmqpSettings;
pub use crate::store::{Options, Reader, Store, StoreError};

pub mod amqp {
    pub use crate::sessions::amqp::Settings;
}
