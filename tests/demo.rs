//! `kringle demo`, by the real binary: what its console answers, that its nodes end with it, that its demonstrations hold
//! and can fail, and that it grows and shrinks without losing a key.

#[path = "demo/autoscale.rs"]
mod autoscale;
#[path = "demo/rig.rs"]
mod rig;
mod support;

use rig::{Demo, Unread, is_alive, run};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::node::{program, refused, reserve_port};
use support::{eventually, http, thorough};

/// Long enough for anything on a busy machine.
const SOON: Duration = Duration::from_secs(90);

// ---- the console

#[test]
fn commands_from_a_pipe_are_answered_as_documented_and_exit_ends_it() {
    let base = reserve_port();
    // A port in the way is passed over.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).expect("the port that was free");
    let commands = "update e\nget e\nget unknown\nstatus\nfrobnicate\n\nput note two eggs\nget note\nput k\nbatchupdate\nget a\n\
                    get e\nincr e 5\nincr e -2\ndel note\nget note\nload 60\nmode\nmode quorum\nring e\nring\nhelp\nexit\nget e\n";
    let ended = run(&["--nodes", "3", "--base-port", &base.to_string()], commands);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ports = ended.ports();
    assert!(ports.len() == 3 && !ports.contains(&base), "{ports:?} with {base} taken");
    drop(taken);

    let (introduction, answers) = ended.answers();
    assert!(introduction[0].starts_with("3 nodes in ") && introduction[0].ends_with(", removed at the end"));
    let folder = introduction[0].trim_start_matches("3 nodes in ").trim_end_matches(", removed at the end");
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left behind");

    let mut answers = answers.iter().map(String::as_str);
    let mut next = || answers.next().unwrap_or_else(|| panic!("an answer is missing: {ended:?}"));
    assert_eq!(next(), "Update successful");
    assert_eq!(next(), "Count for e: 1");
    assert_eq!(next(), "Count for unknown: 0");
    assert_eq!(next(), format!("Ports: {}, {}, {}", ports[0], ports[1], ports[2]));
    for number in 1..=3 {
        let (line, title) = (next(), format!("Node {number} ({}): ", ports[number - 1]));
        // The last owner may not have it yet.
        assert!(line == format!("{title}e: 1") || line == format!("{title}No events"), "{line}");
    }
    assert_eq!(next(), "Unknown command \"frobnicate\": type help for the commands");
    assert_eq!(next(), "Put successful");
    assert_eq!(next(), "Value for note: two eggs");
    assert!(next().starts_with("Usage: put <key> <value>"));
    assert_eq!(next(), "Batch update successful: 26 counters");
    assert_eq!(next(), "Count for a: 1");
    assert_eq!(next(), "Count for e: 2");
    assert_eq!(next(), "Count for e: 7");
    assert_eq!(next(), "Count for e: 5");
    assert_eq!(next(), "Delete successful");
    assert_eq!(next(), "Count for note: 0");
    let loaded = next();
    assert!(loaded.starts_with("Loaded 60 of 60 keys and read 60 back in "), "{loaded}");
    assert!(loaded.ends_with(" s: 0 failed, 0 wrong"), "{loaded}");
    assert_eq!(next(), "Mode: sloppy");
    assert_eq!(next(), "Mode: quorum");
    assert!(next().starts_with("Position "));
    let mut owners = next().to_owned();
    // Ports of five digits make more than a line of it.
    let stand_ins = loop {
        match next() {
            more if more.starts_with("  ") => owners += more,
            other => break other,
        }
    };
    assert!(owners.starts_with("Owners: node ") && owners.matches(", running)").count() == 3, "{owners}");
    assert_eq!(stand_ins, "Stand-ins: none");
    assert!(next().starts_with("1024 partitions, epoch "));
    for number in 1..=3 {
        let line = next();
        let (title, tokens) =
            (format!("Node {number} ({}, running): 33.", ports[number - 1]), " % of the copies, 128 tokens");
        assert!(line.starts_with(&title) && line.ends_with(tokens), "{line}");
    }
    let help: Vec<&str> = (0..21).map(|_| next()).collect();
    assert!(help.first().is_some_and(|line| line.starts_with("  status")), "{help:?}");
    assert!(help.last().is_some_and(|line| line.starts_with("  exit")), "{help:?}");
    assert_eq!(next(), "Exiting...");
    assert_eq!(answers.next(), None, "something was done behind exit: {ended:?}");
}

