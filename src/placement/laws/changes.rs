//! The laws of changing owners: joins, leaves and other numbers of replicas, one after another, in clusters of many
//! sizes.

use super::*;
use std::collections::BTreeSet;

/// Fullest against the fair share, after whatever came before.
const FULLEST_MAX: f64 = 1.10;

/// Most members that a random cluster grows to.
const GROWN_MAX: usize = 24;

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(prop::sample::Index),
    Replicas(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1usize..5).prop_map(Step::Join),
        any::<prop::sample::Index>().prop_map(Step::Leave),
        any::<prop::sample::Index>().prop_map(Step::Leave),
        (1u8..6).prop_map(Step::Replicas),
    ]
}

/// The layout with the change of this step begun, if there is room for it. `next` numbers newcomers, of which none
/// was there before.
fn begun(layout: &Layout, step: &Step, next: &mut usize, made: fn(usize) -> Member) -> Option<Layout> {
    let members = layout.members().len();
    match step {
        Step::Join(count) => {
            let count = (*count).min(GROWN_MAX.saturating_sub(members));
            let newcomers: Vec<Member> = (*next..*next + count).map(made).collect();
            *next += count;
            (count > 0).then(|| layout.join(newcomers).unwrap())
        }
        Step::Leave(which) => {
            let name = &layout.members()[which.index(members)].name;
            (members > 1).then(|| layout.leave(name).unwrap())
        }
        Step::Replicas(replicas) => match layout.with_replicas(*replicas) {
            Err(LayoutError::ReplicasTooFew { .. }) => None,
            begun => Some(begun.unwrap()),
        },
    }
}

/// The names in one row, in its order.
fn names(layout: &Layout, row: &[MemberIndex]) -> Vec<String> {
    row.iter().map(|owner| layout.members()[owner.index()].name.clone()).collect()
}

fn same_rows(one: &Layout, table: &Table, other: &Layout, others: &Table) -> bool {
    let row = |layout, table: &Table, at| names(layout, table.owners(at));
    Partition::all().all(|at| row(one, table, at) == row(other, others, at))
}

pub(super) fn check_survives(layout: &Layout) {
    assert_eq!(Layout::decode(&layout.encode()).as_ref(), Ok(layout));
    assert_eq!(serde_json::from_str::<Layout>(&serde_json::to_string(layout).unwrap()).unwrap(), *layout);
}

/// Checks the way of one change from the layout before it, and returns the layout after it.
pub(super) fn check_way(old: &Layout, filling: &Layout) -> Layout {
    check_survives(filling);
    assert_eq!(filling.epoch(), old.epoch() + 1);
    let Some(change) = filling.change() else {
        assert!(same_rows(filling, filling.table(), old, old.table()), "where no row changes only the number does");
        return filling.clone();
    };
    assert_eq!(change.phase(), Phase::Filling);
    assert!(same_rows(filling, filling.table(), old, old.table()), "reads ask whom they asked");

    let everyone = |layout: &Layout| (0..layout.members().len()).map(MemberIndex::new).collect::<Vec<_>>();
    let but = |absent: &[MemberIndex]| {
        everyone(filling).into_iter().filter(|member| !absent.contains(member)).collect::<Vec<_>>()
    };
    assert_eq!(filling.voters(), but(change.joining()));

    let back = filling.abandon().unwrap();
    check_survives(&back);
    let names = |layout: &Layout| layout.members().iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&back), back.table(), back.change()), (names(old), old.table(), None));
    assert!(back.members().iter().all(|member| filling.members().contains(member)), "weights and zones stay");
    assert_eq!((back.replicas(), back.epoch()), (old.replicas(), old.epoch() + 2));

    let switched = filling.switch().unwrap();
    check_survives(&switched);
    let turned = switched.change().unwrap();
    assert_eq!((switched.table(), turned.table()), (change.table(), filling.table()));
    assert_eq!((switched.replicas(), turned.replicas()), (change.replicas(), filling.replicas()));
    assert_eq!((turned.joining(), turned.leaving()), (change.joining(), change.leaving()));
    assert_eq!((switched.members(), turned.phase()), (filling.members(), Phase::Switched));
    assert_eq!(switched.voters(), but(change.leaving()));

    let settled = switched.settle().unwrap();
    check_survives(&settled);
    assert_eq!((settled.epoch(), settled.change()), (old.epoch() + 3, None));
    assert!(same_rows(&settled, settled.table(), filling, change.table()), "the plan is what comes of it");
    assert_eq!(settled.voters(), everyone(&settled));

    let (before, after) = (Ring::new(filling.clone()), Ring::new(switched));
    for at in Partition::all() {
        let sorted = |ring: &Ring| ring.holders(at).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&before), sorted(&after), "the switch gives nobody a copy and takes none");
        let drained = |member: &MemberIndex| before.member(*member).weight == 0 && !before.is_holder(*member, at);
        let drained = before.members().filter(drained).count();
        assert_eq!(before.holders(at).len() + before.stand_ins(at).len() + drained, before.members().len());
    }
    assert_eq!(Transfer::of(&before), Transfer::of(&after));
    settled
}

