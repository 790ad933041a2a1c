//! The peers of this node and what was last heard of each. Pure: times are arguments.

use crate::placement::NodeId;
use std::fmt;

/// Failed pings in a row after which a peer counts as down. Three, so that one lost packet or one long pause
/// does not redirect traffic.
pub const PEER_FAILURES_UNTIL_DOWN: u32 = 3;

/// What a peer is believed to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It answers, or was not asked yet.
    Alive,
    /// It failed to answer its last ping.
    Suspect,
    /// It failed to answer [`PEER_FAILURES_UNTIL_DOWN`] pings in a row.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
        })
    }
}

/// One peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Peer {
    /// The member's name in the layout.
    pub name: String,
    /// Its id, once it has answered a ping.
    pub id: Option<NodeId>,
    /// What it is believed to be.
    pub state: State,
    /// When it was last heard, in milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Why the last failed ping failed.
    pub last_error: Option<String>,
    failures: u32,
}

/// A peer changed its state: worth a line in the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Transition {
    /// Who.
    pub name: String,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

/// All peers, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct View {
    peers: Vec<Peer>,
}

impl View {
    /// A view of peers not asked yet. They count as alive.
    pub fn of(names: impl IntoIterator<Item = String>) -> View {
        let fresh =
            |name| Peer { name, id: None, state: State::Alive, last_seen_ms: None, last_error: None, failures: 0 };
        let mut peers: Vec<Peer> = names.into_iter().map(fresh).collect();
        peers.sort_by(|left, right| left.name.cmp(&right.name));
        View { peers }
    }

    /// The peers, sorted by name.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer called `name`.
    pub fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.binary_search_by(|peer| peer.name.as_str().cmp(name)).ok().map(|found| &self.peers[found])
    }

    /// Notes that `name` answered as node `id` at `now_ms`.
    pub fn heard(&mut self, name: &str, id: NodeId, now_ms: u64) -> Option<Transition> {
        let peer = self.peer_mut(name)?;
        (peer.id, peer.last_seen_ms, peer.failures) = (Some(id), Some(now_ms), 0);
        peer.last_error = None;
        peer.turn(State::Alive)
    }

    /// Notes that a ping of `name` failed.
    pub fn failed(&mut self, name: &str, error: String) -> Option<Transition> {
        let peer = self.peer_mut(name)?;
        peer.failures = peer.failures.saturating_add(1);
        peer.last_error = Some(error);
        peer.turn(if peer.failures < PEER_FAILURES_UNTIL_DOWN { State::Suspect } else { State::Down })
    }

    /// Forgets the id of `name`: another node answered at its address.
    pub fn forget_id(&mut self, name: &str) {
        if let Some(peer) = self.peer_mut(name) {
            peer.id = None;
        }
    }

    fn peer_mut(&mut self, name: &str) -> Option<&mut Peer> {
        let found = self.peers.binary_search_by(|peer| peer.name.as_str().cmp(name)).ok()?;
        self.peers.get_mut(found)
    }
}

impl Peer {
    fn turn(&mut self, to: State) -> Option<Transition> {
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then(|| Transition { name: self.name.clone(), from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_suspected_then_down_and_alive_again_with_the_first_answer() {
        let mut view = View::of(["b".to_string(), "a".to_string()]);
        let states: Vec<Option<State>> =
            (0..5).map(|_| view.failed("a", "refused".into()).map(|change| change.to)).collect();
        assert_eq!(states, [Some(State::Suspect), None, Some(State::Down), None, None]);
        assert_eq!(view.peer("a").unwrap().last_error.as_deref(), Some("refused"));
        let back = view.heard("a", NodeId(7), 1_000).unwrap();
        assert_eq!((back.from, back.to), (State::Down, State::Alive));
        assert_eq!(view.peer("a").unwrap().last_seen_ms, Some(1_000));
        assert_eq!(view.peer("b").unwrap().state, State::Alive);
    }

    #[test]
    fn names_that_are_no_peers_change_nothing() {
        let mut view = View::of(["a".to_string()]);
        assert_eq!(view.heard("x", NodeId(1), 1), None);
        assert_eq!(view.failed("x", "no".into()), None);
    }
}
