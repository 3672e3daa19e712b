//! Connections inside the process: the native protocol and the HTTP API without a socket.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::DuplexStream;
use tokio::sync::OwnedSemaphorePermit;

use super::http::{self, Admission};
use super::listener::{Door, Ends};
use crate::sessions::native::{NativeSession, Token};

/// Bytes on their way in each direction.
const BUFFER_SIZE: usize = 256 << 10;

/// A way into a broker of this process.
#[derive(Clone)]
pub struct Local {
    pub(super) door: Door,
    pub(super) token: Token,
    pub(super) user: String,
}

impl Local {
    /// Who the process is: the administrator that the settings name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Lets any user in, without a password.
    pub fn token(&self) -> Vec<u8> {
        self.token.0.clone()
    }

    /// The other end of a new connection. While as many are open as may be, it waits.
    pub fn connect(&self) -> DuplexStream {
        self.begin(|door, far, ends, permit| async move {
            let conversation = door.converse(far, ends, "local", |facts, sessions| {
                Box::new(NativeSession::new(facts, sessions.local.clone()))
            });
            conversation.await;
            drop(permit);
        })
    }

    /// The same for requests to the HTTP API, as an administrator without a login.
    pub fn http(&self) -> DuplexStream {
        self.begin(|door, far, ends, permit| async move {
            http::serve(far, ends, permit, door, Admission::Inside).await;
        })
    }

    fn begin<F>(
        &self,
        talk: impl FnOnce(Door, DuplexStream, Ends, OwnedSemaphorePermit) -> F + Send + 'static,
    ) -> DuplexStream
    where
        F: Future<Output = ()> + Send,
    {
        let (near, far) = tokio::io::duplex(BUFFER_SIZE);
        let door = self.door.clone();
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ends = Ends { peer: here, local: here, secured: None, newcomer: None };
        door.tasks.clone().spawn(async move {
            let Ok(permit) = door.permits.clone().acquire_owned().await else { return };
            talk(door, far, ends, permit).await;
        });
        near
    }
}
