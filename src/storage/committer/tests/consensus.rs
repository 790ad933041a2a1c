//! What the committer promises and accepts, and what it refuses because of that.

use super::*;
use crate::membership::Lack;
use crate::record::{Ballot, Proposal};
use crate::storage::{Base, Durability};

fn ballot(stamp: u64) -> Ballot {
    Ballot { stamp: Stamp(stamp), actor: Actor(90) }
}

/// What a proposer would have accepted under this ballot, after it was shown `before`.
fn proposed(before: &Record, value: &str, stamp: u64) -> Record {
    let proposal = Proposal::from(Edit::write(Seen::Everything, content(value)));
    before.reballot(ballot(stamp)).propose(&proposal, ballot(stamp).dot(), 0).unwrap()
}

fn prepare(name: &str, stamp: u64) -> Change {
    Change::Prepare { key: key(name), ballot: ballot(stamp) }
}

fn accept(name: &str, record: &Record, next: Option<u64>) -> Change {
    Change::Accept { key: key(name), record: record.clone(), next: next.map(ballot) }
}

fn refused(stamp: u64) -> Result<Outcome, Refused> {
    Err(Refused::Promised { ballot: ballot(stamp) })
}

#[test]
fn an_earlier_ballot_than_the_one_promised_is_refused_and_a_later_one_is_not() {
    let mut desk = desk();
    assert_eq!(desk.one(prepare("k", 5)), Ok(Outcome::Promised { record: Record::default() }));
    assert_eq!(desk.one(prepare("k", 4)), refused(5));
    assert_eq!(desk.one(prepare("k", 5)), refused(5));
    assert_eq!(desk.one(accept("k", &proposed(&Record::default(), "late", 4), None)), refused(5));
    let held = proposed(&Record::default(), "v", 5);
    assert_eq!(desk.one(accept("k", &held, Some(8))), Ok(Outcome::Accepted { more: None }));
    assert_eq!(desk.row("k").unwrap(), Row { promised: Some(ballot(8)), record: held.clone() });
    assert_eq!(desk.one(prepare("k", 7)), refused(8), "promised together with the acceptance");
    assert_eq!(desk.one(accept("k", &held, Some(8))), Ok(Outcome::Accepted { more: None }), "heard twice");
    let next = proposed(&held, "w", 8);
    assert_eq!(desk.one(accept("k", &next, None)), Ok(Outcome::Accepted { more: None }));
    assert_eq!(values(&desk.row("k").unwrap().record), [b"w"]);
    desk.check_forest();
}

#[test]
fn a_copy_that_a_promise_forbids_is_refused_from_whatever_road_and_its_key_noted() {
    let mut desk = desk();
    let old = proposed(&Record::default(), "old", 3);
    desk.one(accept("k", &old, None)).unwrap();
    desk.one(prepare("k", 9)).unwrap();
    let between = proposed(&old, "between", 6);
    assert_eq!(desk.one(Change::Merge { key: key("k"), record: between.clone() }), refused(9));
    let cover = Change::Cover { key: key("k"), other: between, dot: Dot { stamp: Stamp(1), actor: Actor(1) } };
    assert_eq!(desk.one(cover), refused(9));
    assert_eq!(desk.committer.take_contested(), [key("k"), key("k")]);
    // What is no news is, and so is what is later than the promise.
    assert_eq!(
        desk.one(Change::Merge { key: key("k"), record: old.clone() }),
        Ok(Outcome::Merged { applied: false, more: None })
    );
    let later = proposed(&old, "later", 10);
    assert_eq!(
        desk.one(Change::Merge { key: key("k"), record: later }),
        Ok(Outcome::Merged { applied: true, more: None })
    );
    assert!(desk.committer.take_contested().is_empty());
}

#[test]
fn a_store_that_may_lack_any_row_takes_copies_whatever_it_once_promised() {
    let mut desk = desk();
    desk.one(prepare("k", 9)).unwrap();
    let held = proposed(&Record::default(), "v", 6);
    desk.committer.note_filling(Some(Lack::ROWS));
    let copy = Change::Merge { key: key("k"), record: held.clone() };
    assert_eq!(desk.one(copy), Ok(Outcome::Merged { applied: true, more: None }));
    // What it was asked to promise before it was filled is not accepted after.
    desk.one(Change::RaiseFloor { stamp: Stamp(20) }).unwrap();
    desk.committer.note_filling(None);
    let floor = Err(Refused::Promised { ballot: Ballot::after_all_of(Stamp(20)) });
    assert_eq!(desk.one(accept("k", &proposed(&held, "w", 9), None)), floor);
    assert_eq!(desk.one(Change::Merge { key: key("k"), record: proposed(&held, "x", 15) }), floor);
}