#[test]
fn nodes_die_freeze_join_leave_and_are_cut_off_as_the_console_is_told() {
    let mut demo = Demo::start(&["--nodes", "4"]);
    let (ports, pids) = (demo.ports(), demo.pids());
    assert_eq!(demo.ask("put kept value"), ["Put successful"]);

    assert_eq!(demo.ask("kill 2"), [format!("Node 2 ({}) killed", ports[1])]);
    assert!(!is_alive(pids[1]));
    assert_eq!(demo.ask("kill 2"), ["node 2 is dead: revive it first"]);
    assert_eq!(demo.ask("kill 9"), ["no node is called 9: take a number or a port from status"]);
    assert!(demo.ask("status").contains(&format!("Node 2 ({}) is dead", ports[1])));
    assert_eq!(demo.ask("get kept"), ["Value for kept: value"]);
    // By its port as well.
    assert_eq!(demo.ask(&format!("revive {}", ports[1])), [format!("Node 2 ({}) revived", ports[1])]);
    assert_eq!(http::Client::new(&format!("127.0.0.1:{}", ports[1])).get("/readyz").status, 200);

    assert_eq!(demo.ask("pause 3"), [format!("Node 3 ({}) paused", ports[2])]);
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pids[2])).expect("a process");
    assert!(state.contains(") T "), "not stopped: {state}");
    assert!(demo.ask("status").contains(&format!("Node 3 ({}) is paused", ports[2])));
    // Until the others have noticed, one that it may have taken is not made a second time, and answers that nobody knows.
    eventually("the others count without it", SOON, || {
        let answer = demo.ask("update e").concat();
        if answer.starts_with("Update successful") { Ok(()) } else { Err(answer) }
    });
    assert_eq!(demo.ask("resume 3"), [format!("Node 3 ({}) resumed", ports[2])]);
    assert_eq!(demo.ask("resume 3"), ["node 3 is running: there is nothing to resume"]);
    let counted = demo.ask("get e").concat();
    assert!(counted.starts_with("Count for e: ") && !counted.starts_with("Count for e: 0"), "{counted}");

    let added = demo.ask("add").concat();
    assert!(added.starts_with("Node 5 ("), "{added}");
    let port: u16 = added.split(['(', ')']).nth(1).and_then(|port| port.parse().ok()).expect("its port");
    let cluster = http::Client::new(&format!("127.0.0.1:{port}")).get("/cluster").expect(200).json();
    assert_eq!((&cluster["member"], &cluster["changing"]), (&true.into(), &false.into()), "{cluster}");
    assert_eq!(cluster["members"].as_array().map(Vec::len), Some(5), "{cluster}");

    assert_eq!(demo.ask("cut 1 2,3"), ["Cut: 1 from 2, 1 from 3"]);
    let cut =
        |port: u16| http::Client::new(&format!("127.0.0.1:{port}")).get("/faults").expect(200).json()["cut"].clone();
    assert_eq!(cut(ports[0]).as_array().map(Vec::len), Some(2), "{}", cut(ports[0]));
    assert_eq!(cut(ports[1]).as_array().map(Vec::len), Some(1), "{}", cut(ports[1]));
    assert!(demo.ask("status").contains(&"Cut: 1 from 2, 1 from 3".to_owned()));

    // Alone it agrees with nobody, and says so within its time.
    assert_eq!(demo.ask("mode quorum"), ["Mode: quorum"]);
    assert_eq!(demo.ask("cut 1 2,3,4,5").len(), 1);
    let alone = demo.ask("put kept other").concat();
    assert!(alone.contains("surface"), "a node that is cut from all others took a write in mode quorum: {alone}");
    assert_eq!(demo.ask("heal"), ["Healed"]);
    eventually("they hear each other again", SOON, || {
        let answer = demo.ask("put kept value").concat();
        if answer == "Put successful" { Ok(()) } else { Err(answer) }
    });
    assert_eq!(demo.ask("mode sloppy"), ["Mode: sloppy"]);
    assert!(ports[..3].iter().all(|port| cut(*port).as_array().is_some_and(Vec::is_empty)));

    // One that runs hands over, one that is dead is done without.
    assert_eq!(demo.ask("remove 5"), [format!("Node 5 ({port}) removed")]);
    demo.ask("kill 4");
    assert_eq!(demo.ask("remove 4"), [format!("Node 4 ({}) removed", ports[3])]);
    assert_eq!(demo.ask("status")[0], format!("Ports: {}, {}, {}", ports[0], ports[1], ports[2]));
    assert_eq!(demo.ask("get kept"), ["Value for kept: value"]);
    demo.end_of_input();
    assert_eq!(demo.await_end().0, Some(0));
}

