//! When the committer tells that a target has all that was made under a name.

use super::*;
use crate::record::Context;

const TARGETS: [&str; 2] = ["http://a", "http://b"];

fn hint_write(name: &str, value: &str) -> Change {
    let targets = TARGETS.map(MemberName::from).to_vec();
    Change::HintWrite { key: key(name), edit: Edit::write(Seen::Everything, content(value)), targets }
}

impl Desk {
    fn hinted(&mut self, name: &str, value: &str) -> (Record, Dot) {
        let outcome = self.one(hint_write(name, value));
        let record = written(&outcome).1.clone();
        let dot = record.context().newest().unwrap();
        (record, dot)
    }

    fn deliver(&mut self, name: &str, record: &Record, target: &str, life: u64) {
        let (record, target, life) = (record.clone(), target.into(), Some(life));
        self.one(Change::HintDelivered { key: key(name), record, target, life }).unwrap();
    }

    fn told(&self, target: &str, life: u64, dot: Dot) -> bool {
        self.hints.delivered(target, life).covers(dot)
    }
}

#[test]
fn a_target_is_told_what_it_took_once_nothing_is_kept_for_it_and_nothing_is_made_under_that_name_again() {
    let mut desk = desk();
    let (one, first) = desk.hinted("one", "v");
    let (two, second) = desk.hinted("two", "v");
    assert_eq!(first.actor, second.actor);
    desk.deliver("one", &one, "http://a", 7);
    assert!(!desk.told("http://a", 7, first), "the other is still on its way");
    desk.deliver("two", &two, "http://a", 7);
    assert!(desk.told("http://a", 7, first) && desk.told("http://a", 7, second));
    assert!(!desk.told("http://a", 8, first), "it may have lost something since");
    assert!(!desk.told("http://b", 7, first), "it has nothing of it");
    // What is made from then on has another name, and is not told before it is delivered.
    let (three, third) = desk.hinted("three", "v");
    assert_ne!(third.actor, first.actor);
    assert!(!desk.told("http://a", 7, first), "nothing is told while something is kept");
    desk.deliver("three", &three, "http://a", 7);
    assert!(desk.told("http://a", 7, first) && desk.told("http://a", 7, third));
    for (name, record) in [("one", &one), ("two", &two), ("three", &three)] {
        desk.deliver(name, record, "http://b", 9);
    }
    assert!(desk.told("http://b", 9, first) && desk.told("http://b", 9, third));
    assert!(!desk.told("http://b", 9, Dot { stamp: Stamp(u64::MAX), ..third }));
}

#[test]
fn a_start_goes_on_telling_and_one_that_met_a_damaged_hint_does_not() {
    for damaged in [false, true] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut desk = desk_over(store.clone(), 10_000);
        let (one, first) = desk.hinted("one", "v");
        let (two, second) = desk.hinted("two", "v");
        desk.deliver("one", &one, "http://a", 7);
        if damaged {
            let row = (Address::hint(&key("three")), Some(Bytes::from_static(b"rot")));
            store.append(vec![row], Stamp(0)).unwrap();
        }
        let hints = Arc::new(HintLedger::scan(&*store, 10_000).0);
        let (forest, feed) = (Arc::new(Forest::new()), Arc::new(Feed::new(1, 10, 1 << 20)));
        let clock = Clock::starting_after(store.last_stamp());
        let committer =
            Committer::new(store.clone(), forest.clone(), feed.clone(), hints.clone(), Arc::default(), Actor(8), clock);
        let mut desk = Desk { committer, store: store.clone(), forest, feed, hints, contexts: Arc::default() };
        desk.deliver("two", &two, "http://a", 7);
        assert_eq!(desk.told("http://a", 7, first), !damaged);
        assert_eq!(desk.told("http://a", 7, second), !damaged);
        // Once let go of, a name is not found again by the start after that.
        store.append(vec![(Address::hint(&key("three")), None)], Stamp(0)).unwrap();
        assert_eq!(HintLedger::scan(&*store, 10_000).0.delivered("http://a", 7).is_empty(), damaged);
    }
}

#[test]
fn nothing_is_told_of_names_under_which_a_hint_was_lost() {
    let mut desk = desk();
    let (one, first) = desk.hinted("one", "v");
    desk.deliver("one", &one, "http://b", 7);
    desk.hinted("two", "v");
    desk.store.append(vec![(Address::hint(&key("two")), Some(Bytes::from_static(b"rot")))], Stamp(0)).unwrap();
    // Whoever meets it lets go of it.
    desk.deliver("two", &Record::default(), "http://b", 7);
    desk.deliver("one", &one, "http://a", 7);
    for target in TARGETS {
        assert!(!desk.hints.has_any(target));
        assert_eq!(desk.hints.delivered(target, 7), Context::new(), "{target} never had all of it");
    }
    let (three, third) = desk.hinted("three", "v");
    assert_ne!(third.actor, first.actor);
    TARGETS.iter().for_each(|target| desk.deliver("three", &three, target, 7));
    assert!(desk.told("http://a", 7, third) && !desk.told("http://a", 7, first));
}
