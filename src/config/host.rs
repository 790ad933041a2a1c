//! A machine, as an operator writes it: a name or an address.

use super::Nonsense;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A host name in lower case, or an address. An IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is the former.
/// Shown as it stands in a URL: IPv6 in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// A name to be resolved, checked for form only.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, without a zone.
    V6(Ipv6Addr),
}

impl Host {
    /// Whether only this machine can reach it, by its form alone: no name but `localhost` is looked up.
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::Name(name) => name == "localhost",
            Host::V4(address) => address.is_loopback(),
            Host::V6(address) => address.is_loopback(),
        }
    }

    /// Whether it stands for every address of the machine: good to listen on, no good for reaching anybody.
    pub fn is_unspecified(&self) -> bool {
        match self {
            Host::Name(_) => false,
            Host::V4(address) => address.is_unspecified(),
            Host::V6(address) => address.is_unspecified(),
        }
    }

    /// The form for a socket: no brackets.
    pub fn for_socket(&self) -> String {
        match self {
            Host::V6(address) => address.to_string(),
            _ => self.to_string(),
        }
    }

    /// The form for comparing: `127.0.0.1` and `[::1]` are `localhost`. Other loopback addresses stay themselves,
    /// since several nodes may live on them.
    pub(super) fn canonical(&self) -> Host {
        match self {
            Host::V4(address) if *address == Ipv4Addr::LOCALHOST => Host::localhost(),
            Host::V6(address) if *address == Ipv6Addr::LOCALHOST => Host::localhost(),
            other => other.clone(),
        }
    }

    fn localhost() -> Host {
        Host::Name("localhost".to_owned())
    }

    /// The loopback address of the same family: where a node that listens on every address answers itself.
    pub(super) fn or_loopback(&self) -> Host {
        match self {
            Host::V4(address) if address.is_unspecified() => Host::V4(Ipv4Addr::LOCALHOST),
            Host::V6(address) if address.is_unspecified() => Host::V6(Ipv6Addr::LOCALHOST),
            other => other.clone(),
        }
    }

    fn of_v6(address: Ipv6Addr) -> Host {
        address.to_ipv4_mapped().map_or(Host::V6(address), Host::V4)
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Host {
        match address {
            IpAddr::V4(address) => Host::V4(address),
            IpAddr::V6(address) => Host::of_v6(address),
        }
    }
}

impl FromStr for Host {
    type Err = Nonsense;

    /// Reads a name, an IPv4 address, or an IPv6 address with brackets or without.
    fn from_str(text: &str) -> Result<Host, Nonsense> {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(Ok(address)) = inner.map(str::parse) {
            return Ok(Host::of_v6(address));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Host::from(address));
        }
        let name = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name whose last label is a number is an IPv4 address gone wrong, and resolvers read it as one.
        let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if name.len() > 253 || numeric || !name.split('.').all(label) {
            return Err(Nonsense::new(text, "is not a host name or an IP address"));
        }
        Ok(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::V4(address) => address.fmt(f),
            Host::V6(address) => write!(f, "[{address}]"),
        }
    }
}