#[test]
fn two_demos_that_begin_at_the_same_port_at_the_same_time_do_not_meet() {
    let base = reserve_port().to_string();
    let mut demos = [0, 1].map(|_| Demo::begin(&["--nodes", "3", "--base-port", &base]));
    let ports: Vec<u16> = demos
        .iter_mut()
        .flat_map(|demo| {
            demo.ask("");
            demo.ports()
        })
        .collect();
    let different: std::collections::BTreeSet<&u16> = ports.iter().collect();
    assert!(ports.len() == 6 && different.len() == 6, "{ports:?}");
    let [one, other] = &mut demos;
    assert_eq!(one.ask("put whose one"), ["Put successful"]);
    assert_eq!(other.ask("get whose"), ["Count for whose: 0"]);
}

#[test]
fn a_benchmark_counts_what_it_has_checked() {
    let mut demo = Demo::start(&["--nodes", "3"]);
    let said = demo.ask("bench 1");
    assert!(said[0].starts_with("10 clients, ") && said[0].ends_with(" 0 failed, 0 wrong"), "{said:?}");
    for (line, name) in said[1..].iter().zip(["Writes", "Reads"]) {
        let count: u64 = line.split([' ', ',']).nth(1).and_then(|count| count.parse().ok()).expect("a count");
        assert!(line.starts_with(name) && count > 0 && line.contains("p99"), "{line}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn the_status_of_very_many_counters_is_bounded_and_says_that_there_are_more() {
    let mut demo = Demo::start(&["--nodes", "1"]);
    let mut node = http::Client::new(&format!("127.0.0.1:{}", demo.ports()[0]));
    let lines: String = (0..1_001).map(|number| format!("{{\"op\":\"incr\",\"key\":\"c{number}\"}}\n")).collect();
    node.send(&http::Request::new("POST", "/batch").body(lines)).expect(200);
    let status = demo.ask("status");
    assert_eq!(status.last().map(String::as_str), Some("There are more counters than these 1000"), "{status:?}");
    // The first line has the ports.
    assert_eq!(status[1..].concat().matches(": 1").count(), 1_000, "{status:?}");
}

#[test]
fn a_cut_that_could_not_be_ended_is_kept_in_mind_until_it_is() {
    if !thorough() {
        // A node that hangs is waited for, each time.
        return;
    }
    let mut demo = Demo::start(&["--nodes", "3"]);
    let (ports, pid) = (demo.ports(), demo.pids()[0]);
    assert_eq!(demo.ask("cut 1,3 2"), ["Cut: 1 from 2, 2 from 3"]);
    let signal = |signal| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal to a node");
    };
    // It hangs without the demo's doing.
    signal(Signal::STOP);
    assert_ne!(demo.ask("heal"), ["Healed"]);
    for port in &ports[1..] {
        let faults = http::Client::new(&format!("127.0.0.1:{port}")).get("/faults").expect(200).json();
        assert_eq!(faults["cut"].as_array().map(Vec::len), Some(0), "one that can be told was not: {faults}");
    }
    signal(Signal::CONT);
    assert_eq!(demo.ask("heal"), ["Healed"]);
    let faults = http::Client::new(&format!("127.0.0.1:{}", ports[0])).get("/faults").expect(200).json();
    assert_eq!(faults["cut"].as_array().map(Vec::len), Some(0), "{faults}");
}

#[test]
fn on_a_terminal_it_asks_how_many_nodes_there_shall_be() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no script(1)");
        return;
    }
    let words = format!("{} demo --base-port {}", program().display(), reserve_port());
    let mut command = Command::new("script");
    command.args(["-qec", &words, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut demo = Demo::attached_to(command);
    demo.send("none");
    demo.send("0");
    demo.send("2");
    let log = demo.await_said("Type help for the commands, exit to end.");
    assert_eq!(log.matches("How many nodes? [5]").count(), 3, "{log}");
    assert_eq!(log.matches("A number from 1 to 64, please.").count(), 2, "{log}");
    assert!(log.contains("2 nodes in "), "{log}");
    demo.send("update e");
    demo.await_said("Update successful");
    demo.send("exit");
    let (code, said) = demo.await_end();
    assert!(code == Some(0) && said.contains("Exiting..."), "{code:?} {said}");
    assert!(said.contains("\n> ") || said.contains("\r> ") || said.contains("> update e"), "no prompt: {said}");
}

// ---- the end

/// A demo of two nodes, the second of them frozen, that something ends: the exit code.
#[track_caller]
fn everything_is_gone_after(end: impl FnOnce(&mut Demo)) -> Option<i32> {
    let mut demo = Demo::start(&["--nodes", "2"]);
    demo.ask("pause 2");
    let pids = demo.pids();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    end(&mut demo);
    let (code, said) = demo.await_end();
    eventually("the nodes are gone", SOON, || {
        let left: Vec<&u32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {pids:?}; {said}")) }
    });
    code
}

#[test]
fn no_node_is_left_at_the_end_of_the_input_or_after_a_signal() {
    assert_eq!(everything_is_gone_after(Demo::end_of_input), Some(0));
    assert_eq!(everything_is_gone_after(|demo| demo.signal(Signal::TERM)), Some(0));
    assert_eq!(everything_is_gone_after(|demo| demo.signal(Signal::INT)), Some(130));
}

#[test]
fn no_node_outlives_a_demo_that_was_killed_not_even_a_frozen_one() {
    assert_eq!(everything_is_gone_after(|demo| demo.signal(Signal::KILL)), None);
}

#[test]
fn a_second_signal_ends_it_even_while_nobody_reads_what_it_writes() {
    let mut demo = Unread::start(&["--nodes", "1"]);
    demo.fill();
    eventually("it ends", SOON, || {
        demo.signal(Signal::TERM);
        demo.ended()
    });
}

#[test]
fn what_is_kept_with_data_is_there_the_next_time_and_nobody_is_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("demo").display().to_string();
    let first = run(&["--nodes", "3", "--data", &data], "put k value\nupdate e\nexit\n");
    assert_eq!(first.code, Some(0), "{first:?}");
    let fewer = run(&["--nodes", "2", "--data", &data], "exit\n");
    assert!(fewer.code == Some(2) && fewer.stderr.contains("has 3 nodes"), "{fewer:?}");
    // On other ports, and without saying how many.
    let again = run(&["--data", &data], "get k\nget e\nexit\n");
    let (introduction, answers) = again.answers();
    assert!(introduction[0].starts_with("3 nodes in ") && introduction[0].ends_with("demo"), "{again:?}");
    assert_eq!(answers, ["Value for k: value", "Count for e: 1", "Exiting..."], "{again:?}");
    // To the autoscaler --nodes is the least, and there may be more.
    let words = ["--nodes", "2", "--autoscale", "--scale-check", "200ms", "--scale-cooldown", "500ms", "--data", &data];
    let mut scaled = Demo::start(&words);
    assert!(scaled.said().starts_with("3 nodes in "), "{}", scaled.said());
    eventually("the third node is let go", SOON, || {
        let status = scaled.ask("status");
        if status[0].matches(',').count() == 1 { Ok(()) } else { Err(format!("{status:?}; {}", scaled.talk())) }
    });
    assert_eq!(scaled.ask("get k"), ["Value for k: value"]);
}

