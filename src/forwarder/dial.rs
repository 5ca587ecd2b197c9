//! Dialing: the endpoint of the settings and nothing else. No redirect, no proxy, no other host, no other trust.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::connection::{Connection, Stream, wire};
use super::fault::Fault;
use super::routes::Target;
use crate::wiping::Wiping;

/// How long resolving, connecting and the TLS handshake may take together.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// A host with more addresses is tried at the first ones.
const ADDRESSES_MAX: usize = 8;

/// A fresh connection. Whatever goes wrong here, nothing of a request was written.
pub(super) async fn dial(target: &Target, until: Instant) -> Result<Connection, Fault> {
    let until = until.min(Instant::now() + DIAL_MAX);
    let addresses = timeout_at(until, resolve(target)).await.map_err(|_| Fault::Dns)??;
    let tcp = connect(&addresses, until).await.ok_or(Fault::Connect)?;
    // A socket that cannot be told so is slower, not wrong.
    let _ = tcp.set_nodelay(true);
    let (wire, tcp, meter) = wire(tcp);
    let stream = match &target.tls {
        None => Stream::Plain(wire),
        Some((connector, name)) => {
            let handshake = timeout_at(until, connector.connect(name.clone(), Wiping::new(wire))).await;
            Stream::Tls(Box::new(handshake.map_err(|_| Fault::Tls)?.map_err(|_| Fault::Tls)?))
        }
    };
    Connection::new(stream, tcp, meter).await
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Fault> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|_| Fault::Dns)?.collect();
    // All of them: a name that leads inside as well as outside is not the one that was declared.
    if target.public_only && !found.iter().all(|address| is_public(address.ip())) {
        return Err(Fault::PrivateAddress);
    }
    let addresses: Vec<_> = found.into_iter().take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(Fault::Dns) } else { Ok(addresses) }
}

/// Whether an address is of the public internet (the registries of special-purpose addresses, RFC 6890): what is not leads to this
/// machine, its network, or nowhere.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_broadcast()
                || address.is_documentation()
                || address.is_multicast()
                || a == 0
                || a >= 240
                // Shared by carriers, protocol assignments, benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(address) => {
            if let Some(inner) = address.to_ipv4() {
                return is_public(IpAddr::V4(inner));
            }
            let [a, b, c, ..] = address.segments();
            // Global unicast is 2000::/3; in it stand documentation and what carries an address of version 4 (Teredo, 6to4).
            (0x2000..0x4000).contains(&a)
                && a != 0x2002
                && !(a == 0x2001 && (b == 0xdb8 || b < 0x200))
                && !(a == 0x3fff && b < 0x1000)
                && !(a == 0x64 && b == 0xff9b && c <= 1)
        }
    }
}

/// One address after the other; each has its share of the time that is left.
async fn connect(addresses: &[SocketAddr], until: Instant) -> Option<TcpStream> {
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / left.max(1);
        if let Ok(Ok(tcp)) = timeout_at(now + share, TcpStream::connect(address)).await {
            return Some(tcp);
        }
        left = left.saturating_sub(1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_public_internet_is_told() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "2001:db8::1",
            "2002:a00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