/// Checks what a change moved: who gives, who takes, and how much.
fn check_moves(filling: &Layout) {
    let Some(change) = filling.change() else { return };
    let transfer = Transfer::of(&Ring::new(filling.clone()));
    let (moves, old, new) = (transfer.moves(), filling.table(), change.table());
    if let [leaver] = change.leaving() {
        let held = old.held(filling.members().len())[leaver.index()].len();
        assert!(moves.iter().all(|m| m.from == Some(*leaver)), "a leave moves the leaver's slots only");
        assert_eq!(moves.len(), held);
        assert!(moves.iter().all(|m| m.to.is_none()) || old.width() == new.width());
    } else if change.joining().is_empty() {
        let (wider, narrower) = (new.width() > old.width(), new.width() < old.width());
        assert!(moves.iter().all(|m| (m.from.is_none(), m.to.is_none()) == (wider, narrower)));
        assert_eq!(moves.len(), PARTITIONS * new.width().abs_diff(old.width()));
    } else {
        let after = Ring::new(filling.switch().unwrap());
        assert!(
            moves.iter().all(|m| m.to.is_some_and(|to| change.joining().contains(&to))),
            "only they are given slots"
        );
        let ideal: f64 = change.joining().iter().map(|&newcomer| after.share_fair(newcomer)).sum();
        let moved = moves.len() as f64 / new.slots() as f64;
        assert!(moved <= RATIO_MAX * ideal, "moved {moved} of {ideal}");
    }
}

fn zones_of(layout: &Layout, row: &[MemberIndex]) -> usize {
    row.iter().map(|owner| layout.members()[owner.index()].zone.as_str()).collect::<BTreeSet<_>>().len()
}

/// Checks that no row spans fewer zones after a change than it did or could.
fn check_zones(filling: &Layout) {
    let Some(change) = filling.change() else { return };
    let present: Vec<MemberIndex> = filling.switch().unwrap().voters();
    let distinct = zones_of(filling, &present);
    for at in Partition::all() {
        let (old, new) = (filling.table().owners(at), change.table().owners(at));
        let (before, after) = (zones_of(filling, old), zones_of(filling, new));
        let stayed: Vec<MemberIndex> = old.iter().copied().filter(|owner| !change.leaving().contains(owner)).collect();
        let possible = distinct.min(zones_of(filling, &stayed) + new.len().saturating_sub(stayed.len()));
        let widened = new.len() > old.len() && change.joining().is_empty();
        let wanted = if widened { possible } else { before.min(new.len()).min(possible) };
        assert!(after >= wanted, "{at}: {before} zones, then {after} of {wanted}");
    }
}

fn zoned(i: usize) -> Member {
    Member { zone: ["a", "b", "c", "c", "d", "b"][i % 6].into(), ..member(i) }
}

#[test]
fn a_cluster_shrunk_one_by_one_stays_level() {
    let mut old = layout(3, (0..40).map(member).collect());
    for i in 0..39 {
        let leaver = old.members()[(7 * i) % old.members().len()].name.clone();
        let filling = old.leave(&leaver).unwrap();
        check_moves(&filling);
        old = settled(Ok(filling));
        let ring = Ring::new(old.clone());
        check_owners(&ring);
        assert!(fullest(&ring) <= bound(&ring), "{} members: {}", old.members().len(), fullest(&ring));
    }
}

#[test]
fn who_leaves_a_zone_is_followed_by_those_that_stay_in_it() {
    let zoned = |i: usize| Member { zone: format!("z{}", i % 3), ..member(i) };
    let old = layout(3, (0..9).map(zoned).collect());
    let new = settled(old.leave(&member(4).name));
    let ring = Ring::new(new);
    assert!(Partition::all().all(|partition| zones_spanned(&ring, partition) == 3));
    for i in [1, 7] {
        assert_eq!(ring.owned_by(ring.member_by_name(&member(i).name).unwrap()).len(), PARTITIONS / 2);
    }
}

#[test]
fn load_follows_weight_through_changes() {
    let weights = [1, 2, 4, 1, 8, 2, 1, 3, 5, 1];
    let members = weights.iter().enumerate().map(|(i, &weight)| Member { weight, ..member(i) }).collect();
    let mut old = layout(3, members);
    for change in [
        |old: &Layout| old.leave(&member(4).name),
        |old: &Layout| old.with_replicas(4),
        |old: &Layout| old.join(vec![Member { weight: 6, ..member(20) }, Member { weight: 2, ..member(21) }]),
        |old: &Layout| old.with_replicas(2),
        |old: &Layout| old.leave(&member(0).name),
    ] {
        let filling = change(&old).unwrap();
        check_moves(&filling);
        old = settled(Ok(filling));
        let ring = Ring::new(old.clone());
        check_owners(&ring);
        assert!(fullest(&ring) <= RATIO_MAX, "{}", fullest(&ring));
    }
}

