//! Layouts of the world: those it begins with, all that nodes have gone by, and the operators who want others.

use super::counters::Counters;
use super::invariants;
use super::node::{Node, Then};
use super::options::{Options, pick};
use super::workload::Purpose;
use super::world::{Event, World};
use kringle::placement::{ClusterId, Layout, Member, MemberIndex, Mode, Ring};
use kringle::protocol::{LayoutAnswer, LayoutWish};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How long an operator waits before asking again for what was not agreed on, and how often that is done.
const ASK_AGAIN_US: u64 = 2_000_000;
const TRIES_MAX: u32 = 6;
/// When the last of them comes, in microseconds: there is time to see it through among the faults.
const WISHES_UNTIL_US: u64 = 35_000_000;

/// The name of a node in layouts.
pub(crate) fn name_of(node: usize) -> String {
    format!("http://n{node}:8001")
}

/// Which node has this name.
pub(crate) fn number_of(name: &str) -> usize {
    let number = name.strip_prefix("http://n").and_then(|rest| rest.split(':').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is no node's name"))
}

/// What an operator wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// This node is to be a member.
    Join(usize),
    /// This one is to be none any more.
    Leave(usize),
    /// This one is down, and is to be none any more: the others go on without what it has.
    Remove(usize),
    Replicas(u8),
    /// This member is to have this weight: with 0 it keeps nothing.
    Weight(usize, u16),
}

/// Another layout that is wanted, and how often it was asked for.
#[derive(Debug)]
struct Wanted {
    wish: Wish,
    tries: u32,
}

/// What is known of layouts from outside.
pub(crate) struct Changes {
    /// The first one.
    pub(crate) founding: Arc<Layout>,
    /// All that any node has gone by, by their epochs.
    pub(crate) layouts: BTreeMap<u64, Arc<Layout>>,
    /// The last epoch that each node has gone by, on the disk that it has.
    pub(crate) epochs: BTreeMap<usize, u64>,
    /// Rings take long to make.
    rings: BTreeMap<(u64, Option<usize>), Arc<Ring>>,
    wanted: Vec<Wanted>,
    /// Requests of clients that are to be tried again under another layout.
    pub(crate) again: BTreeMap<u64, Purpose>,
    pub(crate) agains: u64,
}

/// The ring of so many nodes. Made once each, as that takes longer than many a run.
fn founding_ring(nodes: usize, replicas: u8) -> Arc<Ring> {
    static RINGS: Mutex<BTreeMap<(usize, u8), Arc<Ring>>> = Mutex::new(BTreeMap::new());
    let mut rings = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let made = || {
        let members = (0..nodes).map(|node| Member::new(name_of(node))).collect();
        let layout = Layout::provisional(ClusterId::named("sim"), replicas, Mode::Sloppy, members);
        Arc::new(Ring::new(layout.expect("a layout of a few nodes")))
    };
    rings.entry((nodes, replicas)).or_insert_with(made).clone()
}

impl Changes {
    /// What a world begins with. Where layouts never change, nodes need not be known by their ids.
    pub(crate) fn begin(options: &Options, nodes: &[Node]) -> (Arc<Ring>, Changes) {
        let mut ring = founding_ring(options.nodes, options.replicas);
        if options.has_changes() {
            let ids = nodes.iter().map(|node| (node.name.clone(), node.id())).collect();
            ring = Arc::new(Ring::new(ring.layout().bind(&ids).expect("ids of their own")));
        }
        let founding = ring.layout().clone();
        let changes = Changes {
            layouts: BTreeMap::from([(founding.epoch(), founding.clone())]),
            rings: BTreeMap::from([((founding.epoch(), None), ring.clone())]),
            founding,
            epochs: BTreeMap::new(),
            wanted: Vec::new(),
            again: BTreeMap::new(),
            agains: 0,
        };
        (ring, changes)
    }
}

impl World {
    /// The ring by which a running node goes.
    pub(crate) fn ring_of(&self, node: usize) -> Arc<Ring> {
        self.nodes[node].up.as_ref().expect("asked of running nodes only").ring.clone()
    }

    /// A running node's place in the ring by which it goes.
    pub(crate) fn me(&self, node: usize) -> MemberIndex {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        self.me_in(&up.ring, node)
    }

    pub(crate) fn me_in(&self, ring: &Ring, node: usize) -> MemberIndex {
        let own = ring.member_by_name(&self.nodes[node].name).or(ring.guest());
        own.expect("a node is a member of its own layout, or a guest")
    }

    /// Whether a running node is a member of the layout by which it goes.
    pub(crate) fn is_member(&self, node: usize) -> bool {
        self.nodes[node].up.as_ref().is_some_and(|up| up.ring.guest().is_none())
    }

    /// The ring of a layout, as `node` sees it.
    pub(crate) fn ring_for(&mut self, layout: &Arc<Layout>, node: usize) -> Arc<Ring> {
        let name = &self.nodes[node].name;
        let is_member = layout.members().iter().any(|member| member.name == *name);
        let made = || match is_member {
            true => Ring::new(layout.clone()),
            false => Ring::with_guest(layout.clone(), Member::new(name.clone())),
        };
        let known = self.changes.layouts.get(&layout.epoch()) == Some(layout);
        if !known {
            return Arc::new(made());
        }
        let seat = (layout.epoch(), (!is_member).then_some(node));
        self.changes.rings.entry(seat).or_insert_with(|| Arc::new(made())).clone()
    }

