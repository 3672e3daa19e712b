//! Hosts by a name of DNS: its addresses, or its SRV records. Nothing is written down there.

use std::io;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::directory::{Directory, DirectoryError};
use crate::config::{DnsSource, Peers};
use crate::peers::{Host, PeerAddress, Sighting, Source};

const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_secs(1);

pub(super) struct Dns {
    wanted: DnsSource,
    interval: Duration,
    asked: bool,
}

impl Dns {
    pub(super) fn new(wanted: DnsSource, settings: &Peers) -> Self {
        Self { wanted, interval: settings.dns_interval.0.max(INTERVAL_MIN), asked: false }
    }

    async fn ask(&self) -> Result<Vec<PeerAddress>, DirectoryError> {
        match &self.wanted {
            DnsSource::Addresses(place) => {
                let found = lookup_host(place.as_str()).await?;
                Ok(found.filter_map(|it| it.to_string().parse().ok()).collect())
            }
            DnsSource::Service(name) => service(name).await,
        }
    }
}

#[cfg(feature = "dns")]
async fn service(name: &str) -> Result<Vec<PeerAddress>, DirectoryError> {
    // Read anew each time: the machine may have moved to another network.
    let resolver = hickory_resolver::TokioResolver::builder_tokio().and_then(|it| it.build());
    srv::records(&resolver.map_err(io::Error::other)?, name).await
}

#[cfg(not(feature = "dns"))]
async fn service(_: &str) -> Result<Vec<PeerAddress>, DirectoryError> {
    Err(io::Error::from(io::ErrorKind::Unsupported).into())
}

#[cfg(feature = "dns")]
mod srv {
    use hickory_resolver::TokioResolver;
    use hickory_resolver::proto::rr::{RData, RecordType};

    use super::*;

    pub(super) async fn records(
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<Vec<PeerAddress>, DirectoryError> {
        let found = resolver.lookup(name, RecordType::SRV).await.map_err(io::Error::other)?;
        let addresses = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => {
                let target = srv.target.to_ascii();
                format!("{}:{}", target.trim_end_matches('.'), srv.port).parse().ok()
            }
            _ => None,
        });
        Ok(addresses.collect())
    }
}

impl Directory for Dns {
    fn source(&self) -> Source {
        Source::Dns
    }

    async fn look(&mut self, _: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        if std::mem::replace(&mut self.asked, true) {
            sleep(self.interval).await;
        }
        let asked = timeout(PATIENCE, self.ask()).await.map_err(|_| DirectoryError::Slow)??;
        Ok(asked.into_iter().map(Sighting::from).collect())
    }

    async fn leave(&mut self) -> Result<(), DirectoryError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
