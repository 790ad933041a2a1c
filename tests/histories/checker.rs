//! Whether a history keeps the promise: no acknowledged write is missing from the siblings unless a write that saw it
//! covered it, and blind writers see last-writer behaviour.
//!
//! ```text
//!   x may have covered w    x did not fail, and  its context goes back to a read that showed w, or to the answer to w;
//!                                            or  it is blind, and not over when w began
//!   x must have covered w   x was acknowledged, and its context goes back to a read that showed all there will be of w;
//!                           x was acknowledged by a majority, blind, and began when w was settled
//!
//!   over                    acknowledged; or a quiet moment has passed since its client gave up
//!   settled                 made once, and acknowledged by a majority; or a quiet moment has passed
//!   once                    acknowledged before an owner may have been passed over that was asked to make the write: by a
//!                           node that owns the key, or while nothing was wrong. An owner that was passed over may make
//!                           the same write a second time, later, and whoever saw the first does not cover the second
//! ```
//!
//! At every quiet moment, and in the end,
//!
//! - every owner holds the same values, and a read of all of them shows those;
//! - each value was written to its key, by a write that did not fail, and none *must* have been covered by another. The
//!   first goes for what is read on the way as well;
//! - every acknowledged write is *accounted for*: it is a delete, its value is there, or a write that is accounted for *may*
//!   have covered it. So chains end in something that is there, or was deleted. A write of unknown fate is there or not;
//! - no write was answered as if it had reached more owners than it had.
//!
//! A disk takes with it what no other owner had: a write acknowledged by n owners while fewer than n of them lost their
//! disk is there. A disk is lost when all owners are equal but for what was written in the last moments, so each loss counts
//! by itself, and only for the writes begun between that equality and the loss.

use super::history::{Fate, Held, History, Loss, Moment, Quiet, Read, Saw, Trouble, Write};
use std::collections::BTreeSet;

/// An owner that is silent for so long may be passed over: somewhat less than an eighth of a write's deadline.
const PATIENCE: Moment = 100_000;

/// A write that took so long was perhaps answered because its deadline had come.
const PROMPT: Moment = 500_000;

/// Stamps are milliseconds: two writes closer than this may have the same, and which is later is anybody's guess.
const APART: Moment = 2_000;

/// What the history should not have come to, up to the first moment when something was found; nothing where all is well.
pub fn findings(history: &History) -> Vec<String> {
    let of_read = |read: &Read| {
        let strange = strange(history, &read.key, &read.shown, read.told).into_iter();
        strange.map(|finding| format!("a read, {}: {finding}", read.said)).collect::<Vec<_>>()
    };
    let strange: Vec<String> = history.reads.iter().flat_map(of_read).collect();
    if !strange.is_empty() {
        return strange;
    }
    let at = |(number, quiet): (usize, &Quiet)| {
        let of_key = |(key, held): (&String, &Held)| Story::until(history, key, quiet.at).findings(held);
        let findings = quiet.held.iter().flat_map(of_key);
        findings.map(|finding| format!("quiet moment {number}, {finding}")).collect::<Vec<_>>()
    };
    history.quiets.iter().enumerate().map(at).find(|findings| !findings.is_empty()).unwrap_or_default()
}

/// What is shown of a key that nobody had begun to write before.
fn strange(history: &History, key: &str, shown: &BTreeSet<String>, before: Moment) -> Vec<String> {
    let might_be = |write: &&Write| write.key == key && !write.deletes && write.fate != Fate::Failed;
    let written: BTreeSet<&String> = (history.writes.iter().filter(might_be))
        .filter(|write| write.begun < before)
        .map(|write| &write.name)
        .collect();
    let strange = shown.iter().filter(|value| !written.contains(value));
    strange.map(|value| format!("{key}: {value} is shown; nobody wrote it")).collect()
}

/// All that was done to one key up to some moment.
struct Story<'a> {
    history: &'a History,
    key: &'a str,
    until: Moment,
    writes: Vec<&'a Write>,
}

