//! `Session`: one comparison with one peer, and the repair of what it finds.
//!
//! ```text
//!  1  root of what both keep                       equal: done
//!  2  groups that differ     ──► partitions' digests
//!     meanwhile every member is asked which writes are on their way, and whether hints go first
//!  3  upper levels of trees  ──► leaves below what differs        (partitions of few keys skip this)
//!     not before all have said, or a moment has passed: building trees is what costs most
//!     a pause, so that writes on their way arrive
//!  4  key and version lists  ──► what the peer holds otherwise
//!  5  the records, both ways, a stream of them; each is one merge in the receiver's committer
//! ```
//!
//! These five are the round trips that wait for one another, however many keys differ. Where many do, step 4 goes over
//! them in portions, so that neither node holds a list of everything; no portion needs another's answer, and while one
//! is compared the records of those before it travel. The stream is a sliding window: the answer to a record lets the
//! next one go, so that its pace is the receiver's.
//!
//! In step 4 the peer encloses small records that this node lacks, and shows outlines of those that both hold in
//! different versions. Where one side's version knows all of the other's, only that one travels; where neither does, this
//! node's travels, and the peer answers with what the merge made of it. So values sent are values needed. What is younger
//! than the session's start, or than the oldest write that any member is still handing to its owners, is passed over by
//! whoever holds it: it arrives by itself. DeCandia et al. (2007), §4.7, compare at rest.

use super::options::SessionOptions;
use super::purpose::Purpose;
use super::report::{Cause, Report};
use super::stream::{Move, Stream};
use crate::merkle::Forest;
use crate::merkle::diff::{self, Digest, FEW_KEYS, Salt};
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::{LEAVES, MemberIndex, Partition, Ring};
use crate::protocol::{
    Answer, Bed, Difference, KeyEntry, Leaves, Listed, MemberTag, Refusal, Request, SyncAnswer, SyncRequest, wire_bytes,
};
use crate::record::Stamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long a difference must last to be repaired, in milliseconds. Far above the time between a write's arrival on
/// its first owner and on its last, far below what anybody waits for a repair.
pub const CONFIRM_MS: u64 = 250;
/// Keys compared at a time, about: bounds the lists, which are 200 bytes a key in memory, and the time that a thread
/// which serves clients, or pings, spends over one, to about a millisecond.
const PORTION_KEYS: usize = 1_024;
/// Rows read at a time to find them, unless one partition has more: some 50 milliseconds' work for either node, so that
/// an answer keeps within `--timeout` on a machine that is busy with other things and gives way to them.
const PORTION_ROWS: usize = 16_384;
/// The machine.
pub struct Session {
    forest: Arc<Forest>,
    me: MemberIndex,
    peer: MemberIndex,
    tag: MemberTag,
    peer_tag: MemberTag,
    shared: Vec<Partition>,
    /// Whether these two are all the owners that any of them has.
    is_pair: bool,
    salt: Salt,
    options: SessionOptions,
    report: Report,
    calls: BTreeMap<CallId, Purpose>,
    calls_made: u32,
    /// Partitions that differ and hold many keys, with how many, until their leaves are known.
    deep: BTreeMap<Partition, u32>,
    /// Where keys are still to be compared, each with about how many there are, and rows among which they lie.
    beds: VecDeque<(Bed, usize, usize)>,
    /// What this node holds in the beds being compared; none while none are.
    portion: Option<Vec<(Bed, Vec<Listed>)>>,
    stream: Stream,
    pausing: bool,
    /// Whether trees are to be built, once it is known that no hints go first.
    trees_due: bool,
    /// Whether a record has been sent, or sent for.
    streaming: bool,
    /// Whether the peer keeps itself free for this session, and wants to hear when it is over.
    engaged: bool,
    concluded: bool,
}

