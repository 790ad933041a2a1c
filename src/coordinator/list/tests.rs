//! Pages of copies that differ, from members that fail, against a dumb twin.

use super::super::Count;
use super::*;
use crate::operation::Failure;
use crate::placement::{ClusterId, Layout, Member, Mode};
use crate::protocol::Refusal;
use crate::record::{Actor, Content, Dot, Seen, Stamp};
use proptest::prelude::*;
use std::collections::BTreeSet;

const MEMBERS: usize = 5;
const NOW_MS: u64 = 1_000;

fn ring() -> Arc<Ring> {
    ring_of(MEMBERS)
}

fn ring_of(members: usize) -> Arc<Ring> {
    let members = (0..members).map(|node| Member::new(format!("http://n{node}:1"))).collect();
    Arc::new(Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap()))
}

fn member(number: usize) -> MemberIndex {
    ring().members().nth(number).expect("a member")
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned()).unwrap()
}

fn write(record: &Record, stamp: u64, value: Option<&str>) -> Record {
    let content = value.map(|value| Content::plain(value.to_owned()));
    record.write(&Seen::Everything, Dot { stamp: Stamp(stamp), actor: Actor(1) }, content).unwrap()
}

fn options(count: Count) -> ListOptions {
    let quorum = Quorum::of(count, 3).unwrap();
    ListOptions { quorum, hard: false, patience_ms: 100, behind: Vec::new(), avoid: Vec::new(), now_ms: NOW_MS }
}

fn wish(prefix: &str, delimiter: &str, from: Place, items_max: usize) -> ListWish {
    let filter = Filter { prefix: prefix.to_owned().into(), delimiter: delimiter.to_owned().into() };
    ListWish { partitions: Partition::all().collect(), filter, from, items_max, listing: None }
}

/// What each member holds.
type Copies = Vec<BTreeMap<Key, Record>>;

/// What a member answers, of no more than so many keys.
fn answer(held: &BTreeMap<Key, Record>, request: &ListRequest, keys_max: usize) -> ListAnswer {
    let mut answer = ListAnswer { entries: Vec::new(), next: None, lacking: Vec::new() };
    let mut passed = request.from.clone();
    let wanted = |key: &&Key| {
        key.as_bytes().starts_with(&request.filter.prefix)
            && request.partitions.contains(&Partition::of(key.position()))
    };
    for (key, record) in held.iter().filter(|(key, _)| wanted(key)) {
        if passed.is_behind(key.as_bytes()) {
            continue;
        }
        if answer.entries.len() == keys_max.min(request.keys_max as usize) {
            answer.next = Some(Place::of(key));
            break;
        }
        let group = request.filter.common_prefix(key.as_bytes()).filter(|_| record.winner(NOW_MS).is_some());
        let (key, record) = (key.clone(), record.sketch());
        let past = group.map(|group| Place::past(group).expect("no group of the last bytes"));
        answer.entries.push(ListEntry { key, record, stands_for_all: past.is_some() });
        passed = past.unwrap_or(passed);
    }
    answer
}

/// A stream of choices.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(*self.0.next().unwrap()) % count
    }
}

struct Told {
    outcome: ListOutcome,
    /// Who was asked of each partition.
    asked: BTreeMap<Partition, BTreeSet<MemberIndex>>,
}

