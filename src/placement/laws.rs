//! The laws of placement, checked over whole rings of many sizes.

mod changes;
mod drains;

use super::*;
use proptest::prelude::*;

const RATIO_MAX: f64 = 1.05;

fn member(i: usize) -> Member {
    Member::new(format!("http://node{i}.example:8080"))
}

fn layout(replicas: u8, members: Vec<Member>) -> Layout {
    Layout::provisional(ClusterId::named("laws"), replicas, Mode::Sloppy, members).unwrap()
}

/// The layout once the change under way in it has gone all its way.
fn settled(filling: Result<Layout, LayoutError>) -> Layout {
    filling.and_then(|filling| filling.switch()?.settle()).unwrap()
}

fn ring(replicas: u8, members: usize) -> Ring {
    Ring::new(layout(replicas, (0..members).map(member).collect()))
}

/// The load of the fullest member against its fair share.
fn fullest(ring: &Ring) -> f64 {
    ring.members().map(|index| ring.share(index) / ring.share_fair(index)).fold(0.0, f64::max)
}

/// Fair shares are rarely whole slots: one slot more than the share is the best arithmetic allows.
fn bound(ring: &Ring) -> f64 {
    let mean = ring.layout().table().slots() as f64 / weighted(ring).len() as f64;
    RATIO_MAX.max(mean.ceil() / mean)
}

/// The members that are to own something.
fn weighted(ring: &Ring) -> Vec<MemberIndex> {
    ring.members().filter(|index| ring.member(*index).weight > 0).collect()
}

fn check_owners(ring: &Ring) {
    let weighted = weighted(ring);
    for partition in Partition::all() {
        let owners = ring.owners(partition);
        assert_eq!(owners.len(), weighted.len().min(ring.layout().replicas().into()));
        let mut everyone = [owners, &ring.stand_ins(partition)].concat();
        everyone.sort_unstable();
        assert_eq!(everyone, weighted, "owners and stand-ins of {partition} are everyone of weight, once");
        assert!(owners.iter().all(|&owner| ring.is_owner(owner, partition)));
    }
    let shares: f64 = ring.members().map(|index| ring.share(index)).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
}

/// Checks that a join moved slots to the newcomer only, and returns how many for each slot of its fair share.
fn check_join(old: &Ring, new: &Ring, name: &str) -> f64 {
    let newcomer = new.member_by_name(name).unwrap();
    let transfer = Transfer::between(old, new);
    assert!(transfer.moves().iter().all(|m| m.to == Some(newcomer)), "only the newcomer is given slots");
    assert_eq!(transfer.moves().len(), new.partitions_of(newcomer).len());
    assert_eq!(new.epoch(), old.epoch() + 3);
    new.share(newcomer) / new.share_fair(newcomer)
}

