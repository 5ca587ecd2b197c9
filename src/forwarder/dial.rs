//! Dialing: the endpoint of the settings and nothing else. No redirect, no proxy, no other host, no other trust.

use std::net::SocketAddr;
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
    let addresses: Vec<_> = found.map_err(|_| Fault::Dns)?.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(Fault::Dns) } else { Ok(addresses) }
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
