//! Pillarbox: a message broker for every host.
