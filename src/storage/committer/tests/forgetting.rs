//! What the committer agrees to forget, and forgets.

use super::*;
use crate::record::Context;
use crate::storage::{Contexts, Durability};

/// A desk whose partitions have seen what `contexts` says.
fn desk_having_seen(name: &str, dots: &[(u64, u64)]) -> Desk {
    let desk = desk();
    let mut seen = Context::new();
    dots.iter().for_each(|&(actor, stamp)| seen.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) }));
    let partition = Partition::of(key(name).position());
    desk.contexts.change(|contexts| contexts.join(partition, &seen));
    desk
}

impl Desk {
    fn notes(&self) -> Vec<Key> {
        let page = self.store.scan(&Span::kind(Kind::Due), PageSize::rows(100)).unwrap();
        page.rows.iter().map(|(address, _)| address.key().unwrap()).collect()
    }

    fn kept_contexts(&self) -> Contexts {
        let bytes = self.store.read(&Address::fact(CONTEXTS_FACT)).unwrap();
        bytes.map_or_else(Contexts::default, |bytes| Contexts::decode(&bytes))
    }
}

#[test]
fn what_may_be_forgotten_is_noted_beside_the_row_as_long_as_it_may() {
    let mut desk = desk();
    let delete = || Change::Write { key: key("k"), edit: Edit::write(Seen::Everything, None), until: Stamp::MAX };
    desk.one(write("k", Seen::Everything, "v")).unwrap();
    assert!(desk.notes().is_empty());
    desk.one(delete()).unwrap();
    assert_eq!(desk.notes(), [key("k")]);
    desk.one(write("k", Seen::Everything, "again")).unwrap();
    assert!(desk.notes().is_empty());
    desk.one(delete()).unwrap();
    let context = desk.row("k").unwrap().record.context().clone();
    assert_eq!(desk.one(Change::Forget { keys: vec![(key("k"), context)] }), Ok(Outcome::Forgotten(1)));
    assert_eq!((desk.row("k"), desk.notes()), (None, Vec::new()));
    desk.check_forest();
}

#[test]
fn a_store_agrees_to_forget_what_it_has_seen_and_does_not_show_and_keeps_by_what_it_answers() {
    let mut desk = desk_having_seen("k", &[(1, 5), (2, 9)]);
    let asked = |dots: &[(u64, u64)]| {
        let mut context = Context::new();
        dots.iter().for_each(|&(actor, stamp)| context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) }));
        Change::MayForget { keys: vec![(key("k"), context)] }
    };
    for (dots, may) in [(&[(1, 5)][..], true), (&[(1, 6)], false), (&[(1, 5), (2, 9)], true), (&[(3, 1)], false)] {
        assert_eq!(desk.one(asked(dots)), Ok(Outcome::MayForget(vec![may])), "{dots:?}");
    }
    let partition = Partition::of(key("k").position());
    let covers = |actor, stamp| {
        let dot = Dot { stamp: Stamp(stamp), actor: Actor(actor) };
        desk.kept_contexts().covers(partition, Actor(7), Stamp(0), dot)
    };
    assert!(covers(2, 9) && !covers(2, 10), "durable with the answer");
    let mut desk = desk_having_seen("k", &[(1, 4)]);
    desk.one(Change::Merge { key: key("k"), record: foreign(1, 5, "v") }).unwrap();
    desk.contexts.change(|contexts| contexts.join(partition, foreign(1, 5, "v").context()));
    assert_eq!(desk.one(asked(&[(1, 5)])), Ok(Outcome::MayForget(vec![false])), "it is live here");
    assert_eq!(
        desk.one(Change::Forget { keys: vec![(key("k"), foreign(1, 5, "v").context().clone())] }),
        Ok(Outcome::Forgotten(0))
    );
    assert!(desk.row("k").is_some());
}