impl Session {
    /// A session of `me` with `peer` about `shared`, the partitions that both keep by `ring`.
    pub fn new(
        ring: &Ring,
        forest: Arc<Forest>,
        me: MemberIndex,
        peer: MemberIndex,
        shared: Vec<Partition>,
        options: SessionOptions,
    ) -> Session {
        Session {
            forest,
            me,
            peer,
            tag: MemberTag::of(&ring.member(me).name),
            peer_tag: MemberTag::of(&ring.member(peer).name),
            is_pair: shared
                .iter()
                .all(|&partition| ring.owners(partition).len() == 2 && ring.beside(partition).is_empty()),
            shared,
            salt: Salt::of(options.settled),
            options,
            report: Report::default(),
            calls: BTreeMap::new(),
            calls_made: 0,
            deep: BTreeMap::new(),
            beds: VecDeque::new(),
            portion: None,
            stream: Stream::default(),
            pausing: false,
            trees_due: false,
            streaming: false,
            engaged: false,
            concluded: false,
        }
    }

    fn call(&mut self, to: MemberIndex, purpose: Purpose, request: Request, commands: &mut Vec<Command>) {
        let call = CallId(self.calls_made);
        self.calls_made += 1;
        self.calls.insert(call, purpose);
        if to != self.me {
            self.report.bytes_out += wire_bytes(&request);
        }
        commands.push(Command::Call { call, to, request });
    }

    fn ask(&mut self, purpose: Purpose, request: SyncRequest, commands: &mut Vec<Command>) {
        self.call(self.peer, purpose, Request::Sync(request), commands);
    }

    fn ask_self(&mut self, purpose: Purpose, request: SyncRequest, commands: &mut Vec<Command>) {
        self.call(self.me, purpose, Request::Sync(request), commands);
    }

    fn conclude(&mut self, failed: Option<Cause>, commands: &mut Vec<Command>) -> Option<Report> {
        if self.concluded {
            return None;
        }
        self.concluded = true;
        self.report.failed = failed;
        if self.engaged {
            let request = Request::Sync(SyncRequest::Done { from: self.tag });
            self.call(self.peer, Purpose::Over, request, commands);
        }
        self.calls.clear();
        Some(self.report.clone())
    }

    fn answered(&mut self, purpose: Purpose, answer: Answer, commands: &mut Vec<Command>) -> Result<(), Cause> {
        let travelled = purpose.record_bytes();
        let calls_before = self.calls_made;
        // Whether either of the two counts as an owner is no matter here.
        match (purpose, answer.content()) {
            (Purpose::Yield(moved), _) => self.fetch_news(moved, commands),
            (Purpose::Push(moved), Answer::Refused(refusal)) if concerns_one_record(&refusal) => {
                self.declined(moved, &refusal, commands);
            }
            (_, Answer::Refused(refusal)) if travelled.is_some() && concerns_one_record(&refusal) => {
                self.report.refused += 1;
            }
            (Purpose::UnderWay, Answer::UnderWay { hints: true, .. }) => return Err(Cause::HintsFirst),
            (Purpose::UnderWay, Answer::UnderWay { since, .. }) => self.settle(since),
            (Purpose::UnderWay, Answer::Refused(_)) => self.unheard(),
            (_, Answer::Refused(refusal)) => return Err(Cause::Failure(Failure::Refused(refusal))),
            (Purpose::Root, Answer::Sync(SyncAnswer::Groups(groups))) => self.groups(groups, commands),
            (Purpose::Groups, Answer::Sync(SyncAnswer::Partitions(theirs))) => self.partitions(theirs, commands),
            (Purpose::Trees, Answer::Sync(SyncAnswer::Subtrees(trees))) => {
                self.report.rounds += 1;
                let salt = self.salt;
                self.ask(Purpose::Subtrees, SyncRequest::Subtrees { trees, salt }, commands);
            }
            (Purpose::Subtrees, Answer::Sync(SyncAnswer::Leaves(theirs))) => {
                let salt = self.salt;
                self.ask_self(Purpose::Differing, SyncRequest::Differing { theirs, salt }, commands);
            }
            (Purpose::Differing, Answer::Sync(SyncAnswer::Differing(leaves))) => self.differing(leaves, commands),
            (Purpose::List, Answer::Sync(SyncAnswer::Listed(mine))) => self.listed(mine, commands),
            (Purpose::Compare, Answer::Sync(SyncAnswer::Differences(differences))) => self.compared(differences),
            (Purpose::Fetch(moved), Answer::Found { record: Some(record) }) => {
                let Move { key, bytes, .. } = moved;
                self.call(self.me, Purpose::Keep { bytes, is_more: false }, Request::Merge { key, record }, commands);
            }
            // The outline was of another key at the same position: the peer lacks this one.
            (Purpose::Fetch(moved), Answer::Found { record: None }) => self.load(moved, commands),
            (Purpose::Load(_), Answer::Found { record: None }) => {}
            (Purpose::Load(moved), Answer::Found { record: Some(record) }) => {
                let key = moved.key.clone();
                self.call(self.peer, Purpose::Push(moved), Request::Merge { key, record }, commands);
            }
            (Purpose::Push(Move { key, bytes, .. }), Answer::Merged { applied, more }) => {
                *(if applied { &mut self.report.pushed } else { &mut self.report.noop }) += 1;
                if let Some(record) = more.filter(|_| !self.options.offers) {
                    let keep = Purpose::Keep { bytes, is_more: true };
                    self.call(self.me, keep, Request::Merge { key, record }, commands);
                }
            }
            (Purpose::Keep { is_more, .. }, Answer::Merged { applied, .. }) => match (applied, is_more) {
                (true, _) => self.report.pulled += 1,
                (false, true) => {}
                (false, false) => self.report.noop += 1,
            },
            (Purpose::Over, _) => {}
            _ => return Err(Cause::Nonsense),
        }
        // A record whose answer led to no further call has come to the end of its way.
        if let Some(bytes) = travelled.filter(|_| self.calls_made == calls_before) {
            self.stream.arrived(bytes);
        }
        Ok(())
    }

