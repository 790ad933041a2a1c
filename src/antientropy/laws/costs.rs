//! What sessions promise of what they cost: round trips, bytes, and how much is read and sent at a time.

use super::*;
use crate::protocol::{SyncRequest, wire_bytes};

#[test]
fn one_key_among_many_is_found_in_five_rounds_and_in_four_if_it_is_small() {
    for (bytes, rounds) in [(100, 4), (2_000, 5)] {
        let mut world = World::new(2);
        // As many keys in one partition as a million make in all of them.
        let crowd = (0..).map(|n| Key::new(format!("crowd{n}")).unwrap());
        let partition = Partition::of(key(0).position());
        let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()) == partition).take(200).collect();
        crowd.iter().for_each(|key| world.give_both(key, vec![1]));
        world.nodes[1].write(&key(0), Seen::Everything, Some(vec![1; bytes]));
        let report = world.heal(1);
        assert_eq!((report.partitions, report.leaves, report.pulled, report.rounds), (1, 1, 1, rounds));
        let record = wire_bytes(&world.nodes[0].record(&key(0)));
        assert!(report.bytes_out + report.bytes_in - record <= 4096, "{report:?}");
        assert_eq!(world.nodes[0].values_taken, 1);
    }
}

/// No more comes with an answer than a session has on its way: what is past that is asked for.
#[test]
fn small_records_come_with_the_answer_up_to_a_bound() {
    let mut world = World::new(2);
    let crowd = (0..5_000_000).filter_map(|n| Key::new(format!("crowd{n}")).ok());
    let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() < 1).take(4_000).collect();
    crowd.iter().for_each(|key| world.nodes[1].write(key, Seen::Everything, Some(vec![1; 900])));
    let (mut asked, mut longest) = (0, 0);
    let report = world.session(&mut ChaCha8Rng::seed_from_u64(1), Stamp(u64::MAX), |world, request| {
        asked += u64::from(matches!(request, Request::Read { .. }));
        let answer = matches!(request, Request::Sync(_)).then(|| world.answer(1, request.clone()))?;
        longest = longest.max(wire_bytes(&answer));
        Some(Ok(answer))
    });
    assert_eq!((report.pulled, report.noop, world.nodes[0].values_taken), (4_000, 0, 4_000), "{report:?}");
    assert!((1_000..3_000).contains(&asked), "{asked} were asked for");
    assert!(longest < 3 << 20, "an answer of {longest} bytes");
}

/// A million keys are 977 in each partition. Here are as many in some of them, and one of a hundred differs.
#[test]
fn at_a_million_keys_a_differing_one_costs_few_bytes_of_digests() {
    let mut world = World::new(2);
    let partitions = 8;
    let crowd = (0..1_000_000).filter_map(|n| Key::new(format!("crowd{n}")).ok());
    let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() < partitions).collect();
    crowd.iter().for_each(|key| world.give_both(key, vec![1]));
    let differing: Vec<&Key> = crowd.iter().step_by(100).collect();
    let mut records = 0;
    for key in &differing {
        world.nodes[0].write(key, Seen::Everything, Some(vec![2; 100]));
        // The request with its key, and an answer of three bytes.
        let record = world.nodes[0].record(key).unwrap();
        records += wire_bytes(&Request::Merge { key: (*key).clone(), record }) + 3;
    }
    let report = world.heal(1);
    assert_eq!((report.pushed, report.pulled, report.noop), (differing.len() as u64, 0, 0));
    let digests = (report.bytes_out + report.bytes_in - records) / differing.len() as u64;
    eprintln!("{} of {} keys differ: {digests} bytes of digests each; {report:?}", differing.len(), crowd.len());
    assert!(digests <= 160, "{digests} bytes of digests for each key that differs: {report:?}");
}

/// What a node costs that was away while one key in a hundred was written, whoever of the two notices first.
#[test]
fn at_a_million_keys_a_missing_one_costs_few_bytes_in_all() {
    for holder in [0, 1] {
        let mut world = World::new(2);
        let crowd = (0..1_000_000).filter_map(|n| Key::new(format!("key:{n:012}")).ok());
        let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() < 8).collect();
        for (number, key) in crowd.iter().enumerate() {
            if number % 100 == 0 {
                world.nodes[holder].write(key, Seen::Everything, Some(vec![2; 100]));
            } else {
                world.give_both(key, vec![1]);
            }
        }
        let report = world.heal(1);
        let missing = crowd.len().div_ceil(100) as u64;
        assert_eq!((report.pushed + report.pulled, report.noop), (missing, 0));
        let each = (report.bytes_out + report.bytes_in) / missing;
        eprintln!("{missing} of {} keys missing, held by {holder}: {each} bytes each; {report:?}", crowd.len());
        assert!(each <= 250, "{each} bytes for each key that is missing: {report:?}");
    }
}

/// A question over more would be answered too late by a node that is busy with other things.
#[test]
fn a_comparison_reads_a_bounded_part_of_a_large_store_at_a_time() {
    let mut world = World::new(2);
    let crowd = (0..1_000_000).filter_map(|n| Key::new(format!("crowd{n}")).ok());
    let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() < 75).collect();
    let mut rows = std::collections::BTreeMap::<Partition, usize>::new();
    for (number, key) in crowd.iter().enumerate() {
        *rows.entry(Partition::of(key.position())).or_default() += 1;
        if number % 100 == 0 {
            world.nodes[number / 100 % 2].write(key, Seen::Everything, Some(vec![2]));
        } else {
            world.give_both(key, vec![1]);
        }
    }
    let mut read = Vec::new();
    let report = world.session(&mut ChaCha8Rng::seed_from_u64(1), Stamp(u64::MAX), |_, request| {
        if let Request::Sync(SyncRequest::Compare { beds, .. }) = request {
            read.push(beds.iter().map(|(bed, _)| rows[&bed.partition]).sum::<usize>());
        }
        None
    });
    assert_eq!((report.pushed + report.pulled, report.failed), (crowd.len().div_ceil(100) as u64, None));
    assert!(crowd.len() > 1 << 16 && read.len() > 1 && read.iter().all(|rows| *rows <= 1 << 16), "{read:?}");
}
