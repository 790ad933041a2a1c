//! What the committer promises, told on a store in memory and on a disk that breaks.

mod consensus;
mod forgetting;
mod hinting;
mod limiting;

use super::*;
use crate::placement::Partition;
use crate::record::{Content, Seen};
use crate::storage::sim_files::SimFiles;
use crate::storage::{Kind, LogStore, LogStoreOptions, MemoryBase, MemoryStore, PageSize, Sequence, Span};
use proptest::prelude::*;
use std::io::ErrorKind;

struct Desk {
    committer: Committer,
    store: Arc<dyn Store>,
    forest: Arc<Forest>,
    feed: Arc<Feed>,
    hints: Arc<HintLedger>,
    contexts: Arc<ContextLedger>,
}

fn desk_over(store: Arc<dyn Store>, hint_bytes_max: u64) -> Desk {
    let (forest, hints) = (Arc::new(Forest::new()), Arc::new(HintLedger::new(hint_bytes_max)));
    let feed = Arc::new(Feed::new(1, 1_000, 1 << 20));
    let clock = Clock::starting_after(store.last_stamp());
    let (forest2, feed2, hints2) = (forest.clone(), feed.clone(), hints.clone());
    let contexts = Arc::<ContextLedger>::default();
    let committer = Committer::new(store.clone(), forest2, feed2, hints2, contexts.clone(), Actor(7), clock);
    Desk { committer, store, forest, feed, hints, contexts }
}

fn desk() -> Desk {
    desk_over(Arc::new(MemoryStore::new()), 10_000)
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).unwrap()
}

fn content(value: &str) -> Option<Content> {
    Some(Content::plain(value.as_bytes().to_vec()))
}

fn write(name: &str, seen: Seen, value: &str) -> Change {
    Change::Write { key: key(name), edit: Edit::write(seen, content(value)), until: Stamp::MAX }
}

/// A record as some other node wrote it.
fn foreign(actor: u64, stamp: u64, value: &str) -> Record {
    let dot = Dot { stamp: Stamp(stamp), actor: Actor(actor) };
    Record::default().write(&Seen::Everything, dot, content(value)).unwrap()
}

fn values(record: &Record) -> Vec<&[u8]> {
    record.siblings().iter().map(|sibling| &*sibling.content.value).collect()
}

fn written(outcome: &Result<Outcome, Refused>) -> (bool, &Record) {
    match outcome {
        Ok(Outcome::Written { created, record }) => (*created, record),
        other => panic!("{other:?}"),
    }
}

impl Desk {
    fn one(&mut self, change: Change) -> Result<Outcome, Refused> {
        self.committer.commit(1_000, vec![change]).remove(0)
    }