    fn groups(&mut self, theirs: Option<Vec<Option<Digest>>>, commands: &mut Vec<Command>) {
        let Some(theirs) = theirs else { return };
        self.engaged = true;
        let groups = diff::differing_groups(&diff::groups(&self.forest, &self.shared), &theirs);
        if !groups.is_empty() {
            self.report.rounds += 1;
            self.ask(Purpose::Groups, SyncRequest::Groups { from: self.tag, groups }, commands);
            self.ask_what_is_under_way(commands);
        }
    }

    /// Before anything costly is begun: where hints go first, there is no session yet. Writes that begin later are younger
    /// than `settled` anyway.
    fn ask_what_is_under_way(&mut self, commands: &mut Vec<Command>) {
        if self.options.everything {
            return;
        }
        for coordinator in std::mem::take(&mut self.options.coordinators) {
            let request = Request::UnderWay { between: [self.tag, self.peer_tag] };
            self.call(coordinator, Purpose::UnderWay, request, commands);
        }
    }

    fn partitions(&mut self, theirs: Vec<diff::PartitionDigest>, commands: &mut Vec<Command>) {
        for theirs in theirs {
            if self.shared.binary_search(&theirs.partition).is_err() {
                continue;
            }
            let mine = diff::partition(&self.forest, theirs.partition);
            let (Some(mine), Some(built)) = (mine.built, theirs.built) else {
                self.report.not_built += 1;
                self.report.unequal.insert(theirs.partition);
                continue;
            };
            if mine.digest == built.digest {
                continue;
            }
            self.report.partitions += 1;
            self.report.unequal.insert(theirs.partition);
            if mine.keys.max(built.keys) <= FEW_KEYS {
                self.report.leaves += 1;
                let bed = Bed { partition: theirs.partition, leaves: Leaves::All };
                self.beds.push_back((bed, FEW_KEYS as usize, FEW_KEYS as usize));
            } else {
                self.deep.insert(theirs.partition, mine.keys.max(built.keys));
            }
        }
        if self.deep.is_empty() {
            self.pause(commands);
        } else {
            self.trees_due = true;
            commands.push(Command::Wake { after_ms: self.options.confirm_ms });
        }
    }

