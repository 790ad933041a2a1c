//! What a node does about rot: the twin of `src/node/rot.rs` and of `src/node/mend.rs`.

use super::answering::Done;
use super::committing::ANY_EPOCH;
use super::filling::FILLING_FACT;
use super::operations::Machine;
use crate::invariants;
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::World;
use kringle::coordinator::{Restore, Restored};
use kringle::membership::Lack;
use kringle::placement::{MemberIndex, Partition};
use kringle::protocol::Answer;
use kringle::record::{Context, Key, Stamp};
use kringle::storage::{Base, Change, PageSize, Salvage, Scrub};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long to wait before a row is tried again that the other owners could not, or not yet, make good.
const RETRY_US: u64 = 5_000_000;
/// How often a base is gone through that fails on reading and whose files are sound.
const SUSPICION_US: u64 = 10_000_000;
/// Most that a scrub reads in one look.
const SCRUB_PAGE: PageSize = PageSize { rows_max: 256, bytes_max: 1 << 20 };

/// Who met a row that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Read,
    Change,
    Start,
    Scrub,
}

/// What was found rotten, and how far it is made good.
#[derive(Default)]
pub(crate) struct Mending {
    /// When each row is to be tried next.
    noted: BTreeMap<Key, u64>,
    /// Partitions whose digests are not those of their rows.
    wrong: BTreeSet<Partition>,
    scrub: Option<Scrub>,
    /// When the last scrub began.
    scrubbed: u64,
    /// The bases that rotted, to be gone through, the last first.
    pub(super) salvages: Vec<Salvage>,
    /// Changes from there that are under way.
    under_way: usize,
    /// When the files were last read because a read failed.
    looked: Option<u64>,
    /// Whether digests wait for what is brought over.
    digests_wait: bool,
}

impl Mending {
    pub(super) fn new(salvages: Vec<Salvage>, now: u64) -> Mending {
        Mending { salvages, scrubbed: now, ..Mending::default() }
    }

    /// Whether it knows of rows that cannot be read.
    pub(crate) fn knows_of_any(&self) -> bool {
        !self.noted.is_empty()
    }
}

impl World {
    /// A row was found to be damaged.
    pub(super) fn note_rot(&mut self, node: usize, key: Key, by: By) {
        let now = self.now;
        let only_reports = by == By::Scrub && self.plant == Some(Plant::ScrubOnlyReports);
        if only_reports || self.up(node).mending.noted.contains_key(&key) {
            return;
        }
        self.up(node).mending.noted.insert(key, now);
        self.counters.hit(match by {
            By::Read => "rotten row met by a read",
            By::Change => "rotten row met by a change",
            By::Start => "rotten row met at a start",
            By::Scrub => "rotten row met by a scrub",
        });
    }

    /// Makes good what was noted, and looks for what was not.
    pub(super) fn mend(&mut self, node: usize) {
        self.bring_over(node);
        self.look_at_the_base(node, false);
        for partition in std::mem::take(&mut self.up(node).mending.wrong) {
            self.counters.hit("digests that are not those of the rows");
            self.submit_change(node, Change::Recount { partition });
        }
        let now = self.now;
        let due: Vec<Key> = {
            let noted = self.up(node).mending.noted.iter_mut().filter(|(_, at)| **at <= now);
            noted.map(|(key, at)| (key, std::mem::replace(at, now + RETRY_US)).0.clone()).collect()
        };
        for key in due {
            let (ring, partition) = (self.ring_of(node), Partition::of(key.position()));
            let said = {
                let said = &self.up(node).said;
                let of = |owner: &MemberIndex| Some((*owner, said.of(&ring.member(*owner).name, partition)?.clone()));
                ring.holders(partition).iter().filter_map(of).collect()
            };
            let machine = Restore::new(key.clone(), &ring, self.me(node));
            self.start_operation(node, Machine::Restore(Box::new(machine)), Purpose::Restore { node, key, said }, None);
        }
        self.scrub(node);
    }

    /// The other owners were asked for a row that is damaged here.
    pub(super) fn restore_gathered(
        &mut self,
        node: usize,
        key: Key,
        said: Vec<(MemberIndex, Context)>,
        gathered: Option<Restored>,
    ) {
        let Some(Restored { record, from }) = gathered else {
            return self.counters.hit("rotten row that too few others answer for");
        };
        // Queued before it, so that no moment claims what was lost.
        let partition = Partition::of(key.position());
        let (ring, overlooked) = (self.ring_of(node), self.plant == Some(Plant::SeenDespiteRot));
        let others: Vec<String> = from.iter().map(|owner| ring.member(*owner).name.to_string()).collect();
        let up = self.up(node);
        up.completeness.count_loss();
        let (actor, last) = (up.committer.actor(), up.committer.committed_stamp());
        let seen = up.contexts.look(|contexts| contexts.of(partition, actor, last));
        let said = said.into_iter().filter(|(owner, _)| from.contains(owner));
        let said = said.map(|(owner, theirs)| (ring.member(owner).name.as_str(), theirs));
        up.said.replaced(partition, &seen, said);
        up.contexts.change(|contexts| contexts.void(partition, actor));
        if overlooked {
            up.contexts.change(|contexts| contexts.join(partition, &seen));
        }
        if others.iter().any(|name| up.said.is_unconfirmed(name)) {
            self.counters.hit("asks whether what was seen before rot is so");
        }
        self.note_unlearned(node, |world, key| world.partition(key) == partition);
        self.submit_change(node, Change::KeepContexts);
        let change = Change::Restore { key: key.clone(), record };
        self.submit(node, change, Done::Restored { key }, ANY_EPOCH);
    }

