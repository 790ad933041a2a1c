//! Stories of a node that finds out whether it is whole.

use super::*;
use crate::placement::{ClusterId, Layout, Member, Mode};

const FRESH: Word = Word { filled: false, holds: false, born: false, current: true };
const EMPTY: Word = Word { filled: true, holds: false, born: true, current: true };
const FULL: Word = Word { filled: true, holds: true, born: true, current: true };

fn name(node: usize) -> String {
    format!("http://n{node}:1")
}

fn ring(nodes: usize, replicas: u8) -> Ring {
    let members = (0..nodes).map(|node| Member::new(name(node))).collect();
    Ring::new(Layout::provisional(ClusterId(1), replicas, Mode::Sloppy, members).unwrap())
}

fn life(id: u64, stamp: u64) -> Option<Life> {
    Some(Life { id: NodeId(id), stamp: Stamp(stamp) })
}

/// Node 0 of so many, with id 7, opened with stamp 50.
fn opened(nodes: usize, kept: Option<&[u8]>) -> Filling {
    Filling::new(NodeId(7), Stamp(50), kept, (1..nodes).map(name))
}

/// What a node that was filled leaves behind.
fn filled() -> Vec<u8> {
    opened(1, None).encode()
}

fn compared(filling: &mut Filling, ring: &Ring, peers: &[usize]) -> bool {
    let me = ring.member_by_name(&name(0)).unwrap();
    peers.iter().fold(false, |_, peer| filling.compared(&name(*peer), ring, me))
}

#[test]
fn a_node_without_peers_is_filled_at_its_birth() {
    assert_eq!(opened(1, None).stage(), Stage::Filled);
}

#[test]
fn a_cluster_is_born_when_a_majority_has_met_and_knows_of_no_earlier_life() {
    for (nodes, needed) in [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3)] {
        let mut node = opened(nodes, None);
        node.time_is_up();
        for peer in 1..=needed {
            assert_eq!(node.stage(), Stage::Asking, "{peer} of {nodes}");
            node.heard(&name(peer), FRESH, None);
        }
        assert_eq!(node.stage(), Stage::Filled, "{needed} of {nodes}");
    }
}

#[test]
fn nobody_is_believed_before_everybody_was_asked_once_or_time_is_up() {
    let mut node = opened(3, None);
    assert!(!node.heard(&name(1), EMPTY, None) && !node.has_asked());
    assert!(node.heard(&name(2), FULL, life(9, 1)) && node.stage() == Stage::Filling);
    let mut node = opened(3, None);
    node.heard(&name(1), EMPTY, None);
    assert!(node.silent(&name(2)) && node.stage() == Stage::Filled);
    let mut node = opened(3, None);
    node.heard(&name(1), EMPTY, None);
    assert!(node.time_is_up() && node.stage() == Stage::Filled);
}

#[test]
fn a_node_that_is_new_in_a_cluster_that_holds_data_is_filled_by_it() {
    let mut node = opened(3, None);
    node.heard(&name(1), EMPTY, None);
    node.heard(&name(2), FULL, None);
    assert_eq!((node.stage(), node.why()), (Stage::Filling, Some(Why::Newcomer)));
    // What a peer holds that never counted was never part of a majority.
    let mut node = opened(3, None);
    node.heard(&name(1), Word { holds: true, ..FRESH }, None);
    node.silent(&name(2));
    assert_eq!(node.stage(), Stage::Filled);
}

#[test]
fn a_peer_that_has_just_started_again_makes_no_cluster_a_new_one() {
    // It counted before, holds data, and says that it counts only to those it has heard.
    let started_again = Word { filled: false, ..FULL };
    let mut node = opened(2, None);
    assert!(node.heard(&name(1), started_again, None));
    assert_eq!((node.stage(), node.why()), (Stage::Filling, Some(Why::Newcomer)));
    // So it does itself, whatever its stage: from the moment it knows.
    assert!(!opened(2, None).is_born() && opened(2, Some(&filled())).is_born() && node.is_born());
    assert!(opened(2, Some(&node.encode())).is_born());
}