impl<'a> Story<'a> {
    fn until(history: &'a History, key: &'a str, until: Moment) -> Story<'a> {
        let writes = history.writes.iter().filter(|write| write.key == key && write.begun < until).collect();
        Story { history, key, until, writes }
    }

    /// What is wrong with what there is.
    fn findings(&self, held: &Held) -> Vec<String> {
        let Some(there) = held.values().next() else { return vec![format!("{}: nobody looked", self.key)] };
        let mut findings = strange(self.history, self.key, there, self.until);
        if held.values().any(|values| values != there) {
            findings.push(format!("{}: what is held differs: {held:?}", self.key));
        }
        let accounted = self.accounted(there);
        for (number, write) in self.writes.iter().enumerate() {
            if let Fate::Acknowledged { owners, full: true } = write.fate
                && owners < write.needed
            {
                findings.push(format!("{}: answered as if more owners had it: {write:?}", self.key));
            }
            let is_there = there.contains(&write.name);
            let promised = self.is_acknowledged(write) && !self.is_at_risk(write);
            if promised && !accounted.contains(&number) {
                findings.push(format!("{}: lost: {write:?}; there are {there:?}", self.key));
            }
            if let Some(newer) = self.writes.iter().find(|newer| is_there && self.must_have_covered(newer, write)) {
                findings.push(format!("{}: is there: {write:?}; although there was {newer:?}", self.key));
            }
        }
        findings
    }

    /// The writes that did not fail and are deletes, there, or perhaps covered by one that is accounted for.
    fn accounted(&self, there: &BTreeSet<String>) -> BTreeSet<usize> {
        let is_root = |write: &Write| write.fate != Fate::Failed && (write.deletes || there.contains(&write.name));
        let mut next: Vec<usize> = (0..self.writes.len()).filter(|&number| is_root(self.writes[number])).collect();
        let mut accounted: BTreeSet<usize> = next.iter().copied().collect();
        while let Some(newer) = next.pop() {
            for older in 0..self.writes.len() {
                if self.may_have_covered(self.writes[newer], self.writes[older]) && accounted.insert(older) {
                    next.push(older);
                }
            }
        }
        accounted
    }

    fn may_have_covered(&self, newer: &Write, older: &Write) -> bool {
        newer.name != older.name
            && newer.fate != Fate::Failed
            && match &newer.saw {
                Saw::Blind => older.begun < self.over(newer),
                Saw::Only { shown, own, .. } => shown.contains(&older.name) || own.as_ref() == Some(&older.name),
            }
    }

    fn must_have_covered(&self, newer: &Write, older: &Write) -> bool {
        let is_prompt = newer.told - newer.begun < PROMPT;
        newer.name != older.name
            && self.is_acknowledged(newer)
            && !self.is_at_risk(newer)
            && match &newer.saw {
                Saw::Blind => {
                    newer.covers
                        && is_prompt
                        && self.has_majority(newer)
                        && newer.begun > self.settled(older).saturating_add(APART)
                }
                // What it says of its own write it says only where that is held.
                Saw::Only { shown, since, .. } => {
                    shown.contains(&older.name) && (self.was_made_once(older) || self.quiet_after(older) <= *since)
                }
            }
    }

    fn is_acknowledged(&self, write: &Write) -> bool {
        matches!(write.fate, Fate::Acknowledged { .. })
    }

    fn has_majority(&self, write: &Write) -> bool {
        matches!(write.fate, Fate::Acknowledged { owners, .. } if owners * 2 > self.history.owners[self.key].len())
    }

    fn over(&self, write: &Write) -> Moment {
        if self.is_acknowledged(write) { write.told } else { self.quiet_after(write) }
    }

    fn settled(&self, write: &Write) -> Moment {
        let known = self.was_made_once(write) && self.has_majority(write);
        if known { write.told } else { self.quiet_after(write) }
    }

    fn quiet_after(&self, write: &Write) -> Moment {
        let quiet = self.history.quiets.iter().find(|quiet| quiet.at > write.told);
        quiet.map_or(Moment::MAX, |quiet| quiet.at)
    }

    fn was_made_once(&self, write: &Write) -> bool {
        let overlaps = |trouble: &&Trouble| write.begun <= trouble.to && trouble.from <= write.told;
        let may_be_cut_off = !self.history.owners[self.key].contains(&write.node);
        let passes_on = |trouble: &Trouble| may_be_cut_off || trouble.started.contains(&write.node);
        self.is_acknowledged(write)
            && write.told - write.begun < PATIENCE
            && !self.history.troubles.iter().filter(overlaps).any(passes_on)
    }

    /// Whether a disk may have taken all there was of it.
    fn is_at_risk(&self, write: &Write) -> bool {
        let Fate::Acknowledged { owners, .. } = write.fate else { return true };
        let takes = |loss: &Loss| {
            let of_owner = usize::from(self.history.owners[self.key].contains(&loss.node));
            loss.healed < write.told && write.begun < loss.lost && owners <= of_owner
        };
        self.history.losses.iter().any(takes)
    }
}