#[test]
fn a_heavier_member_takes_its_share_from_the_others_and_nothing_else_moves() {
    let old = layout(3, (0..8).map(member).collect());
    let name = member(3).name;
    let heavier = old.refit(&name, "", 2).unwrap();
    let ring = Ring::new(settled(Ok(heavier.clone())));
    let index = ring.member_by_name(&name).unwrap();
    let moves = Transfer::of(&Ring::new(heavier));
    assert!(moves.moves().iter().all(|m| m.to == Some(index) && m.from.is_some()));
    // Two of nine ninths now, instead of one of eight.
    let ideal = ring.share_fair(index) - 1.0 / 8.0;
    let moved = moves.moves().len() as f64 / (3 * PARTITIONS) as f64;
    assert!((ideal - 0.01..=ideal + 0.01).contains(&moved), "moved {moved} of {ideal}");
    let back = ring.layout().refit(&name, "", 1).unwrap();
    assert!(Transfer::of(&Ring::new(back.clone())).moves().iter().all(|m| m.from == Some(index)));
    assert!(fullest(&Ring::new(settled(Ok(back)))) <= RATIO_MAX);
}

#[test]
fn a_member_that_is_as_it_was_moves_nothing() {
    let old = layout(3, (0..7).map(zoned).collect());
    let same = old.refit(&member(2).name, &zoned(2).zone, 1).unwrap();
    assert_eq!((same.table(), same.change(), same.members()), (old.table(), None, old.members()));
    assert!(matches!(old.refit(&member(2).name, "", 65), Err(LayoutError::Member(_))));
    assert!(matches!(old.refit("x", "", 1), Err(LayoutError::NoSuchMember { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn zones_and_weights_of_members_change_and_copies_are_kept_apart(
        founders in 1usize..=12,
        replicas in 1u8..6,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0usize..5, 1u16..9), 1..8),
    ) {
        let mut old = layout(replicas, (0..founders).map(zoned).collect());
        for (which, zone, weight) in steps {
            let name = old.members()[which.index(founders)].name.clone();
            let filling = old.refit(&name, ["", "a", "b", "c", "d"][zone], weight).unwrap();
            check_survives(&filling);
            prop_assert!(same_rows(&filling, filling.table(), &old, old.table()), "reads ask whom they asked");
            if filling.change().is_some() {
                let back = filling.abandon().unwrap();
                prop_assert_eq!((back.members(), back.table()), (filling.members(), old.table()));
                old = settled(Ok(filling));
            } else {
                old = filling;
            }
            check_survives(&old);
            let ring = Ring::new(old.clone());
            check_owners(&ring);
            let members: Vec<MemberIndex> = ring.members().collect();
            let alone = |members: &[MemberIndex]| members.iter().filter(|m| ring.member(**m).zone.is_empty()).count();
            let zones = |members: &[MemberIndex]| {
                alone(members) + members.iter().map(|m| &ring.member(*m).zone).filter(|z| !z.is_empty())
                    .collect::<BTreeSet<_>>().len()
            };
            let most = zones(&members).min(usize::from(replicas)).min(founders);
            prop_assert!(Partition::all().all(|at| zones(ring.owners(at)) == most));
        }
    }

    #[test]
    fn owners_change_step_by_step_and_stay_level(
        founders in 3usize..=GROWN_MAX,
        replicas in 1u8..6,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let mut old = layout(replicas, (0..founders).map(member).collect());
        let mut next = founders;
        for step in steps {
            let Some(filling) = begun(&old, &step, &mut next, member) else { continue };
            check_moves(&filling);
            old = check_way(&old, &filling);
            let ring = Ring::new(old.clone());
            check_owners(&ring);
            let ratio = fullest(&ring);
            prop_assert!(ratio <= FULLEST_MAX, "{step:?} makes {} members, the fullest at {ratio}", old.members().len());
        }
    }

    #[test]
    fn zones_are_kept_apart_through_changes(
        founders in 1usize..=12,
        replicas in 1u8..6,
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let mut old = layout(replicas, (0..founders).map(zoned).collect());
        let mut next = founders;
        for step in steps {
            let Some(filling) = begun(&old, &step, &mut next, zoned) else { continue };
            check_zones(&filling);
            old = check_way(&old, &filling);
            check_owners(&Ring::new(old.clone()));
        }
    }
}
