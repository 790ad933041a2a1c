//! What a hub promises, on feeds of members that write, learn of one another's writes, fall silent, are restarted and forget;
//! with answers in any order. The dumb twin is the list of all writes, each with those of its key that it follows.

mod cases;

use super::*;
use crate::protocol::{ChangeKind, FeedOf, FeedPage, News, ToldChange};
use crate::record::{Actor, Dot, Key, Stamp, Tag};
use crate::storage::Feed;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MEMBERS: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: usize = 3;
const LOSS_MS: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    /// A member writes a key, on what it knows of it; agreed on, or not.
    Write {
        member: usize,
        key: usize,
        agreed: bool,
    },
    /// One learns what another knows of a key.
    Learn {
        from: usize,
        to: usize,
        key: usize,
    },
    /// A question that is out is answered by its member; the answer is on its way.
    Serve {
        which: usize,
    },
    /// An answer that is on its way arrives.
    Arrive {
        which: usize,
    },
    /// No answer comes.
    Fail {
        which: usize,
    },
    Restart {
        member: usize,
    },
    Wait {
        ms: u64,
    },
    Join,
    /// The last one leaves. It may come back as it was, or restarted.
    Leave,
}

/// A write: where it was made, and those it follows.
#[derive(Clone, Debug)]
struct Made {
    member: usize,
    key: usize,
    follows: BTreeSet<u64>,
    is_watched: bool,
}

struct Town {
    feeds: Vec<Feed>,
    restarts: u64,
    entries_max: usize,
    /// By number, which is the stamp as well.
    made: BTreeMap<u64, Made>,
    /// What each member knows of each key.
    known: Vec<Vec<BTreeSet<u64>>>,
    members: usize,
    hub: Hub,
    now_ms: u64,
    out: Vec<Ask>,
    coming: Vec<(u64, FeedPage)>,
    told: Vec<Telling>,
    /// How many were told before the hub knew of all feeds: nobody watches by then.
    unwatched: Option<usize>,
}

fn key(number: usize) -> Key {
    Key::new(number.to_string()).unwrap()
}

impl Town {
    fn new(members: usize, entries_max: usize) -> Town {
        let feeds = (1..=MEMBERS.len() as u64).map(|number| Feed::new(number, entries_max, 8 << 20)).collect();
        let mut hub = Hub::living(FeedOf::Changes, MEMBERS[..members].iter().copied(), LOSS_MS, 0);
        hub.want(vec![vec![]], false);
        Town {
            feeds,
            restarts: 0,
            entries_max,
            made: BTreeMap::new(),
            known: vec![vec![BTreeSet::new(); KEYS]; MEMBERS.len()],
            members,
            hub,
            now_ms: 0,
            out: Vec::new(),
            coming: Vec::new(),
            told: Vec::new(),
            unwatched: None,
        }
    }

