//! The address of a node: `http://host:port`, nothing more.

use super::{Host, Nonsense};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The port of a node that names none. By the rules of URLs it would be 80, but nobody who writes `--peers node2`
/// means that.
pub const PORT_DEFAULT: u16 = 8001;

/// The URL of a node, parsed and normalised. Two are equal if their [`name`](PeerUrl::name)s are.
///
/// | given | [`url`](PeerUrl::url) | [`name`](PeerUrl::name) |
/// | --- | --- | --- |
/// | `HTTP://Node2/` | `http://node2:8001` | `http://node2:8001` |
/// | `127.0.0.1:8002` | `http://127.0.0.1:8002` | `http://localhost:8002` |
/// | `http://[0:0::1]:8002//` | `http://[::1]:8002` | `http://localhost:8002` |
#[derive(Clone)]
pub struct PeerUrl {
    host: Host,
    port: u16,
    url: String,
    name: String,
}

impl PeerUrl {
    /// A node that is known by its parts. `host` must be one that can be reached and `port` not 0; the URL would
    /// lead nowhere else, but nothing breaks.
    pub fn new(host: Host, port: u16) -> PeerUrl {
        let url = format!("http://{host}:{port}");
        let name = format!("http://{}:{port}", host.canonical());
        PeerUrl { host, port, url, name }
    }

    /// The same, known under another name than its address.
    pub fn named(self, host: Host) -> PeerUrl {
        PeerUrl { name: format!("http://{}:{}", host.canonical(), self.port), ..self }
    }

    /// The URL to dial: scheme, host and port in lower case, no slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL to compare by and to be known under: like [`url`](PeerUrl::url), with `localhost` for `127.0.0.1`
    /// and `[::1]`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0 in a parsed URL.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Reads host and port, the port only if it is there. See [`PeerUrl::from_str`] for what is tolerated.
    pub(super) fn parts(text: &str) -> Result<(Host, Option<u16>), Nonsense> {
        let trimmed = text.trim();
        let refused = |because: &'static str| Err(Nonsense::new(trimmed, because));
        if trimmed.contains('@') {
            // Whatever stands before the sign may be a password: it is not repeated.
            let after = trimmed.rsplit('@').next().unwrap_or_default();
            return Err(Nonsense::new(&format!("***@{after}"), "names a user; a node's URL is http://host:port"));
        }
        let rest = match trimmed.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return refused("has a scheme other than http"),
            None => trimmed,
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('?') || rest.contains('#') {
            return refused("has a query or a fragment; a node's URL is http://host:port");
        }
        if rest.contains('/') {
            return refused("has a path; a node's URL is http://host:port");
        }
        let (host, port) = match rest.find(']') {
            Some(end) if rest.starts_with('[') => rest.split_at(end + 1),
            _ if rest.matches(':').count() > 1 => {
                return refused("has too many colons; an IPv6 address stands in brackets, as in http://[::1]:8001");
            }
            _ => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        if host.is_empty() {
            return refused("names no host");
        }
        let Ok(host) = host.parse::<Host>() else {
            return refused("names no valid host");
        };
        if host.is_unspecified() {
            return refused("stands for every address of a machine; name one that the other nodes can reach");
        }
        if port.is_empty() {
            return Ok((host, None));
        }
        let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(port) if port > 0 => Ok((host, Some(port))),
            _ => refused("has no valid port (1 to 65535)"),
        }
    }
}

impl FromStr for PeerUrl {
    type Err = Nonsense;

    /// Tolerates spaces around it, slashes after it, capitals, a missing `http://` and a missing port (then
    /// [`PORT_DEFAULT`]). Refuses other schemes, paths, queries, fragments, users, ports out of range, and hosts
    /// nobody can reach.
    fn from_str(text: &str) -> Result<PeerUrl, Nonsense> {
        let (host, port) = PeerUrl::parts(text)?;
        Ok(PeerUrl::new(host, port.unwrap_or(PORT_DEFAULT)))
    }
}

impl PartialEq for PeerUrl {
    fn eq(&self, other: &PeerUrl) -> bool {
        self.name == other.name
    }
}

impl Eq for PeerUrl {}

impl PartialOrd for PeerUrl {
    fn partial_cmp(&self, other: &PeerUrl) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerUrl {
    fn cmp(&self, other: &PeerUrl) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl Hash for PeerUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_read_again_the_same(
            text in prop_oneof![".{0,60}", "(http://|HTTP://)?[a-z0-9.\\[\\]:_-]{0,20}(:[0-9]{0,6})?/{0,2}( ,)?"]
        ) {
            let _ = crate::config::peers::Peers::read(&text);
            if let Ok(peer) = text.parse::<PeerUrl>() {
                let (by_url, by_name): (PeerUrl, PeerUrl) = (peer.url().parse().unwrap(), peer.name().parse().unwrap());
                prop_assert_eq!(by_url.url(), peer.url());
                prop_assert_eq!(by_url.name(), peer.name());
                prop_assert_eq!(by_name.name(), peer.name());
            }
        }
    }
}
