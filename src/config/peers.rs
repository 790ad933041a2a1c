//! `--peers`: nodes to begin with, and names under which DNS knows nodes.

use super::peer_url::PORT_DEFAULT;
use super::{Host, Nonsense, PeerUrl};
use std::fmt;

/// What an entry begins with that names no node, but a name to ask DNS for.
const LOOKUP_SCHEME: &str = "dns+http";

/// The entries of `--peers`, in the order given, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peers {
    /// The nodes.
    pub nodes: Vec<PeerUrl>,
    /// The names.
    pub lookups: Vec<Lookup>,
}

/// A name under which DNS knows any number of nodes, all of one port: `dns+http://node:8001`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// The port that all of them listen on.
    pub port: u16,
}

impl Peers {
    /// Whether nobody is named.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.lookups.is_empty()
    }

    /// Reads a comma list; empty entries are skipped.
    pub(super) fn read(text: &str) -> Result<Peers, Nonsense> {
        let mut peers = Peers::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.split_once("://") {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case(LOOKUP_SCHEME) => {
                    let lookup = Lookup::read(entry, rest)?;
                    if !peers.lookups.contains(&lookup) {
                        peers.lookups.push(lookup);
                    }
                }
                _ => {
                    let node = entry.parse()?;
                    if !peers.nodes.contains(&node) {
                        peers.nodes.push(node);
                    }
                }
            }
        }
        Ok(peers)
    }
}

impl Lookup {
    fn read(entry: &str, rest: &str) -> Result<Lookup, Nonsense> {
        let (host, port) = PeerUrl::parts(rest)?;
        match host {
            Host::Name(name) => Ok(Lookup { name, port: port.unwrap_or(PORT_DEFAULT) }),
            _ => Err(Nonsense::new(entry, "is an address, which need not be asked for; write http:// before it")),
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LOOKUP_SCHEME}://{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_names_stand_in_one_list() {
        let peers =
            Peers::read(" n1, DNS+http://Node:7000/ ,n1:8001/,,dns+http://node:7000, dns+http://other").unwrap();
        assert_eq!(peers.nodes.iter().map(PeerUrl::url).collect::<Vec<_>>(), ["http://n1:8001"]);
        let lookups: Vec<String> = peers.lookups.iter().map(Lookup::to_string).collect();
        assert_eq!(lookups, ["dns+http://node:7000", "dns+http://other:8001"]);
        assert_eq!(Peers::read(&lookups[0]).unwrap().lookups[0], peers.lookups[0]);
        assert!(Peers::read(" , ").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["dns+http://", "dns+http://10.0.0.1:8001", "dns+http://[::1]", "dns+https://n", "dns+http://n/x"]
        {
            assert!(Peers::read(wrong).is_err(), "{wrong}");
        }
    }
}