    fn serve(&self, ask: &Ask) -> FeedPage {
        let member = MEMBERS.iter().position(|name| **name == *ask.member).unwrap();
        self.feeds[member].page(&ask.follow)
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Write { member, key: of, agreed } => {
                let (member, number) = (member % self.members, self.made.len() as u64 + 1);
                let follows = self.known[member][of].clone();
                let others = follows.iter().filter(|write| self.made[*write].member != member);
                let latest = others.max().map_or(Stamp::default(), |write| Stamp(*write));
                let id = Dot { stamp: Stamp(number), actor: Actor(member as u64) };
                let change = ToldChange {
                    key: key(of),
                    kind: ChangeKind::Put,
                    id,
                    agreed: false,
                    carried: false,
                    after: if agreed { Stamp::MAX } else { latest },
                    tag: Tag(1),
                    siblings: 1,
                    expires_ms: None,
                    value_bytes: 0,
                    has_value: false,
                    value: Bytes::new(),
                };
                self.known[member][of].insert(number);
                let is_watched = self.hub.is_settled();
                self.made.insert(number, Made { member, key: of, follows, is_watched });
                self.feeds[member].publish([News::Change(Arc::new(change))], Some(Stamp(number)));
            }
            Step::Learn { from, to, key } => {
                let news = self.known[from % self.members][key].clone();
                self.known[to % self.members][key].extend(news);
            }
            Step::Serve { which } if !self.out.is_empty() => {
                let ask = self.out.remove(which % self.out.len());
                self.coming.push((ask.call, self.serve(&ask)));
            }
            Step::Arrive { which } if !self.coming.is_empty() => {
                let (call, page) = self.coming.remove(which % self.coming.len());
                self.hub.heard(call, Some(page), false, self.now_ms);
            }
            Step::Fail { which } if !self.out.is_empty() => {
                let ask = self.out.remove(which % self.out.len());
                self.hub.heard(ask.call, None, false, self.now_ms);
            }
            Step::Restart { member } => {
                self.restarts += 1;
                self.feeds[member % self.members] = Feed::new(100 + self.restarts, self.entries_max, 1 << 20);
            }
            Step::Wait { ms } => self.now_ms += ms,
            Step::Join if self.members < MEMBERS.len() => {
                self.members += 1;
                self.hub.note_members(MEMBERS[..self.members].iter().copied());
            }
            Step::Leave if self.members > 1 => {
                self.members -= 1;
                self.hub.note_members(MEMBERS[..self.members].iter().copied());
            }
            _ => {}
        }
        let (asks, _) = self.hub.asks(self.now_ms);
        self.out.extend(asks);
        self.told.extend(self.hub.take_told());
        if self.hub.is_settled() {
            self.unwatched.get_or_insert(self.told.len());
        }
    }

    /// Everybody answers, until there is nothing left to tell.
    fn settle(&mut self) {
        for _ in 0..200 {
            let out = self.out.len();
            (0..out).for_each(|_| self.play(&Step::Serve { which: 0 }));
            while !self.coming.is_empty() {
                self.play(&Step::Arrive { which: 0 });
            }
            self.play(&Step::Wait { ms: 600 });
        }
        assert_eq!(self.hub.held(), 0, "something waits for ever");
    }

    fn writes(&self, told: &[Telling]) -> Vec<u64> {
        let number = |telling: &Telling| match &telling.tidings {
            Tidings::News { news: News::Change(change), .. } => Some(change.id.stamp.0),
            _ => None,
        };
        told.iter().filter_map(number).collect()
    }

    /// Another hub, which knows where the feeds end by now.
    fn other(&self) -> Hub {
        let mut other = Hub::living(FeedOf::Changes, MEMBERS[..self.members].iter().copied(), LOSS_MS, self.now_ms);
        other.want(vec![vec![]], false);
        for ask in other.asks(self.now_ms).0 {
            other.heard(ask.call, Some(self.serve(&ask)), false, self.now_ms);
        }
        assert!(other.is_settled());
        other
    }

    /// None twice, and none of a key before one that it follows.
    fn check_order(&self, told: &[u64]) -> Result<(), TestCaseError> {
        let mut before = BTreeSet::new();
        for number in told {
            prop_assert!(before.insert(*number), "{number} is told twice");
            let late = told.iter().filter(|other| self.made[number].follows.contains(other) && !before.contains(other));
            let late: Vec<_> = late.collect();
            prop_assert!(late.is_empty(), "{late:?} of key {} are told after {number}", self.made[number].key);
        }
        Ok(())
    }

    /// The members of which something may be missing.
    fn gaps(&self, told: &[Telling]) -> BTreeSet<usize> {
        let member = |telling: &Telling| match &telling.tidings {
            Tidings::Gap { member, .. } => MEMBERS.iter().position(|name| Some(*name) == member.as_deref()),
            _ => None,
        };
        told.iter().filter_map(member).collect()
    }
}

/// Answers every question of a hub at once, until it is done.
fn catch_up(town: &Town, mut hub: Hub) -> Vec<Telling> {
    let (mut told, mut now_ms) = (hub.take_told(), town.now_ms);
    while !hub.is_done() {
        now_ms += 10;
        assert!(now_ms < town.now_ms + 10_000, "it never ends: {hub:?}");
        for ask in hub.asks(now_ms).0 {
            hub.heard(ask.call, Some(town.serve(&ask)), false, now_ms);
        }
        told.extend(hub.take_told());
    }
    told
}

fn steps(with_leaves: bool, with_losses: bool) -> impl Strategy<Value = Vec<Step>> {
    let (leave, odd) = (u32::from(with_leaves), u32::from(with_losses));
    let step = prop_oneof![
        8 => (0..4usize, 0..KEYS, prop::bool::weighted(0.2))
            .prop_map(|(member, key, agreed)| Step::Write { member, key, agreed }),
        8 => (0..4usize, 0..4usize, 0..KEYS).prop_map(|(from, to, key)| Step::Learn { from, to, key }),
        8 => (0..9usize).prop_map(|which| Step::Serve { which }),
        8 => (0..9usize).prop_map(|which| Step::Arrive { which }),
        3 => (0..20u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Join),
        leave => prop_oneof![Just(Step::Leave), Just(Step::Wait { ms: 700 })],
        2 * odd => (0..9usize).prop_map(|which| Step::Fail { which }),
        odd => (0..4usize).prop_map(|member| Step::Restart { member }),
        odd => Just(Step::Wait { ms: 700 }),
    ];
    prop::collection::vec(step, 0..250)
}