#[test]
fn an_emptied_owner_counts_when_it_was_compared_with_a_majority_of_the_other_owners() {
    let ring = ring(3, 3);
    let mut node = opened(3, None);
    node.heard(&name(1), FULL, life(6, 900));
    assert_eq!((node.stage(), node.why()), (Stage::Filling, Some(Why::Emptied)));
    node.heard(&name(2), FULL, life(6, 800));
    assert_eq!(node.to_compare(), [name(1), name(2)]);
    assert!(!compared(&mut node, &ring, &[1]));
    assert_eq!(node.to_compare(), [name(2)]);
    assert!(compared(&mut node, &ring, &[2]) && node.stage() == Stage::Filled);
    // The life it took the place of is no news to it any more, after a restart either.
    let mut later = opened(3, Some(&node.encode()));
    later.heard(&name(1), FULL, life(6, 900));
    later.heard(&name(2), FULL, life(7, 40));
    assert_eq!(later.stage(), Stage::Filled);
}

#[test]
fn one_that_owns_nothing_counts_as_soon_as_anybody_was_compared_with() {
    let ring = Ring::new(ring(4, 3).layout().refit(&name(0), "", 0).unwrap().switch().unwrap().settle().unwrap());
    let mut drained = opened(4, Some(&filled()));
    assert!(drained.heard(&name(1), FULL, life(7, 900)));
    assert_eq!((drained.why(), drained.to_compare()), (Some(Why::RolledBack), vec![name(1)]));
    assert!(compared(&mut drained, &ring, &[1]) && drained.stage() == Stage::Filled);
}

#[test]
fn a_folder_put_back_from_a_copy_is_treated_as_emptied() {
    let ring = ring(3, 3);
    let mut node = opened(3, Some(&filled()));
    node.heard(&name(1), FULL, life(7, 51));
    assert_eq!((node.stage(), node.why()), (Stage::Filling, Some(Why::RolledBack)));
    // Stopped in between, it begins again, whatever its stamp is by then.
    let mut again = Filling::new(NodeId(7), Stamp(99), Some(&node.encode()), (1..3).map(name));
    assert_eq!((again.stage(), again.why()), (Stage::Filling, Some(Why::Unfinished)));
    assert!(compared(&mut again, &ring, &[1, 2]));
    node.heard(&name(2), FULL, life(7, 50));
    assert!(compared(&mut node, &ring, &[1, 2]));
}

#[test]
fn a_folder_that_was_filled_is_believed_where_no_peer_knows_better() {
    let mut node = opened(3, Some(&filled()));
    assert_eq!(node.stage(), Stage::Asking);
    assert!(!node.silent(&name(1)) && node.silent(&name(2)), "the peers are dead, and it goes on");
    assert_eq!(node.stage(), Stage::Filled);
    assert!(node.heard(&name(1), FULL, life(7, 60)), "one is back and remembers more");
    assert_eq!(node.stage(), Stage::Filling);
}

#[test]
fn only_the_first_word_of_a_peer_is_about_an_earlier_life() {
    let mut node = opened(2, Some(&filled()));
    node.heard(&name(1), FULL, life(7, 50));
    assert_eq!(node.stage(), Stage::Filled);
    node.heard(&name(1), FULL, life(7, 70));
    assert_eq!(node.stage(), Stage::Filled, "it announced that itself");
}

#[test]
fn peers_that_are_not_filled_themselves_count_only_where_there_are_no_others() {
    let ring = ring(5, 5);
    let mut node = opened(5, None);
    node.heard(&name(1), FULL, life(6, 1));
    node.heard(&name(2), FRESH, None);
    node.heard(&name(3), FRESH, None);
    node.heard(&name(4), FULL, None);
    assert!(!compared(&mut node, &ring, &[1, 2, 3]), "three of the four others, but one of them filled");
    assert_eq!(node.to_compare(), [name(4)]);
    node.heard(&name(2), FULL, None);
    assert_eq!(node.to_compare(), [name(2), name(4)], "it is filled now and worth another look");
    assert!(!compared(&mut node, &ring, &[2]) && compared(&mut node, &ring, &[4]));
    // Where two of three lost their disks, each is whole with what the other two hold.
    let ring = self::ring(3, 3);
    let mut node = opened(3, None);
    node.heard(&name(1), FRESH, life(6, 1));
    assert!(!compared(&mut node, &ring, &[1]) && compared(&mut node, &ring, &[2]));
}