/// Has a node leave by its own interface, as a removal does that breaks off behind its request, and waits until it has.
#[track_caller]
fn have_leave(port: u16) {
    let mut node = http::Client::new(&format!("127.0.0.1:{port}"));
    node.send(&http::Request::new("POST", "/cluster/leave")).expect(200);
    eventually("it has left", SOON, || {
        let cluster = node.get("/cluster").expect(200).json();
        if cluster["member"] == false { Ok(()) } else { Err(cluster.to_string()) }
    });
}

#[test]
fn a_node_that_has_left_is_in_nobodys_way_and_can_be_removed() {
    let mut demo = Demo::start(&["--nodes", "3"]);
    let ports = demo.ports();
    have_leave(ports[2]);
    let added = demo.ask("add").concat();
    assert!(added.starts_with("Node 4 ("), "{added}");
    assert_eq!(demo.ask("remove 3"), [format!("Node 3 ({}) removed", ports[2])]);
    let removed = demo.ask("remove 4").concat();
    assert!(removed.starts_with("Node 4 (") && removed.ends_with(" removed"), "{removed}");
    assert_eq!(demo.ask("status")[0], format!("Ports: {}, {}", ports[0], ports[1]));
}

#[test]
fn nodes_that_were_leaving_when_a_demo_with_data_ended_do_not_keep_the_next_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("demo");
    let words = ["--data", data.to_str().expect("a path of text")];
    let mut first = Demo::start(&[&["--nodes", "4"][..], &words].concat());
    assert_eq!(first.ask("put k value"), ["Put successful"]);
    have_leave(first.ports()[3]);
    first.end_of_input();
    assert_eq!(first.await_end().0, Some(0));
    // Nobody here was told to remove it: it stays until somebody is. Another one was to go and had not heard of it.
    std::fs::write(data.join("n3/leaving"), "").expect("a mark");
    let second = run(&words, "remove 4\nget k\nexit\n");
    assert!(second.stderr.contains("Node 4 is no member"), "{second:?}");
    let (introduction, answers) = second.answers();
    assert!(introduction[0].starts_with("3 nodes in "), "{second:?}");
    assert!(answers[0].starts_with("Node 4 (") && answers[0].ends_with(" removed"), "{answers:?}");
    assert_eq!(answers[1..], ["Value for k: value", "Exiting..."], "{second:?}");
    assert!(data.join("n2").exists() && !data.join("n3").exists() && !data.join("n4").exists());
}

