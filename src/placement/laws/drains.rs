//! The laws of draining: members that hand over all they own and stay, and take their share again.

use super::changes::{check_survives, check_way};
use super::*;

const GROWN_MAX: usize = 16;

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(prop::sample::Index),
    Replicas(u8),
    Weight(prop::sample::Index, u16),
    Zone(prop::sample::Index, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let any_member = any::<prop::sample::Index>;
    prop_oneof![
        (1usize..4).prop_map(Step::Join),
        any_member().prop_map(Step::Leave),
        (1u8..6).prop_map(Step::Replicas),
        any_member().prop_map(|which| Step::Weight(which, 0)),
        any_member().prop_map(|which| Step::Weight(which, 0)),
        any_member().prop_map(|which| Step::Weight(which, 1)),
        (any_member(), 0usize..4).prop_map(|(which, zone)| Step::Zone(which, zone)),
    ]
}

/// What comes of this step, if it may be. `next` numbers newcomers.
fn begun(layout: &Layout, step: &Step, next: &mut usize) -> Option<Layout> {
    let named = |which: &prop::sample::Index| &layout.members()[which.index(layout.members().len())];
    let begun = match step {
        Step::Join(count) => {
            let count = (*count).min(GROWN_MAX.saturating_sub(layout.members().len()));
            let newcomers: Vec<Member> = (*next..*next + count).map(member).collect();
            *next += count;
            layout.join(newcomers)
        }
        Step::Leave(which) => layout.leave(&named(which).name),
        Step::Replicas(replicas) => layout.with_replicas(*replicas),
        Step::Weight(which, weight) => layout.refit(&named(which).name, &named(which).zone, *weight),
        Step::Zone(which, zone) => layout.refit(&named(which).name, ["", "a", "b", "c"][*zone], named(which).weight),
    };
    match begun {
        Ok(layout) => Some(layout),
        Err(
            LayoutError::Nobody
            | LayoutError::LastMember
            | LayoutError::LastKeeper { .. }
            | LayoutError::ReplicasTooFew { .. },
        ) => None,
        Err(error) => panic!("{step:?}: {error}"),
    }
}

fn loads(layout: &Layout) -> Vec<usize> {
    layout.table().held(layout.members().len()).iter().map(Vec::len).collect()
}

/// Members that own though they are not to, and those that are to and don't.
fn unsettled(layout: &Layout) -> Vec<Member> {
    let loads = loads(layout).into_iter();
    let members = layout.members().iter().zip(loads);
    members.filter(|(member, load)| (member.weight == 0) != (*load == 0)).map(|(member, _)| member.clone()).collect()
}

/// How many slots a change moves, and to or from whom beside this member.
fn moved(filling: &Layout, name: &str) -> (usize, usize) {
    let ring = Ring::new(filling.clone());
    let index = ring.member_by_name(name);
    let transfer = Transfer::of(&ring);
    let beside = transfer.moves().iter().filter(|m| m.from != index && m.to != index).count();
    (transfer.moves().len(), beside)
}

#[test]
fn a_drained_member_votes_owns_nothing_and_stands_in_for_nobody() {
    let old = layout(3, (0..8).map(member).collect());
    let name = member(3).name;
    let filling = old.refit(&name, "", 0).unwrap();
    let change = filling.change().unwrap();
    assert!(change.joining().is_empty() && change.leaving().is_empty());
    let held = old.table().held(8)[3].len();
    let (moves, beside) = moved(&filling, &name);
    assert!(moves <= held + held / 20 && beside <= held / 20, "{moves} moved of {held}");
    let drained = check_way(&old, &filling);
    let ring = Ring::new(drained.clone());
    let index = ring.member_by_name(&name).unwrap();
    assert_eq!((ring.owned_by(index), ring.partitions_of(index), ring.tokens(index)), (&[][..], &[][..], &[][..]));
    assert_eq!((ring.share(index), ring.share_fair(index)), (0.0, 0.0));
    assert!(Partition::all().all(|at| !ring.stand_ins(at).contains(&index)));
    assert!(drained.voters().contains(&index) && drained.members().len() == 8);
    check_owners(&ring);
    assert!(fullest(&ring) <= bound(&ring), "{}", fullest(&ring));
    // Once more changes nothing.
    let again = drained.refit(&name, "", 0).unwrap();
    assert_eq!((again.change(), again.members(), again.table()), (None, drained.members(), drained.table()));
}