    /// A thread that builds trees goes on to its end, whatever becomes of the session: 0.1 to 0.3 s of it where all
    /// partitions differ.
    fn build_trees(&mut self, commands: &mut Vec<Command>) {
        if self.trees_due && !self.calls.values().any(|purpose| matches!(purpose, Purpose::UnderWay)) {
            self.trees_due = false;
            let partitions = self.deep.keys().copied().collect();
            self.ask_self(Purpose::Trees, SyncRequest::Trees { partitions, salt: self.salt }, commands);
        }
    }

    fn differing(&mut self, theirs: Vec<(Partition, Vec<u16>)>, commands: &mut Vec<Command>) {
        for (partition, leaves) in theirs {
            // A partition is compared once, and only if it was asked for.
            let Some(keys) = self.deep.remove(&partition) else { continue };
            let about = leaves.len() * (keys as usize / LEAVES + 1);
            if !leaves.is_empty() {
                self.report.leaves += leaves.len() as u64;
                let bed = Bed { partition, leaves: Leaves::Some(leaves) };
                self.beds.push_back((bed, about, keys as usize));
            }
        }
        self.pause(commands);
    }

    fn pause(&mut self, commands: &mut Vec<Command>) {
        if !self.beds.is_empty() {
            self.pausing = true;
            self.report.rounds += 1;
            commands.push(Command::Wake { after_ms: self.options.confirm_ms });
        }
    }

    /// Passes over what is younger than `since` as well.
    fn settle(&mut self, since: Option<Stamp>) {
        self.options.settled = since.map_or(self.options.settled, |since| self.options.settled.min(since));
    }

    /// A coordinator did not say what it has under way.
    fn unheard(&mut self) {
        let began_ms = self.options.settled.ms().saturating_sub(self.options.under_way_ms_max);
        self.settle(Some(Stamp::from_ms(began_ms)));
    }

    fn end_pause(&mut self) {
        self.pausing = false;
        let asked = self.calls.len();
        self.calls.retain(|_, purpose| !matches!(purpose, Purpose::UnderWay));
        if self.calls.len() < asked {
            self.unheard();
        }
    }

    /// Begins with the next beds: first what this node holds there.
    fn next_portion(&mut self, commands: &mut Vec<Command>) {
        let (mut keys, mut rows, mut beds) = (0, 0, Vec::new());
        while let Some((bed, more_keys, more_rows)) = self.beds.pop_front_if(|(_, more_keys, more_rows)| {
            keys == 0 || keys + *more_keys <= PORTION_KEYS && rows + *more_rows <= PORTION_ROWS
        }) {
            keys += more_keys;
            rows += more_rows;
            beds.push(bed);
        }
        self.portion = Some(beds.iter().map(|bed| (bed.clone(), Vec::new())).collect());
        self.ask_self(Purpose::List, SyncRequest::List { beds, salt: self.salt }, commands);
    }

    fn listed(&mut self, mine: Vec<Vec<Listed>>, commands: &mut Vec<Command>) {
        let portion = self.portion.get_or_insert_default();
        for (portion, listed) in portion.iter_mut().zip(mine) {
            portion.1 = listed;
        }
        let entries = |listed: &[Listed]| -> Vec<KeyEntry> { listed.iter().map(|listed| listed.entry).collect() };
        let beds = portion.iter().map(|(bed, listed)| (bed.clone(), entries(listed))).collect();
        let (settled, salt) = (self.options.up_to(), self.salt);
        self.ask(Purpose::Compare, SyncRequest::Compare { settled, salt, beds }, commands);
    }

    fn compared(&mut self, differences: Vec<Vec<Difference>>) {
        let settled = self.options.up_to();
        for ((_, listed), differences) in self.portion.take().unwrap_or_default().into_iter().zip(differences) {
            differences
                .into_iter()
                .filter_map(|one| Move::of(one, &listed, settled))
                .filter(|one| one.to_peer || !self.options.offers)
                .for_each(|one| self.stream.push(one));
        }
    }

