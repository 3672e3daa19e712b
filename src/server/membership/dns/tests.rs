//! Addresses of a name, and a name server that answers with SRV records.

use super::super::fake::host;
use super::*;

#[tokio::test(start_paused = true)]
async fn every_address_of_a_name_is_a_host() {
    let wanted = DnsSource::Addresses("127.0.0.1:8476".parse().unwrap());
    let mut dns = Dns::new(wanted, &Peers::default());
    let seen = dns.look(&host(1, "a")).await.unwrap();
    assert_eq!(seen, [Sighting::from("127.0.0.1:8476".parse::<PeerAddress>().unwrap())]);
    let before = tokio::time::Instant::now();
    dns.look(&host(1, "a")).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 30);
}

#[cfg(feature = "dns")]
mod service {
    use std::net::UdpSocket;

    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

    use super::super::srv::records;
    use super::*;

    /// Answers one question with these records: priority, weight, port, target.
    fn name_server(records: Vec<(u16, &'static str)>) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (size, from) = socket.recv_from(&mut buffer).unwrap();
            let question = &buffer[12..size];
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            let count = u8::try_from(records.len()).unwrap();
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x85, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
            answer.extend(&question[..end]);
            for (port, target) in records {
                let labels = target.split('.').filter(|it| !it.is_empty());
                let mut data = vec![0, 0, 0, 0];
                data.extend(port.to_be_bytes());
                for label in labels {
                    data.push(u8::try_from(label.len()).unwrap());
                    data.extend(label.as_bytes());
                }
                data.push(0);
                answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0]);
                answer.push(u8::try_from(data.len()).unwrap());
                answer.extend(data);
            }
            socket.send_to(&answer, from).unwrap();
        });
        port
    }

    fn resolver(port: u16) -> TokioResolver {
        let mut udp = ConnectionConfig::udp();
        udp.port = port;
        let server = NameServerConfig::new("127.0.0.1".parse().unwrap(), true, vec![udp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        TokioResolver::builder_with_config(config, Default::default()).build().unwrap()
    }

    #[tokio::test]
    async fn a_service_names_hosts_and_ports() {
        let port = name_server(vec![(8476, "a.hosts.example."), (8477, "b.hosts.example.")]);
        let found = records(&resolver(port), "_peers._tcp.hosts.example.").await.unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a.hosts.example:8476", "b.hosts.example:8477"]);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_an_error() {
        let port = name_server(Vec::new());
        assert!(records(&resolver(port), "_peers._tcp.hosts.example.").await.is_err());
    }
}