#[test]
fn having_weight_again_it_takes_its_share_and_nothing_else_moves() {
    let old = layout(3, (0..8).map(member).collect());
    let drained = settled(old.refit(&member(3).name, "", 0));
    for weight in [1, 2] {
        let filling = drained.refit(&member(3).name, "", weight).unwrap();
        let (moves, beside) = moved(&filling, &member(3).name);
        let ring = Ring::new(check_way(&drained, &filling));
        let share = ring.share_fair(ring.member_by_name(&member(3).name).unwrap()) * 3.0 * PARTITIONS as f64;
        assert_eq!((moves, beside), (share.floor() as usize, 0));
        check_owners(&ring);
        assert!(fullest(&ring) <= bound(&ring).max(RATIO_MAX), "{}", fullest(&ring));
    }
}

#[test]
fn where_few_are_left_rows_get_narrower_and_wide_again() {
    let mut now = layout(3, (0..3).map(member).collect());
    for (i, weight, width) in [(0, 0, 2), (2, 0, 1), (0, 3, 2), (1, 0, 1), (1, 1, 2), (2, 1, 3)] {
        let filling = now.refit(&member(i).name, "", weight).unwrap();
        now = check_way(&now, &filling);
        assert_eq!((now.table().width(), now.replicas(), now.voters().len()), (width, 3, 3));
        check_owners(&Ring::new(now.clone()));
    }
}

#[test]
fn somebody_keeps_something() {
    let name = |i| member(i).name;
    let alone = layout(3, vec![member(0)]);
    assert_eq!(alone.refit(&name(0), "", 0), Err(LayoutError::LastKeeper { name: name(0) }));
    let pair = settled(layout(3, vec![member(0), member(1)]).refit(&name(0), "", 0));
    let last = Err(LayoutError::LastKeeper { name: name(1) });
    assert_eq!(pair.refit(&name(1), "", 0), last);
    assert_eq!(pair.leave(&name(1)), last);
    assert_eq!(pair.replace(&name(1), Member { weight: 0, ..member(2) }), last);
    let weightless = vec![Member { weight: 0, ..member(0) }];
    let none = Layout::provisional(ClusterId::named("laws"), 3, Mode::Sloppy, weightless);
    assert_eq!(none, Err(LayoutError::Weights { weights: 0 }));
    // The others may still be drained one after the other, and the drained go.
    assert_eq!(pair.leave(&name(0)).unwrap().members(), [member(1)]);
}

#[test]
fn one_that_owns_nothing_goes_comes_and_is_replaced_at_once() {
    let old = settled(layout(3, (0..5).map(member).collect()).refit(&member(2).name, "", 0));
    let left = old.leave(&member(2).name).unwrap();
    check_way(&old, &left);
    assert_eq!((left.change(), left.members().len(), left.epoch()), (None, 4, old.epoch() + 1));
    let replaced = old.replace(&member(2).name, member(9)).unwrap();
    let newcomer = replaced.members().iter().find(|it| it.name == member(9).name).unwrap();
    assert_eq!((replaced.change(), replaced.members().len(), newcomer.weight), (None, 5, 0), "it takes its place");
    check_owners(&Ring::new(replaced.clone()));
    check_owners(&Ring::new(settled(replaced.refit(&member(9).name, "", 1))));
    let joined = left.join(vec![Member { weight: 0, ..member(7) }]).unwrap();
    assert_eq!((joined.change(), joined.voters().len()), (None, 5));
    check_owners(&Ring::new(joined));
}

