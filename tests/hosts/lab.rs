//! Hosts inside this machine: a network namespace for each, one bridge between them, and rules that lose packets.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// So many labs were made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Packets from one host to another that get lost, of each hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) percent: u8,
}

pub(crate) struct Lab {
    name: String,
    /// The network is `10.NET.0.0/24`.
    net: u8,
    hosts: usize,
}

impl Lab {
    /// Whether this machine lets hosts be made, or why it does not.
    pub(crate) fn is_possible() -> Result<(), String> {
        for tool in ["ip", "nft"] {
            done(Command::new(tool).arg("-V"), tool, "")?;
        }
        Self::make(1).map(drop)
    }

    pub(crate) fn make(hosts: usize) -> Result<Self, String> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // Names of interfaces have 15 letters at most.
        let name = format!("pb{:x}", process.wrapping_mul(256).wrapping_add(number));
        let net = u8::try_from(64 + (process + number) % 128).expect("at most 191");
        let lab = Self { name, net, hosts };
        let (bridge, own) = (&lab.name, format!("10.{net}.0.254/24"));
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {own} dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 0..hosts {
            let (space, cable) = (lab.namespace(host), format!("{bridge}v{host}"));
            let address = lab.address(host);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {cable} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {cable} master {bridge} up"))?;
            ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(lab)
    }

    pub(crate) fn hosts(&self) -> usize {
        self.hosts
    }

    pub(crate) fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.name)
    }

    pub(crate) fn address(&self, host: usize) -> String {
        format!("10.{}.0.{}", self.net, host + 1)
    }

    /// From now on these packets get lost, and no others. Clients outside reach every host.
    pub(crate) fn lose(&self, losses: &[Loss]) -> Result<(), String> {
        for host in 0..self.hosts {
            let mut rules = String::from("table inet cut {}\ndelete table inet cut\n");
            rules += "table inet cut { chain in { type filter hook input priority 0;\n";
            for loss in losses.iter().filter(|loss| loss.to == host) {
                let from = self.address(loss.from);
                rules += &match loss.percent {
                    100.. => format!("ip saddr {from} drop\n"),
                    some => format!("ip saddr {from} numgen random mod 100 < {some} drop\n"),
                };
            }
            rules += "}\n}\n";
            filter(&self.namespace(host), &rules)?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    done(Command::new("ip").args(arguments.split(' ')), &format!("ip {arguments}"), "")
}

fn filter(namespace: &str, rules: &str) -> Result<(), String> {
    let arguments = ["netns", "exec", namespace, "nft", "-f", "-"];
    done(Command::new("ip").args(arguments), "nft", rules)
}

fn done(command: &mut Command, name: &str, input: &str) -> Result<(), String> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
