//! What clients did that pass back the contexts they got, and whether what they were shown keeps to it.
//!
//! ```text
//!  A   reads {1}   writes 2 ─────────────┐          reads {2, 3}   writes 4
//!  B   reads {1}   writes 3 ──── 1 ◀── 2, 3 ◀── 4   reads {4}      reads {3}: 4 has gone
//! ```
//!
//! A write replaces what its client had been shown: that is an arrow. A later read of the same client accounts for a value
//! that it has seen, or written, if it shows that or something that arrows lead from, at however many removes. What a
//! client has seen is what its last answer showed, as each answer accounts for the ones before.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Acknowledged,
    /// It may surface at any time, or never.
    Unknown,
}

/// What a client did to a key. Values are written once.
#[derive(Clone, Debug)]
pub enum Step {
    /// A write with the context of the last answer.
    Write { key: String, value: String, fate: Fate },
    /// A read with it, that was answered: with all values there were.
    Read { key: String, shown: Vec<String>, said: String },
}

pub type Session = Vec<Step>;

/// What a client has seen of each key.
type Seen<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// What these sessions were shown that they should not have been; nothing where all is well.
pub fn findings(sessions: &[Session]) -> Vec<String> {
    let mut replaced: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut written: BTreeSet<(&str, &str)> = BTreeSet::new();
    for session in sessions {
        let mut seen = Seen::new();
        for step in session {
            if let Step::Write { key, value, .. } = step {
                assert!(written.insert((key, value)), "{value} was written twice");
                let before = seen.get(key.as_str()).into_iter().flatten();
                for older in before {
                    replaced.entry(older).or_default().insert(value);
                }
            }
            note(&mut seen, step);
        }
    }
    let mut findings = vec![];
    for (number, session) in sessions.iter().enumerate() {
        let mut seen = Seen::new();
        for (at, step) in session.iter().enumerate() {
            if let Step::Read { key, shown, said } = step {
                let told = format!("client {number}, step {at}: {key} shows {shown:?} ({said})");
                let strange = shown.iter().filter(|value| !written.contains(&(key, value)));
                findings.extend(strange.map(|value| format!("{told}, and nobody wrote {value}")));
                let known = seen.get(key.as_str()).into_iter().flatten();
                let lost = known.filter(|value| !is_accounted_for(value, shown, &replaced));
                findings.extend(lost.map(|value| format!("{told}, and the client had seen {value}")));
            }
            note(&mut seen, step);
        }
    }
    findings
}

fn note<'a>(seen: &mut Seen<'a>, step: &'a Step) {
    match step {
        Step::Write { key, value, fate: Fate::Acknowledged } => drop(seen.insert(key, vec![value])),
        Step::Write { fate: Fate::Unknown, .. } => {}
        Step::Read { key, shown, .. } => drop(seen.insert(key, shown.iter().map(String::as_str).collect())),
    }
}

/// Whether `value`, or something that replaced it at however many removes, is shown.
fn is_accounted_for(value: &str, shown: &[String], replaced: &BTreeMap<&str, BTreeSet<&str>>) -> bool {
    let (mut next, mut met) = (vec![value], BTreeSet::new());
    while let Some(value) = next.pop() {
        if shown.iter().any(|shown| shown == value) {
            return true;
        }
        let newer = replaced.get(value).into_iter().flatten();
        next.extend(newer.filter(|newer| met.insert(**newer)));
    }
    false
}

mod planted {
    use super::*;

    fn wrote(value: &str) -> Step {
        Step::Write { key: "k".into(), value: value.into(), fate: Fate::Acknowledged }
    }

    fn tried(value: &str) -> Step {
        Step::Write { key: "k".into(), value: value.into(), fate: Fate::Unknown }
    }

    fn read(shown: &[&str]) -> Step {
        let shown = shown.iter().map(|value| (*value).to_owned()).collect();
        Step::Read { key: "k".into(), shown, said: String::new() }
    }

    #[track_caller]
    fn assert_bad(sessions: &[Session], finding: &str) {
        let findings = findings(sessions);
        assert!(findings.len() == 1 && findings[0].contains(finding), "{findings:?}");
    }

    #[track_caller]
    fn assert_good(sessions: &[Session]) {
        assert_eq!(findings(sessions), Vec::<String>::new());
    }

    #[test]
    fn a_stale_read_is_found() {
        let writer = vec![read(&[]), wrote("1"), wrote("2")];
        assert_good(&[writer.clone(), vec![read(&["1"]), read(&["2"])]]);
        assert_bad(&[writer.clone(), vec![read(&["2"]), read(&["1"])]], "had seen 2");
        assert_bad(&[writer, vec![read(&["2"]), read(&[])]], "had seen 2");
    }

    #[test]
    fn a_lost_own_write_is_found() {
        assert_bad(&[vec![read(&[]), wrote("1"), read(&[])]], "had seen 1");
        // Also where others have written beside it.
        let other = vec![read(&["1"]), wrote("3")];
        assert_bad(&[vec![wrote("1"), wrote("2"), read(&["3"])], other], "had seen 2");
    }

    #[test]
    fn a_write_that_goes_back_is_found() {
        let (first, second) =
            (vec![wrote("1"), read(&["1"]), wrote("2"), read(&["2"])], vec![read(&["2"]), wrote("3")]);
        assert_good(&[first.clone(), second.clone()]);
        // The third was in place of the second, so the second cannot be what came after the third.
        assert_bad(&[first.clone(), [second, vec![read(&["2"])]].concat()], "had seen 3");
        assert_bad(&[[first, vec![read(&["1"])]].concat()], "had seen 2");
    }

    #[test]
    fn a_sibling_that_vanishes_is_found() {
        let (one, other) = (vec![wrote("0"), wrote("1")], vec![read(&["0"]), wrote("2")]);
        assert_good(&[one.clone(), other.clone(), vec![read(&["2"]), read(&["1", "2"])]]);
        assert_bad(&[one, other, vec![read(&["1", "2"]), read(&["2"])]], "had seen 1");
    }

    #[test]
    fn what_nobody_wrote_is_found() {
        assert_bad(&[vec![wrote("1")], vec![read(&["1", "7"])]], "nobody wrote 7");
    }

    #[test]
    fn a_write_of_unknown_fate_may_surface_or_not_and_replaces_nothing_by_itself() {
        let reader = |shown: &[&str]| vec![read(&["1"]), read(shown)];
        let writer = vec![wrote("1"), tried("2"), wrote("3")];
        for shown in [&["1"][..], &["2"], &["2", "3"], &["3"]] {
            assert_good(&[writer.clone(), reader(shown)]);
        }
        assert_bad(&[[writer, vec![read(&["2"])]].concat()], "had seen 3");
    }

    #[test]
    fn what_was_replaced_at_several_removes_is_accounted_for() {
        let chain = vec![wrote("1"), wrote("2"), tried("3"), read(&["3"]), wrote("4")];
        assert_good(&[chain, vec![read(&["1"]), read(&["4"])]]);
    }
}