    /// All that those were told who follow from the beginning.
    fn followed(&self) -> Vec<Arc<crate::protocol::ToldChange>> {
        use crate::protocol::{FeedOf, FeedPlace, Follow};
        let after = Some(FeedPlace { incarnation: 1, sequence: 0 });
        let follow = Follow { of: FeedOf::Changes, after, prefixes: vec![vec![]], values: false, wait_ms: 0 };
        let told = self.feed.page(&follow).entries.into_iter().map(|entry| match entry.news {
            News::Change(change) => change,
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn row(&self, name: &str) -> Option<Row> {
        self.store.read(&Address::data(&key(name))).unwrap().map(|bytes| Row::decode(&bytes).unwrap())
    }

    /// Whether the digests are those of what is stored.
    fn check_forest(&self) {
        let twin = Forest::new();
        let page = self.store.scan(&Span::kind(Kind::Data), PageSize::rows(10_000)).unwrap();
        for (address, row) in page.rows {
            let (key, record) = (address.key().unwrap(), Row::decode(&row).unwrap().record);
            let entry = crate::storage::digest_entry(&record, record.version(&key)).unwrap();
            twin.add_scanned(key.position(), entry);
        }
        assert_eq!(self.forest.root(Partition::all()), twin.root(Partition::all()));
        for partition in Partition::all() {
            assert_eq!(self.forest.live(partition), twin.live(partition));
            assert_eq!(self.forest.tombstones(partition), twin.tombstones(partition));
        }
    }
}

#[test]
fn changes_of_one_key_in_one_batch_see_one_another_and_share_one_append() {
    let mut desk = desk();
    let blind = Seen::Only(Default::default());
    let outcomes = desk.committer.commit(
        1_000,
        vec![
            write("k", Seen::Everything, "first"),
            write("k", blind.clone(), "beside"),
            Change::Merge { key: key("k"), record: foreign(1, 5, "elsewhere") },
            write("other", Seen::Everything, "x"),
        ],
    );
    assert_eq!((written(&outcomes[0]).0, written(&outcomes[1]).0, written(&outcomes[3]).0), (true, false, true));
    assert_eq!(values(written(&outcomes[1]).1), [&b"first"[..], b"beside"]);
    assert_eq!(values(&desk.row("k").unwrap().record), [&b"elsewhere"[..], b"first", b"beside"]);
    assert_eq!(desk.store.last_sequence(), Sequence(1));
    let told = desk.followed();
    let shown: Vec<_> = told.iter().map(|change| (change.key.as_bytes(), change.siblings)).collect();
    // What came from elsewhere is told there.
    assert_eq!(shown, [(&b"k"[..], 1), (b"k", 2), (b"other", 1)]);
    let made: Vec<Dot> = [0, 1, 3].map(|at| written(&outcomes[at]).1.context().newest().unwrap()).into();
    assert_eq!(told.iter().map(|change| change.id).collect::<Vec<_>>(), made);
    desk.check_forest();
}

#[test]
fn a_merge_that_changes_nothing_appends_nothing_and_says_what_more_is_held() {
    let mut desk = desk();
    let (old, new) = (foreign(1, 5, "old"), foreign(2, 6, "new"));
    let merge = |record: &Record| Change::Merge { key: key("k"), record: record.clone() };
    assert_eq!(desk.one(merge(&old)), Ok(Outcome::Merged { applied: true, more: None }));
    let both = old.merge(&new);
    assert_eq!(desk.one(merge(&new)), Ok(Outcome::Merged { applied: true, more: Some(both.clone()) }));
    assert_eq!(desk.one(merge(&old)), Ok(Outcome::Merged { applied: false, more: Some(both.clone()) }));
    assert_eq!(desk.one(merge(&both)), Ok(Outcome::Merged { applied: false, more: None }));
    assert_eq!(desk.store.last_sequence(), Sequence(2));
}

#[test]
fn stamps_rise_above_everything_seen_and_survive_in_the_store() {
    let mut desk = desk();
    let seen = Stamp::from_ms(50_000);
    desk.one(Change::Merge { key: key("a"), record: foreign(1, seen.0, "a") }).unwrap();
    let outcome = desk.one(write("b", Seen::Everything, "b"));
    let dot = written(&outcome).1.latest().unwrap().dot;
    assert!(dot.stamp > seen && dot.actor == Actor(7));
    assert_eq!(desk.store.last_stamp(), dot.stamp);
    desk.committer.note_stamp(Stamp::from_ms(60_000), 1_000).unwrap();
    let outcome = desk.one(write("b", Seen::Everything, "b"));
    assert!(written(&outcome).1.latest().unwrap().dot.stamp > Stamp::from_ms(60_000));
}

#[test]
fn a_poisoned_stamp_is_refused_wherever_it_hides_and_spoils_nothing_else() {
    let mut desk = desk();
    let poison = foreign(1, u64::MAX - 5, "x");
    let context = poison.context().clone();
    let targets = vec!["http://a".into()];
    let dot = Dot { stamp: Stamp(u64::MAX), actor: Actor(7) };
    let outcomes = desk.committer.commit(
        1_000,
        vec![
            Change::Merge { key: key("k"), record: poison.clone() },
            write("k", Seen::Only(context.clone()), "v"),
            Change::Hint { key: key("k"), record: poison.clone(), targets: targets.clone() },
            Change::HintWrite { key: key("k"), edit: Edit::write(Seen::Only(context), content("v")), targets },
            Change::Cover { key: key("k"), other: poison, dot: Dot { stamp: Stamp(1), actor: Actor(1) } },
            Change::Cover { key: key("k"), other: Record::default(), dot },
            write("k", Seen::Everything, "good"),
        ],
    );
    for outcome in &outcomes[..6] {
        assert!(matches!(outcome, Err(Refused::StampAhead(_))), "{outcome:?}");
    }
    assert!(written(&outcomes[6]).0);
    assert_eq!(values(&desk.row("k").unwrap().record), [b"good"]);
    assert!(desk.committer.last_stamp() < Stamp::from_ms(70_000));
}

#[test]
fn a_second_round_covers_what_another_owner_showed() {
    let mut desk = desk();
    let outcome = desk.one(write("k", Seen::Everything, "mine"));
    let dot = written(&outcome).1.latest().unwrap().dot;
    let other = foreign(1, 5, "older, elsewhere");
    let cover = Change::Cover { key: key("k"), other: other.clone(), dot };
    let outcome = desk.one(cover.clone());
    assert_eq!(values(written(&outcome).1), [b"mine"]);
    assert!(desk.row("k").unwrap().record.includes(&other));
    let before = desk.store.last_sequence();
    desk.one(cover).unwrap();
    assert_eq!(desk.store.last_sequence(), before, "covering twice changes nothing");
}

#[test]
fn a_promise_stays_with_its_row_and_a_damaged_row_stays_as_it_is() {
    let mut desk = desk();
    let promised = Some(crate::record::Ballot { stamp: Stamp(3), actor: Actor(4) });
    let row = Row { promised, record: Record::default() };
    let rows = vec![
        (Address::data(&key("promised")), Some(row.encode())),
        (Address::data(&key("damaged")), Some(Bytes::from_static(b"rot"))),
        (Address::hint(&key("damaged")), Some(Bytes::from_static(b"rot"))),
    ];
    desk.store.append(rows, Stamp(0)).unwrap();
    let desk_feed = Feed::new(1, 10, 1 << 20);
    desk.committer.feed = Arc::new(desk_feed);
    assert!(written(&desk.one(write("promised", Seen::Everything, "v"))).0, "a promise is no value");
    assert_eq!(desk.row("promised").unwrap().promised, promised);
    let damaged = |outcome| assert!(matches!(outcome, Err(Refused::Damaged(_))), "{outcome:?}");
    damaged(desk.one(write("damaged", Seen::Everything, "v")));
    damaged(desk.one(Change::Merge { key: key("damaged"), record: foreign(1, 5, "v") }));
    assert_eq!(desk.committer.take_damaged(), [key("damaged"), key("damaged")]);
    assert_eq!(desk.store.read(&Address::data(&key("damaged"))), Ok(Some(Bytes::from_static(b"rot"))));
    // What was in a damaged hint is lost; it does not keep later ones away.
    let targets = vec!["http://a".into()];
    let hint = desk.one(Change::Hint { key: key("damaged"), record: foreign(1, 5, "v"), targets });
    assert_eq!(hint, Ok(Outcome::Merged { applied: true, more: None }));
}

#[test]
fn a_damaged_row_is_restored_from_the_others_and_its_digest_with_it() {
    let mut desk = desk();
    Partition::all().for_each(|partition| desk.forest.mark_built(partition));
    desk.one(write("k", Seen::Everything, "first")).unwrap();
    let copy = desk.row("k").unwrap().record;
    desk.one(write("k", Seen::Only(Default::default()), "second")).unwrap();
    let lost = desk.row("k").unwrap().record.latest().unwrap().dot;
    desk.one(write("other", Seen::Everything, "sound")).unwrap();
    let rotten = vec![(Address::data(&key("k")), Some(Bytes::from_static(b"rot")))];
    desk.store.append(rotten, Stamp(0)).unwrap();
    desk.committer.feed = Arc::new(Feed::new(1, 10, 1 << 20));
    // The others know nothing: then what is here may be all there is, and stays.
    let nothing = Change::Restore { key: key("k"), record: Record::default() };
    assert!(matches!(desk.one(nothing), Err(Refused::Damaged(_))));
    let restored = desk.one(Change::Restore { key: key("k"), record: copy.clone() });
    assert_eq!(restored, Ok(Outcome::Merged { applied: true, more: None }));
    assert_eq!(desk.row("k").unwrap().record, copy);
    desk.check_forest();
    // "second" is lost here, and may live elsewhere: a write from here must not claim to have seen it.
    let third = desk.one(write("k", Seen::Everything, "third"));
    assert!(!written(&third).1.context().covers(lost), "{third:?}");
    // Restored again, now a row that is sound, it is a merge like any other.
    let again = desk.one(Change::Restore { key: key("k"), record: foreign(9, 5, "old") });
    assert!(matches!(again, Ok(Outcome::Merged { applied: true, .. })));
    assert_eq!(desk.row("k").unwrap().record.siblings().len(), 2);
}

#[test]
fn a_name_for_hints_is_never_one_for_rows_also_where_a_row_is_restored_right_after_the_start() {
    let mut desk = desk();
    Partition::all().for_each(|partition| desk.forest.mark_built(partition));
    let rotten = vec![(Address::data(&key("k")), Some(Bytes::from_static(b"rot")))];
    desk.store.append(rotten, Stamp(0)).unwrap();
    desk.committer.feed = Arc::new(Feed::new(1, 10, 1 << 20));
    // No stamp was made or heard of since: both names come from the same.
    let (actor, before) = (desk.committer.actor(), desk.committer.last_stamp());
    let restored = desk.one(Change::Restore { key: key("k"), record: foreign(1, 0, "v") });
    assert_eq!(restored, Ok(Outcome::Merged { applied: true, more: None }));
    assert_eq!(desk.committer.last_stamp(), before);
    assert_ne!(desk.committer.actor(), actor);
    assert_ne!(desk.committer.actor(), desk.committer.hint_actor);
}

#[test]
fn digests_that_went_wrong_are_counted_anew() {
    let mut desk = desk();
    Partition::all().for_each(|partition| desk.forest.mark_built(partition));
    desk.one(write("k", Seen::Everything, "v")).unwrap();
    let odd = crate::merkle::Entry { digest: crate::merkle::VersionDigest(1), live: true };
    desk.forest.apply(key("k").position(), None, Some(odd));
    desk.one(Change::Recount { partition: Partition::of(key("k").position()) }).unwrap();
    desk.check_forest();
}

#[test]
fn an_expired_value_counts_as_none_for_created() {
    let mut desk = desk();
    let brief = Content { expires_ms: Some(1_500), ..Content::plain("brief") };
    let put = |content: &Content| {
        vec![Change::Write {
            key: key("k"),
            edit: Edit::write(Seen::Everything, Some(content.clone())),
            until: Stamp::MAX,
        }]
    };
    assert!(written(&desk.committer.commit(1_000, put(&brief))[0]).0);
    assert!(!written(&desk.committer.commit(1_400, put(&brief))[0]).0);
    assert!(written(&desk.committer.commit(1_500, put(&brief))[0]).0);
}

#[test]
fn hints_live_until_each_target_has_what_they_hold() {
    let mut desk = desk();
    let targets: Vec<MemberName> = vec!["http://b".into(), "http://a".into()];
    let hint_write = |value| Change::HintWrite {
        key: key("k"),
        edit: Edit::write(Seen::Everything, content(value)),
        targets: targets.clone(),
    };
    let first = desk.one(hint_write("one"));
    let (created, first) = written(&first);
    assert!(created && desk.row("k").is_none(), "a hint is no copy of one's own");
    let delivered = |record: &Record, target: &str| Change::HintDelivered {
        key: key("k"),
        record: record.clone(),
        target: target.into(),
        life: None,
    };
    // It grew meanwhile, so what was delivered is not all of it.
    let second = desk.one(hint_write("two"));
    let second = written(&second).1.clone();
    desk.one(delivered(first, "http://a")).unwrap();
    assert_eq!(desk.hints.status().len(), 2);
    desk.one(delivered(&second, "http://a")).unwrap();
    desk.one(delivered(&second, "http://nobody")).unwrap();
    assert_eq!((desk.hints.has_any("http://a"), desk.hints.has_any("http://b")), (false, true));
    let rescanned = HintLedger::scan(&*desk.store, 10_000).0;
    assert_eq!(rescanned.status(), desk.hints.status());
    desk.one(delivered(&second, "http://b")).unwrap();
    assert_eq!(desk.store.read(&Address::hint(&key("k"))), Ok(None));
    assert_eq!(desk.hints.status(), []);
    let before = desk.store.last_sequence();
    desk.one(delivered(&second, "http://b")).unwrap();
    assert_eq!(desk.store.last_sequence(), before);
}

#[test]
fn hints_are_bounded_for_each_target_also_within_a_batch() {
    let mut desk = desk_over(Arc::new(MemoryStore::new()), 1_000);
    let hint = |name: &str, target: &str| Change::Hint {
        key: key(name),
        record: foreign(1, 5, &"x".repeat(300)),
        targets: vec![target.into()],
    };
    let batch = vec![hint("1", "a"), hint("2", "a"), hint("3", "a"), hint("3", "b"), hint("1", "a")];
    let outcomes = desk.committer.commit(1_000, batch);
    assert_eq!(outcomes[2], Err(Refused::HintsFull { target: "a".into() }));
    assert!(outcomes.iter().enumerate().all(|(at, outcome)| outcome.is_ok() == (at != 2)), "{outcomes:?}");
    assert_eq!(desk.one(hint("4", "a")), Err(Refused::HintsFull { target: "a".into() }));
    assert_eq!(desk.store.read(&Address::hint(&key("4"))), Ok(None));
    let nobody = Change::Hint { key: key("k"), record: foreign(1, 5, "v"), targets: vec![] };
    assert_eq!(desk.one(nobody), Err(Refused::NoTargets));
}

#[test]
fn a_fact_is_replaced_as_a_whole() {
    let mut desk = desk();
    let fact = |text: &'static str| Change::Fact { name: "layout", bytes: Bytes::from_static(text.as_bytes()) };
    let outcomes = desk.committer.commit(1, vec![fact("1"), fact("2")]);
    assert_eq!(outcomes, [Ok(Outcome::Done), Ok(Outcome::Done)]);
    assert_eq!(desk.store.read(&Address::fact("layout")), Ok(Some(Bytes::from_static(b"2"))));
    desk.one(fact("2")).unwrap();
    assert_eq!(desk.store.last_sequence(), Sequence(1));
}

#[test]
fn a_failed_append_refuses_the_whole_batch_and_shows_nothing_of_it() {
    let files = SimFiles::new(1);
    let opened = LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), LogStoreOptions::default());
    let mut desk = desk_over(Arc::new(opened.unwrap().0), 10_000);
    desk.one(write("k", Seen::Everything, "before")).unwrap();
    let (digest, stamp) = (desk.forest.root(Partition::all()), desk.committer.last_stamp());
    files.fail_writes(Some(ErrorKind::StorageFull));
    let held = desk.row("k").unwrap().record;
    let no_op = Change::Merge { key: key("k"), record: held };
    let hint = Change::Hint { key: key("k"), record: foreign(1, 5, "v"), targets: vec!["a".into()] };
    let batch = vec![no_op.clone(), write("k", Seen::Everything, "during"), hint.clone()];
    for outcome in desk.committer.commit(1_000, batch.clone()) {
        assert!(matches!(outcome, Err(Refused::ReadOnly(_))), "{outcome:?}");
    }
    assert_eq!(desk.one(no_op), Ok(Outcome::Merged { applied: false, more: None }));
    assert_eq!((desk.forest.root(Partition::all()), desk.hints.status()), (digest, vec![]));
    assert_eq!(desk.followed().len(), 1, "what was refused is not told");
    assert_eq!(values(&desk.row("k").unwrap().record), [b"before"]);
    assert_eq!(desk.committer.committed_stamp(), stamp);
    assert!(desk.committer.last_stamp() > stamp);
    files.fail_writes(None);
    // The stamp that was spent is not made again: its write may yet surface.
    let outcome = desk.one(write("k", Seen::Everything, "after"));
    assert!(written(&outcome).1.latest().unwrap().dot.stamp > Stamp(stamp.0 + 1));
    files.fail_syncs(Some(ErrorKind::Other));
    for outcome in desk.committer.commit(1_000, batch) {
        assert!(matches!(outcome, Err(Refused::Fenced(_))), "{outcome:?}");
    }
    desk.check_forest();
}

#[derive(Clone, Debug)]
struct Step {
    name: u8,
    what: u8,
    actor: u64,
    stamp: u64,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step =
        (0..4u8, 0..7u8, 1..4u64, 1..40u64).prop_map(|(name, what, actor, stamp)| Step { name, what, actor, stamp });
    prop::collection::vec(prop::collection::vec(step, 1..6), 1..12)
}

proptest! {
    #[test]
    fn digests_hints_and_feed_follow_whatever_is_committed(batches in steps()) {
        let mut desk = desk();
        for (wall, batch) in batches.into_iter().enumerate() {
            let changes = batch.iter().map(|step| {
                let name = step.name.to_string();
                let record = foreign(step.actor, step.stamp, "v");
                let targets: Vec<MemberName> = vec![step.actor.to_string().into()];
                let blind = Seen::Only(Default::default());
                match step.what {
                    0 => write(&name, Seen::Everything, "v"),
                    1 => write(&name, blind, "v"),
                    2 => Change::Write { key: key(&name), edit: Edit::write(Seen::Everything, None), until: Stamp::MAX },
                    3 => Change::Merge { key: key(&name), record },
                    4 => Change::Hint { key: key(&name), record, targets },
                    5 => {
                        let target = step.actor.to_string().into();
                        Change::HintDelivered { key: key(&name), record, target, life: Some(1) }
                    }
                    _ => Change::HintWrite { key: key(&name), edit: Edit::write(blind, None), targets },
                }
            });
            let outcomes = desk.committer.commit(wall as u64, changes.collect());
            prop_assert!(outcomes.iter().all(Result::is_ok));
        }
        desk.check_forest();
        prop_assert_eq!(HintLedger::scan(&*desk.store, 1).0.status(), desk.hints.status());
    }
}

#[test]
fn a_write_makes_no_dot_where_something_later_than_its_bound_is_known() {
    let mut desk = desk();
    let bounded = |until| Change::Write { key: key("k"), edit: Edit::write(Seen::Everything, content("late")), until };
    let record = written(&desk.one(write("k", Seen::Everything, "first"))).1.clone();
    let latest = record.context().latest().unwrap();
    let before = Stamp(latest.0 - 1);
    assert_eq!(desk.one(bounded(before)), Err(Refused::Overtaken { latest }));
    assert_eq!(values(&desk.row("k").unwrap().record), [b"first"]);
    // A delete is something later as well.
    let deleted = Change::Write { key: key("k"), edit: Edit::write(Seen::Everything, None), until: Stamp::MAX };
    let gone = written(&desk.one(deleted)).1.context().latest().unwrap();
    assert_eq!(desk.one(bounded(latest)), Err(Refused::Overtaken { latest: gone }));
    assert!(desk.row("k").unwrap().record.is_tombstone());
    assert_eq!(values(written(&desk.one(bounded(gone))).1), [b"late"]);
}