#[test]
fn a_partition_may_be_whole_before_the_node_is() {
    let ring = ring(5, 3);
    let me = ring.member_by_name(&name(0)).unwrap();
    let mut node = opened(5, None);
    (1..5).for_each(|peer| {
        node.heard(&name(peer), FULL, life(6, 1));
    });
    compared(&mut node, &ring, &[1, 2]);
    let others = |partition| {
        let owners = ring.owners(partition).iter().filter(|owner| **owner != me);
        owners.map(|owner| ring.member(*owner).name.clone()).collect::<Vec<_>>()
    };
    for &partition in ring.owned_by(me) {
        let among = others(partition).iter().all(|owner| *owner == name(1) || *owner == name(2));
        assert_eq!(node.is_whole(&ring, me, partition), among, "{:?}", others(partition));
    }
    assert!(compared(&mut node, &ring, &[3, 4]) && node.stage() == Stage::Filled);
}

#[test]
fn the_only_owner_of_its_partitions_has_nobody_to_wait_for() {
    let ring = ring(2, 1);
    let mut node = opened(2, None);
    node.heard(&name(1), FULL, life(6, 1));
    assert!(compared(&mut node, &ring, &[1]));
}

#[test]
fn a_folder_whose_note_cannot_be_read_counts_as_new() {
    let mut node = opened(3, Some(b"?"));
    node.heard(&name(1), FULL, None);
    node.silent(&name(2));
    assert_eq!(node.why(), Some(Why::Newcomer));
}

#[test]
fn what_a_node_accepted_stands_unless_its_store_or_one_it_takes_rows_from_may_be_out_of_date() {
    let behind = Word { current: false, ..FULL };
    let node = |lack, peer| {
        let mut node = opened(3, Some(&filled()));
        for peer in [1, 2] {
            node.heard(&name(peer), FULL, None);
        }
        node.lost(lack);
        node.heard(&name(1), peer, None);
        node
    };
    assert!(node(Lack::TAIL, FULL).stands() && node(Lack::TAIL, behind).stands() && node(Lack::ROWS, FULL).stands());
    assert!(!node(Lack::ROWS, behind).stands());
    // A loss is added to those before, and is remembered until the node is filled.
    let mut old = opened(3, Some(&filled()));
    for peer in [1, 2] {
        old.heard(&name(peer), FULL, life(7, 60));
    }
    assert_eq!((old.lack(), old.is_current()), (Some(Lack::LATER), false));
    old.lost(Lack::ROWS);
    assert_eq!(old.lack(), Some(Lack { later: true, rows: true }));
    let again = opened(3, Some(&old.encode()));
    assert_eq!((again.lack(), again.stands()), (old.lack(), false));
    compared(&mut old, &ring(3, 3), &[1, 2]);
    assert_eq!((old.lack(), old.stands()), (None, true));
    // A folder that does not say what it lacks may lack anything.
    assert_eq!(opened(3, Some(br#"{"filled":false,"former":[]}"#)).lack(), again.lack());
}

#[test]
fn a_peer_that_was_a_member_before_remembers_what_this_very_store_told_it() {
    let mut node = opened(3, Some(&filled()));
    node.heard(&name(1), FULL, life(7, 40));
    node.heard(&name(2), FULL, life(7, 50));
    assert_eq!(node.stage(), Stage::Filled);
    // It leaves, and is back; what it remembers is of this life, and later than what the store was opened with.
    node.members([name(2)], false);
    node.members([name(1), name(2)], false);
    assert!(node.has_heard(&name(1)));
    assert!(!node.heard(&name(1), FULL, life(7, 90)));
    assert_eq!(node.stage(), Stage::Filled);
    // One that was never heard since the start may know better.
    node.members([name(1), name(2), name(3)], false);
    assert!(node.heard(&name(3), FULL, life(7, 90)));
    assert_eq!(node.why(), Some(Why::RolledBack));
}

#[test]
fn whoever_has_just_become_a_member_lacks_nothing_of_what_it_owned_before() {
    let mut node = opened(3, None);
    node.time_is_up();
    assert_eq!(node.stage(), Stage::Asking);
    assert!(node.members([name(1), name(2)], true));
    assert_eq!((node.stage(), node.lack()), (Stage::Filled, None));
    assert!(!node.is_confirmed(), "whether it may vote its peers have yet to say");
}