// ---- what cannot be done

#[test]
fn the_nodes_in_a_folder_count_against_what_autoscale_and_scripts_take() {
    let folder = tempfile::tempdir().expect("a folder");
    for node in ["n1", "n2"] {
        std::fs::create_dir(folder.path().join(node)).expect("a folder of a node");
    }
    let data = folder.path().to_str().expect("a path of text");
    for (words, told) in
        [(&["--autoscale", "--max-nodes", "1"][..], "--max-nodes 1"), (&["--script", "failover"], "--nodes 3 to 9")]
    {
        let refused = run(&[words, &["--data", data]].concat(), "");
        assert!(refused.code == Some(2) && refused.stderr.contains(told), "{words:?}: {refused:?}");
    }
    let bounded = run(&["--autoscale", "--max-nodes", "1"], "exit\n");
    assert!(bounded.stdout.starts_with("1 node in "), "more than --max-nodes are started: {bounded:?}");
}

#[test]
fn arguments_that_make_no_sense_end_it_with_2_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    for (words, told) in [
        (&["demo", "--nodes", "0"][..], "--nodes"),
        (&["demo", "--mode", "strong"], "sloppy, async, quorum, sync, chain"),
        (&["demo", "--autoscale", "--nodes", "5", "--max-nodes", "4"], "--max-nodes 4"),
        (&["demo", "--script", "none"], "failover, all-modes, dynamo"),
        (&["demo", "--", "--port", "1"], "--port"),
        (&["demo", "--", "--replicas", "0"], "replicas"),
        (&["demo-node", "x"], "kringle demo"),
    ] {
        let refused = refused(folder.path(), words, &[]);
        assert!(refused.code == Some(2) && refused.stderr.contains(told), "{words:?}: {refused:?}");
    }
    // A node whose demo has died before it could ask to end with it.
    let orphan = refused(folder.path(), &["demo-node", "1", "--memory", "--port", "0"], &[]);
    assert!(orphan.with_one_line(1).contains("is gone"));
}

