//! Linearizable per key, in the modes that promise it: real nodes, real clients, faults between them, and a checker.

#[path = "linearizable/checker.rs"]
mod checker;
#[path = "linearizable/clients.rs"]
mod clients;
#[path = "linearizable/faults.rs"]
mod faults;
#[path = "linearizable/history.rs"]
mod history;
#[path = "linearizable/meaning.rs"]
mod meaning;
#[path = "linearizable/planted.rs"]
mod planted;
#[path = "linearizable/races.rs"]
mod races;
#[path = "linearizable/rig.rs"]
mod rig;
mod support;
#[path = "linearizable/table.rs"]
mod table;
#[path = "linearizable/twin.rs"]
mod twin;

use clients::Mix;
use faults::Kind;
use rig::{Plan, Wants, play};

/// Histories of each mode in a quick run, some seconds each, and in a thorough one.
const FEW: usize = 4;
const MANY: usize = 50;

/// The modes that promise it.
const CP: [&str; 3] = ["quorum", "sync", "chain"];

fn histories_are_linearizable(test: &str, modes: &'static [&'static str]) {
    let plan = Plan {
        modes,
        clients: 5,
        nodes: &[3, 3, 4, 5],
        kinds: &Kind::ALL,
        mixes: &Mix::ALL,
        wants: Wants::Linearizable,
    };
    let sum = play(test, &plan, FEW, MANY);
    let answered = sum.operations - sum.unknown;
    assert!(answered >= 100 * sum.histories, "hardly anything was answered: {sum:?}");
    assert!(sum.conditions_failed > 0, "no condition ever failed: {sum:?}");
}

#[test]
fn quorum_histories_with_faults_are_linearizable() {
    histories_are_linearizable("quorum_histories_with_faults_are_linearizable", &["quorum"]);
}

#[test]
fn sync_histories_with_faults_are_linearizable() {
    histories_are_linearizable("sync_histories_with_faults_are_linearizable", &["sync"]);
}

#[test]
fn chain_histories_with_faults_are_linearizable() {
    histories_are_linearizable("chain_histories_with_faults_are_linearizable", &["chain"]);
}

#[test]
fn histories_that_mix_these_modes_on_every_key_are_linearizable() {
    histories_are_linearizable("histories_that_mix_these_modes_on_every_key_are_linearizable", &CP);
}

#[test]
fn histories_across_changes_of_owners_are_linearizable() {
    let plan = Plan {
        modes: &CP,
        clients: 5,
        nodes: &[3, 3, 4],
        kinds: &[Kind::Change],
        mixes: &Mix::ALL,
        wants: Wants::Linearizable,
    };
    let sum = play("histories_across_changes_of_owners_are_linearizable", &plan, FEW, MANY);
    assert!(sum.operations - sum.unknown >= 100 * sum.histories, "hardly anything was answered: {sum:?}");
}

// ---- the rig itself: what must pass, and what must not

#[test]
fn one_node_alone_is_linearizable_in_any_mode() {
    let (mixes, kinds) = (&[Mix::Plain, Mix::Counter, Mix::ResetCounter], &[Kind::Kill, Kind::Freeze]);
    let plan = Plan { modes: &["sloppy"], clients: 5, nodes: &[1], kinds, mixes, wants: Wants::Linearizable };
    let sum = play("one_node_alone_is_linearizable_in_any_mode", &plan, 2, 20);
    // A busy machine gets through fewer in the same time.
    assert!(sum.operations > 200, "{sum:?}");
}

#[test]
fn whatever_went_wrong_every_node_answers_for_every_key_afterwards() {
    let test = "whatever_went_wrong_every_node_answers_for_every_key_afterwards";
    let mixes = &[Mix::Plain, Mix::Counter, Mix::ResetCounter];
    let plan =
        Plan { modes: &["sloppy"], clients: 5, nodes: &[3, 4, 5], kinds: &Kind::ALL, mixes, wants: Wants::Answers };
    play(test, &plan, 2, 20);
}

/// One client only, so that it is the splits and nothing else.
#[test]
fn a_sloppy_history_is_not_linearizable_with_splits_and_is_without_and_the_checker_sees_both() {
    let test = "a_sloppy_history_is_not_linearizable_with_splits_and_is_without_and_the_checker_sees_both";
    let alone = Plan {
        modes: &["sloppy"],
        clients: 1,
        nodes: &[3],
        kinds: &[],
        mixes: &[Mix::Plain],
        wants: Wants::Linearizable,
    };
    play(test, &alone, 1, 5);
    let sum = play(test, &Plan { kinds: &[Kind::Split], wants: Wants::Violation, ..alone }, 8, 8);
    let first = sum.violations.first().unwrap_or_else(|| panic!("splits do nothing: {sum:?}"));
    assert!(first.contains("none of these can follow"), "{first}");
    eprintln!("{first}");
}
