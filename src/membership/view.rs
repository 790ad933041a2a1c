//! The peers of this node and what was last heard of each. Pure: times are arguments.

use crate::placement::NodeId;
use std::fmt;

/// Failed pings in a row after which a peer that others still reach counts as suspect here: it can't be asked from
/// here. Two, so that one lost packet does not redirect traffic.
pub const PEER_FAILURES_UNTIL_SUSPECT: u32 = 2;

/// What a peer is believed to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It answers, or was not asked yet.
    Alive,
    /// It has not answered, and may yet speak up; or it does not answer this node, though it does others.
    Suspect,
    /// Nobody has heard it for a while.
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
    /// What the members together hold of it.
    verdict: State,
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
        let mut view = View::default();
        view.members(names);
        view
    }

    /// From now on these are the peers: of those that were before, what is known is kept.
    pub fn members(&mut self, names: impl IntoIterator<Item = String>) {
        let fresh = |name| Peer {
            name,
            id: None,
            state: State::Alive,
            last_seen_ms: None,
            last_error: None,
            failures: 0,
            verdict: State::Alive,
        };
        let mut peers: Vec<Peer> =
            names.into_iter().map(|name| self.peer(&name).cloned().unwrap_or_else(|| fresh(name))).collect();
        peers.sort_by(|left, right| left.name.cmp(&right.name));
        self.peers = peers;
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
        peer.turn()
    }

    /// Notes that a ping of `name` failed.
    pub fn failed(&mut self, name: &str, error: String) -> Option<Transition> {
        let peer = self.peer_mut(name)?;
        peer.failures = peer.failures.saturating_add(1);
        peer.last_error = Some(error);
        peer.turn()
    }

    /// Notes what the members together hold of `name`, as [`super::Liveness`] tells it.
    pub fn judged(&mut self, name: &str, verdict: State) -> Option<Transition> {
        let peer = self.peer_mut(name)?;
        peer.verdict = verdict;
        if verdict == State::Alive {
            // Somebody has just heard it; whether this node can is for the next pings to say.
            peer.failures = 0;
        }
        peer.turn()
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
    fn turn(&mut self) -> Option<Transition> {
        let unreachable = self.failures >= PEER_FAILURES_UNTIL_SUSPECT;
        let to = if unreachable && self.verdict == State::Alive { State::Suspect } else { self.verdict };
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then(|| Transition { name: self.name.clone(), from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(change: Option<Transition>) -> Option<(State, State)> {
        change.map(|change| (change.from, change.to))
    }

    #[test]
    fn what_is_known_of_those_who_stay_is_kept_when_members_change() {
        let mut view = View::of(["a".to_string(), "b".to_string()]);
        view.judged("a", State::Down);
        view.heard("b", NodeId(2), 1);
        view.members(["c".to_string(), "a".to_string()]);
        let states: Vec<_> = view.peers().iter().map(|peer| (peer.name.as_str(), peer.state)).collect();
        assert_eq!(states, [("a", State::Down), ("c", State::Alive)]);
        assert_eq!(view.judged("b", State::Down), None);
    }

    #[test]
    fn a_peer_is_what_the_members_hold_of_it() {
        let mut view = View::of(["b".to_string(), "a".to_string()]);
        assert_eq!(turns(view.failed("a", "refused".into())), None, "one failure is a lost packet");
        assert_eq!(turns(view.judged("a", State::Suspect)), Some((State::Alive, State::Suspect)));
        assert_eq!(turns(view.judged("a", State::Down)), Some((State::Suspect, State::Down)));
        assert_eq!(turns(view.failed("a", "refused".into())), None);
        assert_eq!(view.peer("a").unwrap().last_error.as_deref(), Some("refused"));
        assert_eq!(turns(view.heard("a", NodeId(7), 1_000)), None, "it has yet to say that it is back");
        assert_eq!(turns(view.judged("a", State::Alive)), Some((State::Down, State::Alive)));
        assert_eq!(view.peer("a").unwrap().last_seen_ms, Some(1_000));
        assert_eq!(view.peer("b").unwrap().state, State::Alive);
    }

    #[test]
    fn a_peer_that_only_others_reach_is_suspect_here() {
        let mut view = View::of(["a".to_string()]);
        assert_eq!(turns(view.failed("a", "no answer".into())), None);
        assert_eq!(turns(view.failed("a", "no answer".into())), Some((State::Alive, State::Suspect)));
        assert_eq!(turns(view.heard("a", NodeId(7), 1_000)), Some((State::Suspect, State::Alive)));
    }

    #[test]
    fn names_that_are_no_peers_change_nothing() {
        let mut view = View::of(["a".to_string()]);
        assert_eq!(view.heard("x", NodeId(1), 1), None);
        assert_eq!(view.failed("x", "no".into()), None);
        assert_eq!(view.judged("x", State::Down), None);
    }
}