/// Runs a machine to its end. `fate` answers a call, or fails it, or is silent.
fn run(
    mut list: List,
    choices: &mut Choices<'_>,
    mut fate: impl FnMut(MemberIndex, &ListRequest, &mut Choices<'_>) -> Option<Result<ListAnswer, ()>>,
) -> Told {
    let (mut waiting, mut commands, mut asked) = (Vec::new(), Vec::new(), BTreeMap::<_, BTreeSet<_>>::new());
    let mut outcome = list.on(Event::Start, &mut commands);
    let mut turns = 0;
    loop {
        for command in commands.drain(..) {
            if let Command::Call { call, to, request: Request::List(request) } = command {
                for partition in &request.partitions {
                    assert!(asked.entry(*partition).or_default().insert(to), "{to:?} is asked twice of {partition}");
                }
                let event = match fate(to, &request, choices) {
                    Some(Ok(answer)) => Some(Event::Answered { call, answer: Answer::Listed(answer) }),
                    Some(Err(())) if choices.below(2) == 0 => {
                        Some(Event::Answered { call, answer: Answer::Refused(Refusal::Unreadable) })
                    }
                    Some(Err(())) => Some(Event::Failed { call, failure: Failure::Unreachable }),
                    None => None,
                };
                waiting.extend(event);
            }
        }
        if let Some(outcome) = outcome {
            assert!(list.is_done());
            return Told { outcome, asked };
        }
        turns += 1;
        let event = match waiting.is_empty() {
            true if turns > 100 => Event::Deadline,
            true => Event::Woken,
            false => waiting.swap_remove(choices.below(waiting.len())),
        };
        outcome = list.on(event, &mut commands);
    }
}

#[derive(Clone, Debug)]
struct Story {
    /// Three, who all keep every key, or more.
    members: usize,
    /// Each key with what became of it, 0 to 3, and which version each of its owners holds, 0 to 2.
    keys: BTreeMap<String, (usize, [usize; 3])>,
    prefix: String,
    delimiter: &'static str,
    items_max: usize,
    choices: Vec<u8>,
}

fn story() -> impl Strategy<Value = Story> {
    let held = (0..4usize, [0..3usize, 0..3usize, 0..3usize]);
    (
        prop::sample::select(vec![3, MEMBERS]),
        prop::collection::btree_map("[ab/]{1,4}", held, 1..40),
        "[ab/]{0,1}",
        prop::sample::select(vec!["", "/", "b"]),
        1..12usize,
        prop::collection::vec(any::<u8>(), 50),
    )
        .prop_map(|(members, keys, prefix, delimiter, items_max, choices)| Story {
            members,
            keys,
            prefix,
            delimiter,
            items_max,
            choices,
        })
}

/// The versions of a key: nothing, a value, and what it became.
fn versions(fate: usize) -> [Option<Record>; 3] {
    let first = write(&Record::default(), 1, Some("first"));
    let last = match fate {
        0 => write(&first, 2, None),
        _ => write(&first, 2, Some("last")),
    };
    [None, Some(first), Some(last)]
}

fn copies(ring: &Ring, story: &Story) -> Copies {
    let mut copies = vec![BTreeMap::new(); MEMBERS];
    for (name, (fate, held)) in &story.keys {
        let (key, versions) = (key(name), versions(*fate));
        for (owner, version) in ring.owners(Partition::of(key.position())).iter().zip(held) {
            copies[owner.index()].extend(versions[*version].clone().map(|record| (key.clone(), record)));
        }
    }
    copies
}

/// The name of an item, as a list shows it.
fn shown(item: &ListItem) -> (String, bool) {
    match item {
        ListItem::Key(key, _) => (String::from_utf8(key.as_bytes().to_vec()).unwrap(), false),
        ListItem::Prefix(prefix) => (String::from_utf8(prefix.to_vec()).unwrap(), true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a majority holds is shown once if it lives, and never if it is dead, whatever the others hold and whoever fails.
    #[test]
    fn what_lives_on_a_majority_is_shown_once_and_what_was_deleted_there_never(story in story()) {
        let (ring, mut choices) = (ring_of(story.members), Choices(story.choices.iter().cycle()));
        let copies = copies(&ring, &story);
        let filter = wish(&story.prefix, story.delimiter, Place::default(), 1).filter;
        let (mut from, mut items) = (Place::default(), Vec::new());
        let mut pages = 0;
        loop {
            pages += 1;
            prop_assert!(pages < 1_000, "a list without end");
            let wish = wish(&story.prefix, story.delimiter, from.clone(), story.items_max);
            let me = member(choices.below(story.members));
            // One member at most fails, so that a majority of each partition can be had.
            let failing = choices.below(story.members + 2);
            let list = List::new(wish, &ring, me, options(Count::Majority));
            let told = run(list, &mut choices, |to, request, choices| {
                let mut answer = answer(&copies[to.index()], request, 1 + choices.below(20));
                if to.index() != failing {
                    return Some(Ok(answer));
                }
                match choices.below(4) {
                    0 => None,
                    1 => Some(Err(())),
                    2 => {
                        answer.entries.reverse();
                        Some(if answer.entries.len() > 1 { Ok(answer) } else { Err(()) })
                    }
                    _ => {
                        answer.lacking = request.partitions.clone();
                        Some(Ok(answer))
                    }
                }
            });
            let ListOutcome::Page(page) = told.outcome else { panic!("{:?}", told.outcome) };
            prop_assert_eq!((page.answered, page.needed), (2, 2));
            prop_assert!(page.items.len() <= story.items_max);
            items.extend(page.items);
            match page.next {
                Some(next) => {
                    prop_assert!(next > from, "{:?} leads back to {:?}", from, next);
                    from = next;
                }
                None => break,
            }
        }
        let names: Vec<(String, bool)> = items.iter().map(shown).collect();
        prop_assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "out of order, or twice: {:?}", names);
        let majority_holds_last = |held: &[usize; 3]| held.iter().filter(|version| **version == 2).count() >= 2;
        let mut may_live: BTreeSet<(String, bool)> = BTreeSet::new();
        for (name, (fate, held)) in story.keys.iter().filter(|(name, _)| name.starts_with(&story.prefix)) {
            let prefix = filter.common_prefix(name.as_bytes()).map(|prefix| String::from_utf8(prefix.to_vec()).unwrap());
            let as_shown = prefix.map_or_else(|| (name.clone(), false), |prefix| (prefix, true));
            match majority_holds_last(held) {
                true if *fate == 0 => {}
                true => {
                    prop_assert!(names.contains(&as_shown), "{name} is missing from {names:?}");
                    may_live.insert(as_shown);
                }
                false => drop(may_live.insert(as_shown)),
            }
        }
        for name in &names {
            prop_assert!(may_live.contains(name), "{name:?} is shown, and was deleted on a majority");
        }
    }

    /// All of a key's copies merged are what is shown of it.
    #[test]
    fn a_key_is_shown_as_all_that_answered_hold_it(story in story()) {
        let (ring, mut choices) = (ring_of(story.members), Choices(story.choices.iter().cycle()));
        let copies = copies(&ring, &story);
        let list = List::new(wish("", "", Place::default(), 1_000), &ring, member(0), options(Count::Exactly(3)));
        let told = run(list, &mut choices, |to, request, _| Some(Ok(answer(&copies[to.index()], request, 1_000))));
        let ListOutcome::Page(page) = told.outcome else { panic!("{:?}", told.outcome) };
        let merged = |key: &Key| {
            let held = copies.iter().filter_map(|held| held.get(key));
            held.fold(Record::default(), |merged, record| merged.merge(record))
        };
        let keys: BTreeSet<&Key> = copies.iter().flat_map(BTreeMap::keys).collect();
        let living = keys.into_iter().map(|key| (key, merged(key))).filter(|(_, record)| !record.is_tombstone());
        let expected: Vec<ListItem> = living.map(|(key, record)| ListItem::Key(key.clone(), record.sketch())).collect();
        prop_assert_eq!((page.items, page.next), (expected, None));
    }
}

fn one(choices: &[u8]) -> Choices<'_> {
    Choices(choices.iter().cycle())
}

#[test]
fn every_partition_is_asked_of_a_majority_and_each_member_in_one_message() {
    let ring = ring();
    let mut calls = 0;
    let list = List::new(wish("", "", Place::default(), 10), &ring, member(1), options(Count::Majority));
    let told = run(list, &mut one(&[0]), |_, _, _| {
        calls += 1;
        Some(Ok(ListAnswer { entries: vec![], next: None, lacking: vec![] }))
    });
    assert_eq!(calls, MEMBERS);
    assert_eq!(told.asked.len(), PARTITIONS);
    for (partition, asked) in told.asked {
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|member| ring.is_owner(*member, partition)));
        let me = member(1);
        assert_eq!(asked.contains(&me), ring.is_owner(me, partition), "this node goes first");
    }
    let page = ListPage { items: vec![], next: None, answered: 2, needed: 2, silent: vec![] };
    assert_eq!(told.outcome, ListOutcome::Page(page));
}