fn zones_spanned(ring: &Ring, partition: Partition) -> usize {
    let mut zones: Vec<_> = ring.owners(partition).iter().map(|&owner| ring.member(owner).zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}

#[test]
fn the_fullest_founder_is_near_the_mean_at_every_size() {
    for replicas in [1, 2, 3, 5] {
        for members in [1, 2, 3, 5, 10, 33, 100] {
            let ring = ring(replicas, members);
            check_owners(&ring);
            let ratio = fullest(&ring);
            assert!(ratio <= bound(&ring), "{members} members, {replicas} replicas: {ratio}");
        }
    }
}

/// With three replicas 1,024 partitions are 3,072 slots: of 300 members each has ten or eleven, of 1,000 three or four.
#[test]
fn the_fullest_of_hundreds_has_its_share_rounded_up_and_no_more() {
    for replicas in [1, 2, 3, 5] {
        for members in [300, 1_000] {
            let ring = ring(replicas, members);
            let mean = ring.layout().table().slots() as f64 / members as f64;
            let most = ring.members().map(|index| ring.owned_by(index).len()).max();
            assert_eq!(most, Some(mean.ceil() as usize), "{members} members, {replicas} replicas");
        }
    }
    let ratio = fullest(&ring(3, 300));
    assert!(ratio <= 1.10, "{ratio}");
}

#[test]
fn a_cluster_grown_one_by_one_stays_level() {
    let mut old = ring(3, 3);
    let (mut moved_most, mut fullest_most) = (0.0f64, 0.0f64);
    for i in 3..100 {
        let new = Ring::new(settled(old.layout().join(vec![member(i)])));
        moved_most = moved_most.max(check_join(&old, &new, &member(i).name));
        fullest_most = fullest_most.max(fullest(&new));
        assert!(fullest(&new) <= bound(&new), "{} members: {}", i + 1, fullest(&new));
        old = new;
    }
    assert!(moved_most <= 1.0, "moved {moved_most}");
    check_owners(&old);
}

#[test]
fn many_that_join_a_few_at_once_leave_nobody_above_the_bound() {
    for (few, many) in [(1, 49), (2, 30), (3, 7), (3, 61), (3, 117), (20, 100)] {
        let old = ring(3, few);
        let new = Ring::new(settled(old.layout().join((few..few + many).map(member).collect())));
        let mean = new.layout().table().slots() as f64 / (few + many) as f64;
        assert!(fullest(&new) <= 1.10f64.max(mean.ceil() / mean), "{few} and {many}: {}", fullest(&new));
        check_owners(&new);
        let moves = Transfer::between(&old, &new);
        let is_new = |member: MemberIndex| old.member_by_name(&new.member(member).name).is_none();
        assert!(moves.moves().iter().all(|moved| moved.to.is_some_and(is_new)), "{few} and {many}");
    }
}

#[test]
fn first_owners_are_spread_as_well() {
    for ring in [ring(3, 3), ring(3, 5), ring(3, 10)] {
        let mut first = vec![0.0f64; ring.members().len()];
        Partition::all().for_each(|partition| first[ring.owners(partition)[0].index()] += 1.0);
        let ratio = first.iter().copied().fold(0.0, f64::max) * first.len() as f64 / PARTITIONS as f64;
        assert!(ratio < 1.35, "{first:?}");
    }
}

#[test]
fn three_zones_of_one_size_are_spanned_by_every_partition_and_level() {
    let zoned = |i: usize| Member { zone: format!("z{}", i % 3), ..member(i) };
    for members in [3, 6, 9, 30] {
        let ring = Ring::new(layout(3, (0..members).map(zoned).collect()));
        assert!(Partition::all().all(|partition| zones_spanned(&ring, partition) == 3));
        assert!(fullest(&ring) <= bound(&ring), "{members}: {}", fullest(&ring));
    }
}

#[test]
fn a_join_never_narrows_the_zones_of_a_partition() {
    let zoned = |i: usize| Member { zone: ["a", "b", "c", "c"][i % 4].into(), ..member(i) };
    let mut old = Ring::new(layout(3, (0..3).map(zoned).collect()));
    for i in 3..20 {
        let new = Ring::new(settled(old.layout().join(vec![zoned(i)])));
        assert!(check_join(&old, &new, &member(i).name) <= RATIO_MAX);
        assert!(Partition::all().all(|partition| zones_spanned(&new, partition) == 3), "{i}");
        old = new;
    }
}

#[test]
fn load_follows_weight() {
    let weights = [1, 2, 4, 1, 8, 2, 1, 3];
    let members = weights.iter().enumerate().map(|(i, &weight)| Member { weight, ..member(i) }).collect();
    let ring = Ring::new(layout(3, members));
    check_owners(&ring);
    assert!(fullest(&ring) <= RATIO_MAX, "{}", fullest(&ring));
    let least = ring.members().map(|index| ring.share(index) / ring.share_fair(index)).fold(2.0, f64::min);
    assert!(least >= 1.0 / RATIO_MAX, "{least}");
    let joined = Ring::new(settled(ring.layout().join(vec![Member { weight: 4, ..member(8) }])));
    assert!(check_join(&ring, &joined, &member(8).name) <= RATIO_MAX);
}

#[test]
fn members_are_found_by_name_and_id() {
    let mut members: Vec<_> = (0..4).map(member).collect();
    members[2].id = Some(NodeId(7));
    let ring = Ring::new(layout(3, members));
    let third = ring.member_by_name(&member(2).name);
    assert_eq!(third.map(|index| &ring.member(index).name), Some(&member(2).name));
    assert_eq!(ring.member_by_id(NodeId(7)), third);
    assert_eq!((ring.member_by_name("nobody"), ring.member_by_id(NodeId(8))), (None, None));
    assert_eq!(ring.tokens(third.unwrap()).len(), TOKENS_PER_WEIGHT as usize);
}

/// Nodes of different builds must compute the same founding table: change this only with the layout's version.
#[test]
fn the_table_of_five_members_never_changes() {
    let five = layout(3, (0..5).map(member).collect());
    let six = settled(five.join(vec![member(5)]));
    let hash = |layout: &Layout| blake3::hash(&postcard::to_stdvec(layout.table()).unwrap()).to_hex()[..16].to_owned();
    assert_eq!([hash(&five), hash(&six)], ["4f66ee960b1d657e", "a925dc78571fa424"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_in_which_members_are_given_is_nothing(
        order in prop::collection::btree_set(0usize..1000, 1..24).prop_flat_map(|set| {
            Just(set.into_iter().collect::<Vec<_>>()).prop_shuffle()
        }),
        replicas in 1u8..6,
    ) {
        let given = layout(replicas, order.iter().copied().map(member).collect());
        let mut sorted = order;
        sorted.sort_unstable();
        prop_assert_eq!(given, layout(replicas, sorted.into_iter().map(member).collect()));
    }

    #[test]
    fn a_ring_of_any_members_keeps_its_promises(
        kinds in prop::collection::vec((1u16..9, "[abc]?"), 1..40),
        replicas in 1u8..6,
    ) {
        let of = |(i, (weight, zone)): (usize, (u16, String))| Member { weight, zone, ..member(i) };
        check_owners(&Ring::new(layout(replicas, kinds.into_iter().enumerate().map(of).collect())));
    }

    #[test]
    fn a_join_moves_the_newcomers_share_and_nothing_else(
        founders in 1usize..40,
        replicas in 1u8..6,
        name in 100usize..1000,
    ) {
        let old = ring(replicas, founders);
        let new = Ring::new(settled(old.layout().join(vec![member(name)])));
        let moved = check_join(&old, &new, &member(name).name);
        prop_assert!(moved <= 1.0 + 1e-9, "moved {moved}");
        let slots = new.partitions_of(new.member_by_name(&member(name).name).unwrap()).len();
        prop_assert_eq!(slots, PARTITIONS * new.layout().table().width() / (founders + 1));
        prop_assert!(fullest(&new) <= bound(&new), "fullest {}", fullest(&new));
        check_owners(&new);
    }
}