    /// A node goes by a layout from now on, or still does after a start.
    pub(crate) fn goes_by(&mut self, node: usize, layout: &Arc<Layout>) {
        if !self.options.has_changes() {
            return;
        }
        invariants::one_layout_an_epoch(self, node, layout);
        if layout.epoch() > self.ring.epoch() {
            // Of a guest's ring the owners are the same.
            self.ring = self.ring_for(layout, node);
            note_phase(&mut self.counters, layout);
            invariants::reads_ask_who_has_it(self);
        }
    }

    /// Operators come at random times.
    pub(crate) fn schedule_wishes(&mut self) {
        if !self.options.has_changes() {
            return;
        }
        for _ in 0..self.options.changes {
            let after = self.rng.random_range(500_000..WISHES_UNTIL_US);
            let spare = self.options.nodes + self.rng.random_range(0..self.options.spares.max(1));
            let member = self.rng.random_range(0..self.options.nodes);
            let wish = match self.rng.random_range(0..8) {
                0..3 if self.options.spares > 0 => Wish::Join(spare),
                0..4 if self.options.nodes > 1 => Wish::Leave(member),
                4..6 if self.options.nodes > 1 => {
                    let back = self.rng.random_range(after..=WISHES_UNTIL_US);
                    self.want(Wish::Weight(member, 1), back);
                    Wish::Weight(member, 0)
                }
                _ => Wish::Replicas(*pick(&mut self.rng, &[1, 2, 2, 3, 3, 4])),
            };
            self.want(wish, after);
        }
    }

    /// An operator wants this, after so long.
    pub(crate) fn want(&mut self, wish: Wish, after: u64) {
        self.changes.wanted.push(Wanted { wish, tries: 0 });
        let number = self.changes.wanted.len() - 1;
        self.schedule(after, Event::Wish(number));
    }

    /// Asks a node for it.
    pub(crate) fn wish(&mut self, number: usize) {
        let wanted = &mut self.changes.wanted[number];
        wanted.tries += 1;
        let (wish, tries) = (wanted.wish, wanted.tries);
        if tries > TRIES_MAX {
            return;
        }
        let runs = |world: &World, node: usize| world.nodes[node].up.is_some() && !world.is_paused(node);
        let asked = match wish {
            Wish::Join(node) | Wish::Leave(node) => Some(node).filter(|&node| runs(self, node)),
            Wish::Remove(_) | Wish::Replicas(_) | Wish::Weight(..) => {
                let members = self.members();
                let alive: Vec<usize> = members.into_iter().filter(|&node| runs(self, node)).collect();
                (!alive.is_empty()).then(|| alive[self.rng.random_range(0..alive.len())])
            }
        };
        let Some(node) = asked else { return self.schedule(ASK_AGAIN_US, Event::Wish(number)) };
        match wish {
            Wish::Join(_) => {
                self.nodes[node].joins = true;
                self.belongs(node);
            }
            Wish::Leave(_) => {
                let name = self.nodes[node].name.clone();
                self.change(node, LayoutWish::Leave(name), Then::Operator { number });
            }
            Wish::Remove(dead) => {
                self.change(node, LayoutWish::Remove(name_of(dead)), Then::Operator { number });
            }
            Wish::Replicas(replicas) => {
                self.change(node, LayoutWish::Replicas(replicas), Then::Operator { number });
            }
            Wish::Weight(member, weight) => {
                let wish = LayoutWish::Refit { name: name_of(member), zone: String::new(), weight };
                self.change(node, wish, Then::Operator { number });
            }
        }
    }

    /// An operator asks this very node for it, now and once.
    pub(crate) fn ask_for(&mut self, node: usize, wish: Wish) {
        self.changes.wanted.push(Wanted { wish, tries: TRIES_MAX });
        let number = self.changes.wanted.len() - 1;
        let wish = match wish {
            Wish::Join(_) => panic!("a node that is to join asks by itself"),
            Wish::Leave(leaver) => LayoutWish::Leave(name_of(leaver)),
            Wish::Remove(dead) => LayoutWish::Remove(name_of(dead)),
            Wish::Replicas(replicas) => LayoutWish::Replicas(replicas),
            Wish::Weight(member, weight) => LayoutWish::Refit { name: name_of(member), zone: String::new(), weight },
        };
        self.change(node, wish, Then::Operator { number });
    }

    /// What became of it.
    pub(crate) fn wish_ended(&mut self, number: usize, answer: &LayoutAnswer) {
        match (answer, self.changes.wanted[number].wish) {
            (LayoutAnswer::Planned { .. }, Wish::Leave(node)) => {
                self.counters.hit("leave planned");
                // It does not come back by itself.
                self.nodes[node].joins = false;
            }
            // Only stories want it.
            (LayoutAnswer::Planned { .. }, Wish::Remove(_)) => {}
            (LayoutAnswer::Planned { .. }, Wish::Weight(_, 0)) => self.counters.hit("drain planned"),
            (LayoutAnswer::Planned { .. }, Wish::Weight(..)) => self.counters.hit("weight planned"),
            (LayoutAnswer::Planned { .. }, _) => self.counters.hit("replicas planned"),
            (LayoutAnswer::Declined { .. }, _) => {
                self.counters.hit("change of the layout declined");
                self.schedule(ASK_AGAIN_US, Event::Wish(number));
            }
            _ => {
                self.counters.hit("change of the layout not agreed on");
                self.schedule(ASK_AGAIN_US, Event::Wish(number));
            }
        }
    }
}

fn note_phase(counters: &mut Counters, layout: &Layout) {
    use kringle::placement::Phase;
    counters.hit(match layout.change().map(|change| change.phase()) {
        Some(Phase::Filling) => "owners begin to change",
        Some(Phase::Switched) => "reads switch to the new owners",
        None => "owners settled",
    });
}