#[test]
fn a_store_that_lacks_only_what_came_later_takes_of_a_copy_what_goes_with_its_promises() {
    for lack in [Lack::TAIL, Lack::LATER] {
        let mut desk = desk();
        desk.one(prepare("k", 9)).unwrap();
        let beside = foreign(1, 5, "beside");
        let out_of_date = proposed(&Record::default(), "v", 6).merge(&beside);
        desk.committer.note_filling(Some(lack));
        let copy = Change::Merge { key: key("k"), record: out_of_date.clone() };
        assert_eq!(desk.one(copy.clone()), Ok(Outcome::Merged { applied: true, more: None }), "{lack:?}");
        assert_eq!(desk.row("k").map(|row| row.record), Some(beside), "{lack:?}");
        assert_eq!(desk.committer.take_contested(), [key("k")]);
        let later = proposed(&Record::default(), "w", 10);
        desk.one(Change::Merge { key: key("k"), record: later }).unwrap();
        assert_eq!(desk.row("k").and_then(|row| row.record.context().ballot()).map(|held| held.stamp), Some(Stamp(10)));
        desk.check_forest();
    }
}

#[test]
fn only_a_store_that_is_being_filled_lets_go_of_what_it_accepted() {
    let mut desk = desk();
    let held = proposed(&Record::default(), "v", 6);
    desk.one(accept("k", &held, Some(9))).unwrap();
    desk.one(Change::Merge { key: key("k"), record: foreign(1, 5, "beside") }).unwrap();
    let before = desk.row("k");
    assert_eq!(desk.one(Change::Yield { key: key("k") }), Ok(Outcome::Merged { applied: false, more: None }));
    assert_eq!(desk.row("k"), before);
    desk.committer.note_filling(Some(Lack::TAIL));
    assert_eq!(desk.one(Change::Yield { key: key("k") }), Ok(Outcome::Merged { applied: true, more: None }));
    assert_eq!(desk.row("k"), Some(Row::of(foreign(1, 5, "beside"))));
    desk.check_forest();
}

#[test]
fn a_promise_for_a_key_of_which_nothing_is_held_makes_no_row_and_survives_a_restart() {
    let mut desk = desk();
    desk.one(prepare("k", 5)).unwrap();
    assert_eq!(desk.row("k"), None);
    let mut desk = desk_over(desk.store, 10_000);
    assert_eq!(desk.one(prepare("k", 5)), refused(5));
    // Written without consensus meanwhile: the promise holds all the same.
    desk.one(write("k", Seen::Everything, "v")).unwrap();
    assert_eq!(desk.one(accept("k", &proposed(&Record::default(), "late", 4), None)), refused(5));
    assert!(desk.one(prepare("k", 6)).is_ok());
}

#[test]
fn what_is_forgotten_of_a_key_stays_promised() {
    let mut desk = desk();
    let held = proposed(&Record::default(), "v", 5);
    let delete = Proposal::from(Edit::write(Seen::Everything, None));
    let deleted = held.reballot(ballot(7)).propose(&delete, ballot(7).dot(), 0).unwrap();
    desk.one(accept("k", &deleted, Some(11))).unwrap();
    let forget = |record: &Record| vec![(key("k"), record.context().clone())];
    assert_eq!(desk.one(Change::MayForget { keys: forget(&held) }), Ok(Outcome::MayForget(vec![false])));
    assert_eq!(desk.one(Change::MayForget { keys: forget(&deleted) }), Ok(Outcome::MayForget(vec![true])));
    assert_eq!(desk.one(Change::Forget { keys: forget(&deleted) }), Ok(Outcome::Forgotten(1)));
    assert_eq!(desk.row("k"), None);
    let mut desk = desk_over(desk.store, 10_000);
    assert_eq!(desk.one(Change::Merge { key: key("k"), record: held }), refused(11), "it would come back");
    assert_eq!(desk.one(prepare("k", 10)), refused(11));
    assert_eq!(desk.one(Change::MayForget { keys: forget(&deleted) }), Ok(Outcome::MayForget(vec![true])), "again");
    assert!(desk.one(accept("k", &proposed(&deleted, "kept ballot", 11), None)).is_ok(), "who was promised may");
}

