//! Where other hosts dial this one, if the settings do not say.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::config::{PeerAddresses, Peers};
use crate::peers::PeerAddress;

/// For documents only (RFC 5737): where packets to the world outside would go.
const FAR: &str = "192.0.2.1:9";

pub(super) fn advertised(settings: &Peers, listening: Option<SocketAddr>) -> Option<PeerAddress> {
    if settings.advertise.is_some() {
        return settings.advertise.clone();
    }
    reached(listening?, &settings.hosts).and_then(|it| it.to_string().parse().ok())
}

/// Where others find what listens there: where it listens, or this machine's address on the way to them.
pub(super) fn reached(listening: SocketAddr, others: &PeerAddresses) -> Option<SocketAddr> {
    let ip = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => others.0.iter().map(PeerAddress::as_str).chain([FAR]).find_map(way_to)?,
    };
    Some(SocketAddr::new(ip, listening.port()))
}

/// This machine's address on the way there. Nothing is sent.
fn way_to(place: &str) -> Option<IpAddr> {
    place.to_socket_addrs().ok()?.find_map(|there| {
        let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_dialled_where_it_listens_or_as_it_is_told() {
        let listening: SocketAddr = "10.1.2.3:8476".parse().unwrap();
        let nothing = Peers::default();
        assert_eq!(advertised(&nothing, None), None);
        assert_eq!(advertised(&nothing, Some(listening)).unwrap().as_str(), "10.1.2.3:8476");
        let told = Peers { advertise: Some("a.example:1".parse().unwrap()), ..Peers::default() };
        assert_eq!(advertised(&told, Some(listening)).unwrap().as_str(), "a.example:1");
    }

    #[test]
    fn a_host_that_listens_everywhere_is_dialled_where_it_reaches_others_from() {
        let hosts = PeerAddresses(vec!["127.0.0.1:8476".parse().unwrap()]);
        let settings = Peers { hosts, ..Peers::default() };
        let everywhere: SocketAddr = "0.0.0.0:8476".parse().unwrap();
        assert_eq!(advertised(&settings, Some(everywhere)).unwrap().as_str(), "127.0.0.1:8476");
    }
}