mod planted {
    use super::*;
    use std::collections::BTreeMap;

    /// A millisecond.
    const MS: Moment = 1_000;

    fn write(name: &str, saw: Saw, begun_ms: Moment) -> Write {
        Write {
            key: "k".into(),
            name: name.into(),
            deletes: false,
            saw,
            needed: 2,
            covers: true,
            begun: begun_ms * MS,
            told: (begun_ms + 10) * MS,
            fate: Fate::Acknowledged { owners: 2, full: true },
            node: 0,
            said: String::new(),
        }
    }

    fn blind(name: &str, begun_ms: Moment) -> Write {
        write(name, Saw::Blind, begun_ms)
    }

    fn after(name: &str, shown: &[&str], begun_ms: Moment) -> Write {
        let shown = shown.iter().map(|value| (*value).to_owned()).collect();
        write(name, Saw::Only { shown, own: None, since: (begun_ms - 1) * MS }, begun_ms)
    }

    fn delete(write: Write) -> Write {
        Write { deletes: true, ..write }
    }

    fn with(fate: Fate, write: Write) -> Write {
        Write { fate, ..write }
    }

    fn thin(write: Write) -> Write {
        with(Fate::Acknowledged { owners: 1, full: false }, write)
    }

    fn values(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    /// A quiet moment in which the owners held these values.
    fn quiet(at_ms: Moment, there: &[&str]) -> Quiet {
        let held = (0..3).map(|owner| (format!("owner {owner}"), values(there))).collect();
        Quiet { at: at_ms * MS, held: BTreeMap::from([("k".to_owned(), held)]) }
    }

    /// What there is in the end.
    fn history(writes: &[Write], there: &[&str]) -> History {
        History {
            owners: BTreeMap::from([("k".to_owned(), vec![0, 1, 2])]),
            writes: writes.to_vec(),
            quiets: vec![quiet(1_000, there)],
            ..History::default()
        }
    }

    /// The same after a quiet moment before.
    fn after_quiet(at_ms: Moment, then: &[&str], history: &History) -> History {
        History { quiets: [vec![quiet(at_ms, then)], history.quiets.clone()].concat(), ..history.clone() }
    }

    #[track_caller]
    fn assert_good(history: &History) {
        assert_eq!(findings(history), Vec::<String>::new());
    }

    #[track_caller]
    fn assert_bad(history: &History, wanted: &[&str]) {
        let findings = findings(history);
        let met =
            findings.len() == wanted.len() && findings.iter().zip(wanted).all(|(found, part)| found.contains(part));
        assert!(met, "{findings:#?}");
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        assert_good(&history(&[blind("1", 0)], &["1"]));
        assert_bad(&history(&[blind("1", 0)], &[]), &["lost"]);
        // Also a thin one: no disk was lost.
        assert_bad(&history(&[thin(blind("1", 0))], &[]), &["lost"]);
        // And one that was covered by a write which is itself lost.
        assert_bad(&history(&[blind("1", 0), after("2", &["1"], 50)], &[]), &["lost", "lost"]);
    }

    #[test]
    fn a_write_superseded_by_one_that_had_not_seen_it_is_found() {
        let writes = [blind("1", 0), after("2", &["1"], 50), after("3", &["1"], 100)];
        assert_good(&history(&writes, &["2", "3"]));
        assert_bad(&history(&writes, &["3"]), &["lost"]);
        // An unseen delete is no better.
        let writes = [blind("1", 0), after("2", &["1"], 50), delete(after("x", &["1"], 100))];
        assert_good(&history(&writes, &["2"]));
        let gone = history(&writes, &[]);
        assert_bad(&gone, &["lost"]);
    }

    #[test]
    fn dropped_siblings_are_found() {
        let writes = [blind("0", 0), after("1", &["0"], 50), after("2", &["0"], 50), after("3", &["0"], 50)];
        assert_good(&history(&writes, &["1", "2", "3"]));
        assert_bad(&history(&writes, &["1", "3"]), &["lost"]);
        assert_bad(&history(&writes, &["2"]), &["lost", "lost"]);
    }

    #[test]
    fn what_nobody_wrote_is_found() {
        assert_bad(&history(&[blind("1", 0)], &["1", "7"]), &["nobody wrote"]);
        let refused = with(Fate::Failed, after("2", &["1"], 50));
        assert_bad(&history(&[blind("1", 0), refused], &["1", "2"]), &["nobody wrote"]);
        // Neither was it read on the way, nor before it was written.
        let read = |shown: &[&str], told: Moment| {
            let read = Read { key: "k".into(), shown: values(shown), told, said: "read".into() };
            History { reads: vec![read], ..history(&[blind("1", 20)], &["1"]) }
        };
        assert_good(&read(&["1"], 25 * MS));
        assert_bad(&read(&["7"], 25 * MS), &["nobody wrote"]);
        assert_bad(&read(&["1"], 10 * MS), &["nobody wrote"]);
    }

    #[test]
    fn a_deleted_value_that_is_back_is_found() {
        let writes = [blind("1", 0), delete(after("x", &["1"], 50))];
        assert_good(&history(&writes, &[]));
        assert_bad(&history(&writes, &["1"]), &["is there"]);
        let writes = [blind("1", 0), delete(blind("x", 50))];
        assert_good(&history(&writes, &[]));
        assert_bad(&history(&writes, &["1"]), &["is there"]);
        // So is one that was replaced.
        let writes = [blind("1", 0), after("2", &["1"], 50)];
        assert_bad(&history(&writes, &["1", "2"]), &["is there"]);
    }

    #[test]
    fn a_blind_write_that_lost_to_an_older_one_is_found() {
        let writes = [blind("1", 0), blind("2", 50), blind("3", 100)];
        assert_good(&history(&writes, &["3"]));
        assert_bad(&history(&writes, &["2"]), &["is there", "lost"]);
        assert_bad(&history(&writes, &["2", "3"]), &["is there"]);
        assert_bad(&history(&writes, &["1", "2", "3"]), &["is there", "is there"]);
    }

    #[test]
    fn of_blind_writes_at_the_same_time_any_may_remain_and_one_must() {
        let writes = [blind("1", 0), blind("2", 5)];
        for there in [&["1"][..], &["2"], &["1", "2"]] {
            assert_good(&history(&writes, there));
        }
        assert_bad(&history(&writes, &[]), &["lost", "lost"]);
    }

    #[test]
    fn a_blind_write_that_no_majority_had_need_not_be_covered_before_all_is_quiet() {
        let writes = [thin(blind("1", 0)), blind("2", 50)];
        assert_good(&history(&writes, &["1", "2"]));
        let there = history(&writes, &["1", "2"]);
        assert_good(&after_quiet(70, &["1", "2"], &there));
        assert_bad(&after_quiet(30, &["1"], &there), &["is there"]);
        // Nor does one that looks at no majority cover.
        let hasty = Write { covers: false, ..blind("2", 50) };
        assert_good(&history(&[blind("1", 0), hasty], &["1", "2"]));
    }

    #[test]
    fn a_write_of_unknown_fate_may_be_there_or_not_and_may_have_covered_what_it_had_seen() {
        let tried = with(Fate::Unknown, after("2", &["1"], 50));
        let writes = [blind("1", 0), tried];
        for there in [&["1"][..], &["2"], &["1", "2"]] {
            assert_good(&history(&writes, there));
        }
        assert_bad(&history(&writes, &[]), &["lost"]);
        // A blind one anything that was begun before the next quiet moment.
        let writes = [with(Fate::Unknown, delete(blind("x", 0))), blind("1", 50)];
        assert_good(&history(&writes, &[]));
        assert_bad(&after_quiet(30, &[], &history(&writes, &[])), &["lost"]);
    }

    #[test]
    fn what_may_have_been_made_twice_may_be_back_until_all_is_quiet() {
        let writes = [blind("1", 0), after("2", &["1"], 50)];
        let trouble =
            |started: &[usize]| Trouble { from: 5 * MS, to: 6 * MS, started: started.iter().copied().collect() };
        let troubled = |started: &[usize], node: usize| {
            let first = Write { node, ..writes[0].clone() };
            let writes = [first, writes[1].clone()];
            History { troubles: vec![trouble(started)], ..history(&writes, &["1", "2"]) }
        };
        // By a node that is no owner, or by one that began anew and had to ask another.
        assert_good(&troubled(&[], 4));
        assert_good(&troubled(&[0], 0));
        assert_bad(&troubled(&[1], 0), &["is there"]);
        assert_bad(&after_quiet(20, &["1"], &troubled(&[], 4)), &["is there"]);
    }

    #[test]
    fn a_lost_disk_excuses_just_what_it_alone_may_have_had() {
        let loss = |node: usize, write: Write| History {
            losses: vec![Loss { node, healed: 20 * MS, lost: 80 * MS }],
            ..history(&[write], &[])
        };
        assert_good(&loss(1, thin(blind("1", 50))));
        assert_bad(&loss(1, blind("1", 50)), &["lost"]);
        assert_bad(&loss(1, thin(blind("1", 0))), &["lost"]);
        assert_bad(&loss(1, thin(blind("1", 90))), &["lost"]);
        // One that is no owner had nothing but hints.
        assert_bad(&loss(4, thin(blind("1", 50))), &["lost"]);
        assert_good(&loss(4, with(Fate::Acknowledged { owners: 0, full: false }, blind("1", 50))));
    }

    #[test]
    fn what_was_wrong_on_the_way_is_found_though_it_was_covered_later() {
        let writes = [blind("1", 0), after("2", &["1"], 50), blind("3", 100)];
        let there = history(&writes, &["3"]);
        assert_good(&after_quiet(80, &["2"], &there));
        assert_bad(&after_quiet(80, &["1", "2"], &there), &["quiet moment 0, k: is there"]);
        assert_bad(&after_quiet(80, &[], &there), &["lost", "lost"]);
        assert_bad(&after_quiet(80, &["3"], &there), &["nobody wrote", "lost", "lost"]);
    }

    #[test]
    fn owners_that_differ_are_found_and_acknowledgements_one_owner_short() {
        let mut differing = history(&[blind("1", 0)], &["1"]);
        differing.quiets[0].held.get_mut("k").expect("the key").insert("owner 2".into(), values(&[]));
        assert_bad(&differing, &["differs"]);
        let short = with(Fate::Acknowledged { owners: 1, full: true }, blind("1", 0));
        assert_bad(&history(&[short], &["1"]), &["as if more owners"]);
    }
}