#[test]
fn one_partition_is_listed_by_its_owners_alone() {
    let ring = ring();
    let partition = Partition::of(key("k").position());
    let wish = ListWish { partitions: vec![partition], ..wish("", "", Place::default(), 10) };
    let held: BTreeMap<Key, Record> = [(key("k"), write(&Record::default(), 1, Some("v")))].into();
    let list = List::new(wish, &ring, member(0), options(Count::Majority));
    let told = run(list, &mut one(&[0]), |_, request, _| Some(Ok(answer(&held, request, 9))));
    let ListOutcome::Page(page) = told.outcome else { panic!("{:?}", told.outcome) };
    assert_eq!(page.items.iter().map(shown).collect::<Vec<_>>(), [("k".into(), false)]);
    assert_eq!(told.asked.into_keys().collect::<Vec<_>>(), [partition]);
}

#[test]
fn with_two_members_dead_a_list_falls_back_on_one_owner_each_unless_that_is_refused() {
    let ring = ring();
    let dead = [member(3), member(4)];
    let ended = |hard, silent: bool, avoid: &[MemberIndex]| {
        let options = ListOptions { hard, avoid: avoid.to_vec(), ..options(Count::Majority) };
        let list = List::new(wish("", "", Place::default(), 10), &ring, member(0), options);
        run(list, &mut one(&[1]), |to, _, _| match dead.contains(&to) {
            true if silent => None,
            true => Some(Err(())),
            false => Some(Ok(ListAnswer { entries: vec![], next: None, lacking: vec![] })),
        })
        .outcome
    };
    for silent in [false, true] {
        for avoid in [&[][..], &dead] {
            let ListOutcome::Page(page) = ended(false, silent, avoid) else { panic!("no page") };
            assert_eq!((page.answered, page.needed, page.silent), (1, 2, dead.to_vec()));
            let refused = ended(true, silent, avoid);
            assert!(matches!(refused, ListOutcome::Unavailable { answered: 1, needed: 2, .. }), "{refused:?}");
        }
    }
}