#[test]
fn a_store_that_knows_not_what_it_promised_counts_everything_until_now_as_promised() {
    let mut desk = desk();
    let held = proposed(&Record::default(), "v", 5);
    desk.one(accept("k", &held, None)).unwrap();
    desk.one(Change::RaiseFloor { stamp: Stamp(40) }).unwrap();
    let mut desk = desk_over(desk.store, 10_000);
    let floor = Err(Refused::Promised { ballot: Ballot::after_all_of(Stamp(40)) });
    assert_eq!(desk.one(prepare("k", 40)), floor.clone());
    assert_eq!(desk.one(prepare("other", 30)), floor);
    assert!(desk.one(prepare("k", 41)).is_ok());
}

#[test]
fn promises_and_acceptances_are_synced_whatever_the_durability() {
    let files = SimFiles::new(5);
    let options = LogStoreOptions { durability: Durability::None, ..LogStoreOptions::default() };
    let open = |files: &SimFiles| {
        let opened = LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), options.clone());
        desk_over(Arc::new(opened.expect("a sound folder").0), 10_000)
    };
    let mut desk = open(&files);
    desk.one(prepare("promised", 5)).unwrap();
    let held = proposed(&Record::default(), "v", 6);
    desk.one(accept("accepted", &held, Some(9))).unwrap();
    // A copy counts towards a majority as much as what its proposer sent.
    desk.one(Change::Merge { key: key("copied"), record: held.clone() }).unwrap();
    files.crash();
    let mut desk = open(&files);
    assert_eq!(desk.one(prepare("promised", 4)), refused(5));
    assert_eq!(desk.row("accepted"), Some(Row { promised: Some(ballot(9)), record: held.clone() }));
    assert_eq!(desk.row("copied"), Some(Row::of(held)));
    files.fail_syncs(Some(ErrorKind::Other));
    assert!(matches!(desk.one(prepare("promised", 7)), Err(Refused::Fenced(_))), "not promised, as nobody knows");
}

#[test]
fn an_acceptance_under_no_ballot_is_malformed() {
    let mut desk = desk();
    let refused = desk.one(Change::Accept { key: key("k"), record: foreign(1, 5, "v"), next: None });
    assert!(matches!(refused, Err(Refused::Damaged(_))), "{refused:?}");
    assert_eq!(desk.row("k"), None);
}

#[test]
fn promises_that_could_not_be_read_are_kept_when_their_base_is_replaced() {
    let (base, files) = (MemoryBase::new(), SimFiles::new(1));
    let options = LogStoreOptions { heal: true, ..LogStoreOptions::default() };
    let open = |base: &MemoryBase| {
        LogStore::open(Arc::new(files.clone()), Arc::new(base.clone()), options.clone()).expect("it opens").0
    };
    let store = Arc::new(open(&base));
    let mut desk = desk_over(store.clone(), 10_000);
    desk.one(prepare("k", 9)).unwrap();
    store.checkpoint(&mut || ()).unwrap();
    drop(desk);
    // What was promised cannot be read: everything until now counts as promised, in memory.
    let partition = Partition::of(key("k").position());
    base.spoil(&Address::fact(&format!("ballot mark {:04x}", partition.index())));
    let store = Arc::new(open(&base));
    let mut desk = desk_over(store.clone(), 10_000);
    let fresh = MemoryBase::new();
    let make = |mark| {
        fresh.load(&mut std::iter::empty(), mark, &mut || ())?;
        Ok(Arc::new(fresh.clone()) as Arc<dyn Base>)
    };
    desk.committer.replace_base(&store, make).unwrap();
    assert!(matches!(desk.one(prepare("k", 9)), Err(Refused::Promised { .. })));
    drop(desk);
    let mut desk = desk_over(Arc::new(open(&fresh)), 10_000);
    assert!(matches!(desk.one(prepare("k", 9)), Err(Refused::Promised { .. })), "after a restart");
}