proptest! {
    #[test]
    fn every_change_is_told_once_and_behind_what_it_follows(members in 1..4usize, steps in steps(true, false)) {
        let mut town = Town::new(members, 1_000);
        steps.iter().for_each(|step| town.play(step));
        town.settle();
        let told = town.writes(&town.told);
        town.check_order(&told)?;
        prop_assert_eq!(town.gaps(&town.told), BTreeSet::new());
        let missed = town.made.iter().filter(|(number, made)| made.is_watched && !told.contains(number));
        prop_assert_eq!(missed.count(), 0);
    }

    #[test]
    fn where_anything_is_missed_a_gap_names_its_maker(
        members in 2..4usize,
        entries_max in 4..30usize,
        steps in steps(true, true),
    ) {
        let mut town = Town::new(members, entries_max);
        steps.iter().for_each(|step| town.play(step));
        town.settle();
        let told = town.writes(&town.told);
        town.check_order(&told)?;
        let gaps = town.gaps(&town.told);
        for (number, made) in town.made.iter().filter(|(_, made)| made.is_watched) {
            prop_assert!(told.contains(number) || gaps.contains(&made.member), "{number} of {} is missed", made.member);
        }
    }

    #[test]
    fn another_node_goes_on_from_any_id(members in 1..4usize, steps in steps(false, false), at in any::<prop::sample::Index>()) {
        let mut town = Town::new(members, 1_000);
        steps.iter().for_each(|step| town.play(step));
        town.settle();
        let unwatched = town.unwatched.unwrap_or_default();
        prop_assume!(town.told.len() > unwatched);
        // The second hub begins here, and its members are those that there are by now.
        let other = town.other();
        let at = unwatched + at.index(town.told.len() - unwatched);
        let since = Positions::from_word(&town.told[at].id, FeedOf::Changes).unwrap();
        let rest = catch_up(&town, Hub::catching_up(&other, &since, town.now_ms));
        let mut told = town.writes(&town.told[..=at]);
        told.extend(town.writes(&rest));
        town.check_order(&told)?;
        let all: BTreeSet<u64> = town.writes(&town.told).into_iter().collect();
        // Of a member that joined since, it is told from the beginning; the first hub followed it from there too.
        prop_assert_eq!(told.into_iter().collect::<BTreeSet<u64>>(), all);
        prop_assert_eq!(town.gaps(&rest), BTreeSet::new());
    }

    #[test]
    fn another_node_that_is_behind_repeats_nothing_and_leaves_nothing_out(
        members in 1..4usize,
        before in steps(false, false),
        meanwhile in steps(false, false),
        at in any::<prop::sample::Index>(),
    ) {
        let mut town = Town::new(members, 1_000);
        before.iter().for_each(|step| town.play(step));
        town.settle();
        let mut other = town.other();
        meanwhile.iter().filter(|step| !matches!(step, Step::Join)).for_each(|step| town.play(step));
        town.settle();
        let unwatched = town.unwatched.unwrap_or_default();
        prop_assume!(town.told.len() > unwatched);
        let at = unwatched + at.index(town.told.len() - unwatched);
        let since = Positions::from_word(&town.told[at].id, FeedOf::Changes).unwrap();
        let ahead = since.ahead_of(&other.positions());
        prop_assert_eq!(other.is_behind(&since), ahead.is_some());
        let rest = catch_up(&town, Hub::catching_up(&other, &since, town.now_ms));
        let mut told = town.writes(&town.told[..=at]);
        told.extend(town.writes(&rest));
        let mut later = Vec::new();
        for round in 0..200 {
            let now_ms = town.now_ms + 10 * round;
            for ask in other.asks(now_ms).0 {
                other.heard(ask.call, Some(town.serve(&ask)), false, now_ms);
            }
            later.extend(other.take_told());
        }
        let knows = |telling: &Telling| match (&telling.tidings, telling.place) {
            (Tidings::News { member, .. }, Some(place)) => ahead.as_ref().is_some_and(|ahead| ahead.has(member, place)),
            _ => false,
        };
        later.retain(|telling| !knows(telling));
        told.extend(town.writes(&later));
        town.check_order(&told)?;
        let all: BTreeSet<u64> = town.writes(&town.told).into_iter().collect();
        prop_assert_eq!(told.into_iter().collect::<BTreeSet<u64>>(), all);
    }
}