    /// It was replaced, or not yet.
    pub(super) fn restored(&mut self, node: usize, key: &Key, answer: &Answer) {
        if let Answer::Merged { applied, .. } = answer {
            self.up(node).mending.noted.remove(key);
            if *applied {
                self.counters.hit("rotten row replaced");
                invariants::contexts_cover_what_is_held(self, node);
            }
        }
    }

    /// A node begins a scrub when it is time for one, and reads on.
    fn scrub(&mut self, node: usize) {
        let (now, every) = (self.now, 1_000 * self.options.scrub_every_ms);
        let inhabited: BTreeSet<Partition> = (0..self.keys.len()).map(|key| self.partition(key)).collect();
        let up = self.up(node);
        if up.mending.scrub.is_none() {
            if every == 0 || now < up.mending.scrubbed + every || up.rebuild.is_some() {
                return;
            }
            up.mending.scrubbed = now;
            if self.look_at_the_base(node, true) {
                return;
            }
            // Partitions without a key need no scrub.
            self.up(node).mending.scrub = Some(Scrub::of(inhabited.into_iter().collect()));
        }
        let up = self.up(node);
        let Some(mut scrub) = up.mending.scrub.take() else { return };
        let more = scrub.step(&*up.store, &up.forest, SCRUB_PAGE);
        let found = scrub.take_found();
        up.mending.wrong.extend(found.wrong);
        up.mending.scrub = more.then_some(scrub);
        for key in found.damaged {
            self.note_rot(node, key, By::Scrub);
        }
    }

    /// Brings over a little more of what is left of bases that rotted.
    fn bring_over(&mut self, node: usize) {
        if self.up(node).mending.under_way > 0 {
            return;
        }
        while let Some(salvage) = self.up(node).mending.salvages.last_mut() {
            match salvage.step() {
                Some(changes) if changes.is_empty() => {}
                Some(changes) => {
                    self.up(node).mending.under_way = changes.len();
                    for change in changes {
                        self.counters.hit("row brought over from a rotten base");
                        self.submit(node, change, Done::BroughtOver, ANY_EPOCH);
                    }
                    return;
                }
                None => {
                    self.nodes[node].disk.set_aside();
                    let up = self.up(node);
                    up.mending.salvages.pop();
                    if up.mending.salvages.is_empty() && std::mem::take(&mut up.mending.digests_wait) {
                        Partition::all().for_each(|partition| up.forest.mark_built(partition));
                    }
                }
            }
        }
    }

    /// Something from there is committed, or left to the peers.
    pub(super) fn brought_over(&mut self, node: usize) {
        self.up(node).mending.under_way -= 1;
    }

    /// Looks whether the base is as it was written, if a read of it failed or `must`; goes on over another if not.
    fn look_at_the_base(&mut self, node: usize, must: bool) -> bool {
        let now = self.now;
        let up = self.up(node);
        let is_recent = up.mending.looked.is_some_and(|looked| now < looked + SUSPICION_US);
        if !must && (is_recent || !up.store.take_suspicion()) {
            return false;
        }
        up.mending.looked = Some(now);
        let is_rotten = up.store.rotten_files(&mut || ()).is_ok_and(|files| !files.is_empty());
        is_rotten && self.nodes.len() > 1 && self.replace_base(node)
    }

    fn replace_base(&mut self, node: usize) -> bool {
        let wall_ms = self.wall_ms(node);
        let overlooked = self.plant == Some(Plant::ReplacedBaseCounts);
        let says = if overlooked { Vec::new() } else { self.completeness_of(node).would_say_lost() };
        if self.nodes[node].up.is_none() {
            return false;
        }
        let up = self.up(node);
        up.said.lost(None);
        let actor = up.committer.actor();
        up.contexts.change(|contexts| contexts.forget(actor));
        self.note_unlearned(node, |_, _| true);
        let host = &mut self.nodes[node];
        let Some(up) = host.up.as_mut() else { return false };
        // Before anybody could miss what is no longer there: now, or after another start.
        let says = (!says.is_empty()).then(|| Change::Fact { name: FILLING_FACT, bytes: says.into() });
        // What was promised goes with the base: votes that wait by now are given as if everything were promised.
        let floor = Change::RaiseFloor { stamp: Stamp(0) };
        let changes = says.into_iter().chain([Change::KeepContexts, floor]);
        if up.committer.commit(wall_ms, changes.collect()).iter().any(Result::is_err) && !overlooked {
            // It is to be looked at again, whether or not anybody reads there.
            up.store.suspect();
            return false;
        }
        if !overlooked {
            up.committer.note_filling(Some(Lack::ROWS));
        }
        self.counters.hit("rotten base replaced");
        let (store, disk) = (up.store.clone(), &mut host.disk);
        let old = up.committer.replace_base(&store, |mark| Ok(disk.replace_base(mark)));
        let old: Arc<dyn Base> = old.expect("an empty base can be made");
        Partition::all().for_each(|partition| up.forest.unbuild(partition));
        up.last = up.committer.last_stamp();
        (up.rebuild, up.mending.scrub, up.mending.digests_wait) = (None, None, true);
        up.mending.salvages.push(Salvage::new(old));
        self.note_loss(node, false);
        self.nodes[node].emptied = Some(self.moment);
        if overlooked {
            self.nodes[node].filled = true;
        } else {
            self.completeness_lost(node);
        }
        self.look_at_rows(node, false);
        self.greet_everyone(node);
        true
    }
}