#[test]
fn a_drain_that_was_given_up_goes_on_when_it_is_asked_for_again_or_owners_change_otherwise() {
    let old = layout(3, (0..6).map(member).collect());
    let begun = old.refit(&member(4).name, "", 0).unwrap();
    let given_up = begun.abandon().unwrap();
    assert_eq!((given_up.table(), given_up.members()), (old.table(), begun.members()));
    for next in [
        given_up.refit(&member(4).name, "", 0),
        given_up.join(vec![member(9), member(10)]),
        given_up.leave(&member(1).name),
        given_up.with_replicas(2),
        given_up.with_replicas(5),
        given_up.refit(&member(0).name, "z", 2),
    ] {
        let done = check_way(&given_up, &next.unwrap());
        assert_eq!(unsettled(&done), []);
        check_owners(&Ring::new(done));
    }
    // Its place with what it owns may be another's, who is to hand that over.
    let replaced = settled(given_up.replace(&member(4).name, member(9)));
    assert_eq!(unsettled(&replaced), [Member { weight: 0, ..member(9) }]);
    // Or it has weight again, and keeps what it has.
    assert_eq!(given_up.refit(&member(4).name, "", 1).unwrap().change(), None);
}

#[test]
fn of_three_two_that_are_half_drained_are_not_dropped_at_once() {
    let half = layout(3, (0..3).map(member).collect()).refit(&member(0).name, "", 0).unwrap().abandon().unwrap();
    let too_few = Err(LayoutError::ReplicasTooFew { from: 3, to: 1 });
    assert_eq!((half.refit(&member(1).name, "", 0), half.leave(&member(1).name)), (too_few.clone(), too_few));
    let one_less = settled(half.refit(&member(0).name, "", 0));
    check_owners(&Ring::new(settled(one_less.refit(&member(1).name, "", 0))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_changes_those_of_weight_are_level_and_the_drained_own_nothing(
        founders in 2usize..=12,
        replicas in 1u8..6,
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let (mut old, mut next) = (layout(replicas, (0..founders).map(member).collect()), founders);
        for step in steps.into_iter().filter(|step| !matches!(step, Step::Zone(..))) {
            let Some(filling) = begun(&old, &step, &mut next) else { continue };
            if let Step::Weight(which, weight) = &step {
                let index = which.index(old.members().len());
                let (moves, beside) = moved(&filling, &old.members()[index].name);
                let ideal = if *weight == 0 { loads(&old)[index] } else { loads(&settled_or(&filling))[index] };
                prop_assert!(moves <= ideal + ideal / 20 && beside <= ideal / 20, "{step:?} moved {moves} of {ideal}");
            }
            old = check_way(&old, &filling);
            let ring = Ring::new(old.clone());
            check_owners(&ring);
            prop_assert_eq!(unsettled(&old), []);
            let ratio = fullest(&ring);
            prop_assert!(ratio <= 1.10, "{step:?} makes {} members, the fullest at {ratio}", old.members().len());
        }
    }

    #[test]
    fn also_where_changes_are_given_up_every_layout_is_one_and_asking_again_ends_it(
        founders in 1usize..=8,
        replicas in 1u8..6,
        steps in prop::collection::vec((step(), any::<bool>()), 1..16),
    ) {
        let (mut old, mut next) = (layout(replicas, (0..founders).map(member).collect()), founders);
        for (step, is_given_up) in steps {
            let Some(filling) = begun(&old, &step, &mut next) else { continue };
            let done = check_way(&old, &filling);
            if filling.change().is_some() && !is_given_up {
                prop_assert!(unsettled(&done).iter().all(|member| member.weight > 0), "{step:?}");
            }
            old = if filling.change().is_some() && is_given_up { filling.abandon().unwrap() } else { done };
        }
        // One at a time, first those that are to own something.
        for _ in 0..2 * old.members().len() {
            let mut left = unsettled(&old);
            left.sort_by_key(|member| std::cmp::Reverse(member.weight));
            let Some(again) = left.into_iter().find_map(|it| old.refit(&it.name, &it.zone, it.weight).ok()) else { break };
            old = check_way(&old, &again);
            check_survives(&old);
        }
        prop_assert_eq!(unsettled(&old), []);
        check_owners(&Ring::new(old));
    }
}

fn settled_or(filling: &Layout) -> Layout {
    filling.switch().and_then(|switched| switched.settle()).unwrap_or_else(|_| filling.clone())
}