    /// The peer would not take this node's record, which is its affair. What it holds itself is wanted here all the same.
    fn declined(&mut self, moved: Move, refusal: &Refusal, commands: &mut Vec<Command>) {
        let is_promised = matches!(refusal, Refusal::Promised { .. });
        self.report.refused += 1;
        self.report.declined += 1;
        self.report.contested += u64::from(is_promised);
        // What a node that is being filled alone accepted, and the only other owner did not, was never agreed on, or is
        // forgotten: it cannot be settled without this node's vote, and is let go of for what the other holds.
        if is_promised && self.options.everything && self.is_pair && !self.options.offers {
            let key = moved.key.clone();
            self.call(self.me, Purpose::Yield(moved), Request::Yield { key }, commands);
        } else {
            self.fetch_news(moved, commands);
        }
    }

    fn fetch_news(&mut self, mut moved: Move, commands: &mut Vec<Command>) {
        if std::mem::take(&mut moved.is_mutual) && !self.options.offers {
            self.fetch(moved, commands);
        }
    }

    fn fetch(&mut self, moved: Move, commands: &mut Vec<Command>) {
        let key = moved.key.clone();
        self.call(self.peer, Purpose::Fetch(moved), Request::Read { key }, commands);
    }

    fn load(&mut self, moved: Move, commands: &mut Vec<Command>) {
        let key = moved.key.clone();
        self.call(self.me, Purpose::Load(moved), Request::Read { key }, commands);
    }

    /// Sends records on their way, in both directions, as long as there is room for them.
    fn fill_window(&mut self, commands: &mut Vec<Command>) {
        while let Some(mut next) = self.stream.send_next() {
            if let Some(record) = next.record.take() {
                let keep = Purpose::Keep { bytes: next.bytes, is_more: false };
                self.call(self.me, keep, Request::Merge { key: next.key, record }, commands);
                continue;
            }
            if !std::mem::replace(&mut self.streaming, true) {
                self.report.rounds += 1;
            }
            if next.to_peer {
                self.load(next, commands);
            } else {
                self.fetch(next, commands);
            }
        }
    }

    /// Whatever can be done now; whether nothing is left.
    fn proceed(&mut self, commands: &mut Vec<Command>) -> bool {
        if self.pausing {
            return false;
        }
        self.build_trees(commands);
        self.fill_window(commands);
        if self.portion.is_none() && !self.beds.is_empty() && self.stream.waiting() <= PORTION_KEYS {
            self.next_portion(commands);
        }
        self.calls.is_empty()
    }
}

impl Operation for Session {
    type Output = Report;
    const IN_BACKGROUND: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Report> {
        if self.concluded {
            return None;
        }
        let result = match event {
            Event::Start if self.shared.is_empty() => Ok(()),
            Event::Start if self.options.offers => {
                self.report.rounds += 1;
                self.ask(Purpose::Groups, SyncRequest::Offer { partitions: self.shared.clone() }, commands);
                self.ask_what_is_under_way(commands);
                Ok(())
            }
            Event::Start => {
                self.report.rounds += 1;
                let root = diff::root(&self.forest, &self.shared);
                self.ask(Purpose::Root, SyncRequest::Root { from: self.tag, root }, commands);
                Ok(())
            }
            Event::Answered { call, answer } => {
                let purpose = self.calls.remove(&call)?;
                if !purpose.is_at_home() {
                    self.report.bytes_in += wire_bytes(&answer);
                }
                self.answered(purpose, answer, commands)
            }
            Event::Failed { call, failure } => match self.calls.remove(&call)? {
                Purpose::UnderWay => {
                    self.unheard();
                    Ok(())
                }
                _ => Err(Cause::Failure(failure)),
            },
            Event::Woken => {
                self.end_pause();
                Ok(())
            }
            Event::Deadline => Err(Cause::Deadline),
        };
        if let Err(cause) = result {
            return self.conclude(Some(cause), commands);
        }
        if self.proceed(commands) { self.conclude(None, commands) } else { None }
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

/// Whether a refusal is about the record at hand; any other would meet the next one just the same.
fn concerns_one_record(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::StampAhead(_) | Refusal::Damaged | Refusal::Unfit(_) | Refusal::Unreadable | Refusal::Promised { .. }
    )
}