#[test]
fn a_partition_that_nobody_tells_of_makes_a_list_of_the_others_none() {
    let ring = ring();
    let lost = Partition::of(key("k").position());
    let list = List::new(wish("", "", Place::default(), 10), &ring, member(0), options(Count::Majority));
    let told = run(list, &mut one(&[1]), |_, request, _| {
        let lacking = request.partitions.iter().copied().filter(|partition| *partition == lost).collect();
        Some(Ok(ListAnswer { entries: vec![], next: None, lacking }))
    });
    let unavailable = ListOutcome::Unavailable { partition: lost, partitions: 1, answered: 0, needed: 2 };
    assert_eq!(told.outcome, unavailable);
    assert_eq!(told.asked[&lost].len(), 3, "all owners of it were asked");
}

#[test]
fn where_the_key_that_stood_for_others_turns_out_to_be_dead_these_are_looked_at_one_by_one() {
    let ring = ring_of(3);
    let (first, last) = (write(&Record::default(), 1, Some("first")), |record: &Record| write(record, 2, None));
    let held = |early: &Record, late: &Record| -> BTreeMap<Key, Record> {
        [(key("g/early"), early.clone()), (key("g/late"), late.clone())].into()
    };
    // Each of the two that are asked of has missed one of the deletes.
    let (mine, theirs) = (held(&first, &last(&first)), held(&last(&first), &first));
    let (mut from, mut pages) = (Place::default(), 0);
    loop {
        let list = List::new(wish("", "/", from, 10), &ring, member(0), options(Count::Majority));
        let told = run(list, &mut one(&[0]), |to, request, _| {
            Some(Ok(answer(if to == member(0) { &mine } else { &theirs }, request, 10)))
        });
        let ListOutcome::Page(page) = told.outcome else { panic!("{:?}", told.outcome) };
        assert_eq!(page.items, []);
        pages += 1;
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(pages > 1, "the first page could not tell");
}