#[test]
fn the_help_shows_how_it_is_used_in_80_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = refused(folder.path(), &["demo", "--help"], &[]);
    assert!(help.code == Some(0) && help.stderr.is_empty(), "{help:?}");
    for said in ["Usage: kringle demo", "--autoscale", "--script", "Examples:", "Exit codes:"] {
        assert!(help.stdout.contains(said), "no {said:?} in {}", help.stdout);
    }
    for line in help.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

// ---- demonstrations

/// The verdict of a script, as its numbers of checks passed and failed.
#[track_caller]
fn verdict(words: &[&str]) -> (Option<i32>, u32, u32, String) {
    let ended = run(words, "");
    let numbers: Vec<u32> =
        ended.stdout.lines().last().unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
    let [passed, failed] = numbers[..] else { panic!("no verdict: {ended:?}") };
    assert_eq!(ended.stdout.matches("\n  ok    ").count(), passed as usize, "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("\n  FAIL  ").count(), failed as usize, "{}", ended.stdout);
    (ended.code, passed, failed, ended.stdout)
}

#[test]
fn the_owners_of_a_key_die_and_come_back_and_every_check_holds() {
    let (code, passed, failed, said) = verdict(&["--script", "failover", "--mode", "quorum"]);
    assert!(code == Some(0) && failed == 0 && passed > 20, "{said}");
    assert_eq!(said.matches("is dead").count(), 2, "{said}");
    assert!(said.contains("answers 503"), "two owners dead refuse nothing: {said}");
}

#[test]
fn every_mode_does_what_it_owes_with_owners_dead() {
    let (code, passed, failed, said) = verdict(&["--script", "all-modes"]);
    assert!(code == Some(0) && failed == 0 && passed > 60, "{said}");
    for mode in ["sloppy", "async", "quorum", "sync", "chain"] {
        assert!(said.contains(&format!("{mode}: a write through node")), "{mode}: {said}");
    }
}

#[test]
fn what_the_paper_shows_is_shown() {
    let (code, passed, failed, said) = verdict(&["--script", "dynamo"]);
    assert!(code == Some(0) && failed == 0 && passed > 20, "{said}");
}

#[test]
fn a_script_finds_out_a_cluster_that_does_not_keep_what_its_mode_promises() {
    // With one owner dead a majority of them is still there; these nodes want all three.
    let (code, passed, failed, said) = verdict(&["--script", "failover", "--nodes", "4", "--", "--w", "3"]);
    assert!(code == Some(1) && failed > 0 && passed > 0, "{said}");
    assert!(said.contains("FAIL  sloppy: a write through node"), "{said}");
}