#[test]
fn a_power_cut_takes_back_nothing_that_was_agreed_to_however_seldom_is_synced() {
    let dot = Dot { stamp: Stamp(5), actor: Actor(1) };
    let (partition, old) = (Partition::of(key("k").position()), foreign(1, 5, "old"));
    for (seed, durability) in (0..20).zip([Durability::None, Durability::Interval { ms: 1_000 }].into_iter().cycle()) {
        let files = SimFiles::new(seed);
        let open = || {
            let options = LogStoreOptions { durability, ..LogStoreOptions::default() };
            Arc::new(LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), options).expect("a folder").0)
        };
        let mut desk = desk_over(open(), 10_000);
        desk.one(Change::Merge { key: key("k"), record: old.clone() }).unwrap();
        desk.store.sync().unwrap();
        let delete = Edit::write(Seen::Everything, None);
        desk.one(Change::Write { key: key("k"), edit: delete, until: Stamp::MAX }).unwrap();
        desk.contexts.change(|contexts| contexts.join(partition, old.context()));
        let asked = Change::MayForget { keys: vec![(key("k"), old.context().clone())] };
        assert_eq!(desk.one(asked.clone()), Ok(Outcome::MayForget(vec![true])));
        files.crash();
        let mut desk = desk_over(open(), 10_000);
        assert!(desk.row("k").is_some_and(|row| row.record.is_tombstone()), "seed {seed}: {:?}", desk.row("k"));
        let kept = desk.kept_contexts();
        assert!(kept.covers(partition, Actor(99), Stamp(0), dot), "seed {seed}: {kept:?}");
        // Without a sync there is no agreement.
        desk.contexts.change(|contexts| *contexts = kept);
        files.fail_syncs(Some(ErrorKind::Other));
        let outcomes = desk.committer.commit(1_000, vec![write("other", Seen::Everything, "v"), asked]);
        assert!(outcomes[0].is_ok() && matches!(outcomes[1], Err(Refused::Fenced(_))), "seed {seed}: {outcomes:?}");
    }
}

#[test]
fn a_late_copy_of_what_was_forgotten_is_dropped_and_its_bearer_told() {
    let mut desk = desk_having_seen("k", &[(1, 5)]);
    let late = foreign(1, 5, "late");
    let outcome = desk.one(Change::Merge { key: key("k"), record: late.clone() });
    let Ok(Outcome::Merged { more: Some(more), .. }) = outcome else { panic!("{outcome:?}") };
    assert!(desk.row("k").unwrap().record.is_tombstone());
    assert!(late.merge(&more).is_tombstone(), "who merges the answer drops it too");
    let new = foreign(1, 6, "new");
    assert_eq!(
        desk.one(Change::Merge { key: key("k"), record: new.clone() }),
        Ok(Outcome::Merged { applied: true, more: None })
    );
    assert_eq!(values(&desk.row("k").unwrap().record), [b"new"]);
    let dot = Dot { stamp: Stamp(6), actor: Actor(1) };
    desk.one(Change::Cover { key: key("k"), other: foreign(1, 4, "older"), dot }).unwrap();
    assert_eq!(values(&desk.row("k").unwrap().record), [b"new"]);
    desk.check_forest();
}

#[test]
fn a_name_taken_after_rot_is_kept_before_anything_is_forgotten_by_it() {
    let mut desk = desk();
    Partition::all().for_each(|partition| desk.forest.mark_built(partition));
    desk.contexts.change(|contexts| contexts.begin(Actor(7), Stamp(0)));
    desk.one(write("k", Seen::Everything, "v")).unwrap();
    let record = desk.row("k").unwrap().record;
    desk.store.append(vec![(Address::data(&key("k")), Some(Bytes::from_static(b"rot")))], Stamp(0)).unwrap();
    desk.one(Change::Restore { key: key("k"), record }).unwrap();
    let present = desk.committer.actor();
    assert_ne!(present, Actor(7));
    desk.one(write("other", Seen::Everything, "v")).unwrap();
    // As the next start does.
    let (mut kept, last) = (desk.kept_contexts(), desk.committer.committed_stamp());
    kept.begin(Actor(99), last);
    let partition = Partition::of(key("other").position());
    assert!(kept.covers(partition, Actor(99), last, Dot { stamp: last, actor: present }));
}

#[test]
fn a_rotten_row_that_the_others_have_forgotten_is_let_go_of_and_one_that_nobody_else_had_is_not() {
    for deleted in [true, false] {
        let mut desk = desk();
        Partition::all().for_each(|partition| desk.forest.mark_built(partition));
        desk.one(write("k", Seen::Everything, "v")).unwrap();
        if deleted {
            let delete = Edit::write(Seen::Everything, None);
            desk.one(Change::Write { key: key("k"), edit: delete, until: Stamp::MAX }).unwrap();
        }
        desk.store.append(vec![(Address::data(&key("k")), Some(Bytes::from_static(b"rot")))], Stamp(0)).unwrap();
        let outcome = desk.one(Change::Restore { key: key("k"), record: Record::default() });
        assert_eq!(outcome.is_ok(), deleted, "{outcome:?}");
        let left = desk.store.read(&Address::data(&key("k"))).unwrap();
        assert_eq!((left.is_none(), desk.notes().is_empty()), (deleted, true), "deleted: {deleted}");
    }
}
