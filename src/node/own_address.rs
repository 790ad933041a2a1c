//! Under which address others reach this node, where it was told only of a name that DNS knows: a container, whose address
//! is another at every start.

use crate::config::{Advertise, Host, Settings};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The address from which this machine would send to those that DNS names; else the one that DNS has for the machine's own
/// name. The node is called by that name, which outlives its address. Sends nothing but the questions to DNS, and waits as
/// long as these take.
pub fn own_address(settings: &Settings) -> Option<Advertise> {
    let lookups = &settings.peers.lookups;
    let hostname = rustix::system::uname().nodename().to_str().ok().map(str::to_owned)?;
    let named = lookups.iter().flat_map(|lookup| resolved(&lookup.name, lookup.port));
    let towards = named.filter_map(sends_from);
    let own = || resolved(&hostname, 0).into_iter().map(|address| address.ip());
    let address = towards.chain(own()).find(|ip| is_reachable(ip) && settings.listens_like(*ip))?;
    let name = hostname.parse::<Host>().ok().filter(|host| matches!(host, Host::Name(_)) && !host.is_loopback());
    Some(Advertise { host: address.into(), port: None, name })
}

fn resolved(name: &str, port: u16) -> Vec<SocketAddr> {
    (name, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

/// Asks the kernel for the way, which a socket without a connection is given without a packet.
fn sends_from(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn is_reachable(address: &IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !address.is_loopback() && !address.is_unspecified() && !is_link_local
}
