//! `kringlectl bench` against real nodes, and against servers that lie or stand still: it counts what is right, and
//! nothing else.

mod support;

#[path = "bench_tool/stand_in.rs"]
mod stand_in;
#[path = "bench_tool/tool.rs"]
mod tool;

use serde_json::Value;
use stand_in::{Lie, StandIn};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::cluster::Cluster;
use support::node::{Node, reserve_port};
use tool::{Tool, bench};

/// Everything that can be asked.
const EVERYTHING: &str = "get=30,put=30,del=10,incr=10,list=10,batch=10";

fn url(node: &Node) -> String {
    format!("http://{}", node.address())
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().expect("counts by kind").values().map(|count| count.as_u64().expect("a count")).sum()
}

/// Every request has one outcome, and all operations together are what is told of all.
#[track_caller]
fn assert_adds_up(report: &Value) {
    let operations = report["operations"].as_object().expect("operations");
    for (name, counted) in operations.iter().chain([(&"all".to_owned(), &report["all"])]) {
        let outcomes =
            counted["verified"].as_u64().expect("a count") + sum(&counted["failed"]) + sum(&counted["wrong"]);
        assert_eq!(counted["issued"].as_u64(), Some(outcomes), "{name}: {counted}");
    }
    let issued: u64 = operations.values().map(|counted| counted["issued"].as_u64().expect("a count")).sum();
    assert_eq!(report["all"]["issued"].as_u64(), Some(issued));
}

// ---- real nodes

#[test]
fn a_node_answers_all_that_can_be_asked_and_every_answer_is_checked() {
    let node = Node::in_memory();
    let words = ["-e", &url(&node), "-o", "json", "--preload", "--keys", "400", "--requests", "1500", "--clients", "8"];
    let report = bench(&[&words[..], &["--mix", EVERYTHING, "--zipf", "0.99", "--warmup", "0"]].concat()).json(0);
    assert_adds_up(&report);
    assert_eq!(report["all"]["issued"], 1500, "{report}");
    assert_eq!((sum(&report["all"]["failed"]), sum(&report["all"]["wrong"])), (0, 0), "{report}");
    for operation in ["get", "put", "del", "incr", "list", "batch"] {
        let counted = &report["operations"][operation];
        assert!(counted["verified"].as_u64() > Some(50), "{operation}: {counted}");
        assert!(counted["latency_ms"]["p50"].as_f64() > Some(0.0), "{operation}: {counted}");
    }
    assert!(report["counters"]["right"].as_u64() > Some(0) && report["counters"]["wrong"] == 0, "{report}");
    assert!(report["all"]["bytes_written"].as_u64() > Some(100 * 100), "{report}");
    // It did what it says: the keys are there.
    let page = node.get("/kv?prefix=bench/&limit=10000").expect(200).json();
    assert!(page["keys"].as_array().expect("keys").len() > 200, "{page}");
}

#[test]
fn three_nodes_are_asked_in_turn_and_keep_what_each_mode_promises() {
    let cluster = Cluster::start(3, &["--memory", "--pingfreq", "0.5", "--timeout", "5"]);
    let endpoints: Vec<String> = cluster.nodes.iter().map(url).collect();
    for mode in ["sloppy", "async", "quorum", "sync", "chain"] {
        let prefix = format!("{mode}/");
        let words =
            ["-e", &endpoints.join(","), "-o", "json", "--prefix", &prefix, "--mode", mode, "--mix", EVERYTHING];
        let more = ["--keys", "100", "--requests", "400", "--clients", "6", "--threads", "2", "--warmup", "0", "-q"];
        let said = bench(&[&words[..], &more].concat());
        // On a busy machine a node may say that it could not; it may never say anything that is not so.
        assert!(matches!(said.code, Some(0 | 8)), "{mode}: {said:?}");
        assert_eq!(said.stderr, "", "it was told to be quiet");
        let report = said.json(said.code.unwrap_or_default());
        assert_adds_up(&report);
        assert!(report["all"]["verified"].as_u64() > Some(350), "{mode}: {report}");
        assert_eq!((sum(&report["all"]["wrong"]), &report["counters"]["wrong"]), (0, &0.into()), "{mode}: {report}");
    }
}

#[test]
fn counting_goes_on_when_a_node_is_killed_and_the_exit_code_says_so() {
    let mut cluster = Cluster::start(3, &["--memory", "--pingfreq", "0.5", "--timeout", "3"]);
    let endpoints: Vec<String> = cluster.nodes.iter().map(url).collect();
    let words = ["-e", &endpoints.join(","), "-o", "json", "--clients", "9", "--mix", "put", "--seconds", "8"];
    let mut tool = Tool::start(&words);
    tool.await_lines(3);
    cluster.nodes[1].kill();
    let said = tool.end();
    let report = said.json(8);
    assert_adds_up(&report);
    let failed = &report["all"]["failed"];
    assert!(sum(failed) > 0 && sum(&report["all"]["wrong"]) == 0, "{report}");
    assert!(!report["reasons"].as_object().expect("reasons").is_empty(), "{report}");
    let seconds = report["seconds"].as_array().expect("seconds");
    let last = seconds.iter().rev().take(3);
    assert!(last.map(|second| second["verified"].as_u64().expect("a count")).sum::<u64>() > 0, "{report}");
}

#[test]
fn ctrl_c_ends_it_with_what_it_has() {
    let node = Node::in_memory();
    let mut tool =
        Tool::start(&["-e", &url(&node), "-o", "json", "--seconds", "600", "--rate", "300", "--warmup", "0"]);
    tool.await_lines(2);
    tool.interrupt();
    let report = tool.end().json(130);
    assert_adds_up(&report);
    assert_eq!(report["interrupted"], true);
    assert!(report["all"]["verified"].as_u64() > Some(0) && sum(&report["all"]["wrong"]) == 0, "{report}");
}

#[test]
fn presets_tell_what_they_measured() {
    let node = Node::in_memory();
    let url = url(&node);

    let said = bench(&["latency", "-e", &url, "--value-size", "64,4KiB", "--requests", "50", "-q"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<Vec<&str>> = said.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["bytes", "SET", "p50"], "{said:?}");
    assert_eq!((rows[1][0], rows[1][7], rows[2][0], rows[2][7]), ("64", "100", "4096", "100"), "{said:?}");

    let report = bench(&["throughput", "-e", &url, "--clients", "4", "--seconds", "1", "-o", "json", "-q"]).json(0);
    assert_adds_up(&report);
    assert!(report["all"]["rate"].as_f64() > Some(10.0), "{report}");

    let runs = bench(&["dynamo", "-e", &url, "--parallel", "7", "--requests", "300", "-o", "json", "-q"]).json(0);
    let (puts, gets) = (&runs["runs"][0]["all"], &runs["runs"][1]["all"]);
    assert_eq!(
        (&puts["verified"], &gets["verified"], &gets["misses"]),
        (&300.into(), &300.into(), &0.into()),
        "{runs}"
    );

    let said = bench(&["check", "-e", &url, "--seconds", "2", "-o", "json", "-q"]);
    let verdict: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let bars = verdict["bars"].as_array().expect("bars");
    let passed = bars.iter().all(|bar| bar["passed"] == true);
    // How fast this machine is just now is not what is tested.
    assert_eq!((verdict["verdict"] == "PASS", said.code == Some(0)), (passed, passed), "{said:?}");
    assert_eq!(bars.len(), 5);
}

// ---- servers that lie or stand still

#[test]
fn an_honest_stand_in_is_blamed_for_nothing() {
    let server = StandIn::lying(Lie::None);
    let words =
        ["-e", &server.url(), "-o", "json", "--requests", "600", "--keys", "50", "--clients", "4", "--warmup", "0"];
    let report = bench(&[&words[..], &["--mix", "get=3,put=3,incr=1,list=1"]].concat()).json(0);
    assert_adds_up(&report);
    assert_eq!(report["all"]["verified"], 600, "{report}");
}

#[test]
fn a_lie_is_caught_and_named_and_counts_as_nothing_else() {
    for (lie, mix, kind) in [
        (Lie::Old, "get=1,put=1", "stale"),
        (Lie::AnothersValue, "get=1,put=1", "foreign"),
        (Lie::Invented, "get=1,put=1", "foreign"),
        (Lie::Cut, "get=1,put=1", "torn"),
        (Lie::ShortLists, "list=1,put=1", "lost"),
        (Lie::Pages, "put=1", "garbled"),
    ] {
        let server = StandIn::lying(lie);
        let words = ["-e", &server.url(), "-o", "json", "--requests", "300", "--keys", "10", "--clients", "2"];
        let report = bench(&[&words[..], &["--mix", mix, "--warmup", "0"]].concat()).json(4);
        assert_adds_up(&report);
        let wrong = &report["all"]["wrong"];
        assert!(wrong[kind].as_u64() > Some(0) && wrong[kind] == sum(wrong), "{lie:?}: {report}");
        let example = report["wrong_examples"][0].as_str().expect("an example");
        assert!(example.starts_with(kind), "{lie:?}: {example}");
    }
}

#[test]
fn increments_that_were_answered_and_are_missing_are_found_in_the_sum() {
    let server = StandIn::lying(Lie::UncountedIncrements);
    let words = ["-e", &server.url(), "-o", "json", "--requests", "99", "--counters", "3", "--mix", "incr"];
    let report =
        bench(&[&words[..], &["--mode", "async", "--timeout", "1", "--clients", "1", "--warmup", "0"]].concat());
    // In a mode that promises no sum at once it waits, and blames nobody for what has not arrived.
    assert_eq!(report.json(0)["counters"]["unknown"], 3, "{report:?}");
    let report = bench(&[&words[..], &["--mode", "sloppy", "--clients", "1", "--warmup", "0"]].concat()).json(4);
    assert_eq!((&report["counters"]["wrong"], &report["counters"]["right"]), (&3.into(), &0.into()), "{report}");
}

#[test]
fn what_may_have_been_done_is_never_asked_of_another_node() {
    let (server, other) = (StandIn::lying(Lie::HangsUp), StandIn::lying(Lie::None));
    let both = format!("{},{}", server.url(), other.url());
    let words = ["-e", &both, "-o", "json", "--requests", "20", "--mix", "incr", "--clients", "1", "--warmup", "0"];
    let report = bench(&words).json(5);
    assert_adds_up(&report);
    assert_eq!(report["all"]["failed"]["unknown"], 20, "{report}");
    // Each of them may count, and does.
    assert_eq!((&report["counters"]["wrong"], sum(&report["all"]["wrong"])), (&0.into(), 0), "{report}");
}

#[test]
fn what_is_not_promised_is_told_and_not_held_against_a_mode() {
    let server = StandIn::lying(Lie::Old);
    let words = ["-e", &server.url(), "-o", "json", "--requests", "300", "--keys", "10", "--mode", "async"];
    let report = bench(&words).json(0);
    assert!(report["all"]["old_allowed"].as_u64() > Some(0) && report["all"]["verified"] == 300, "{report}");
}

#[test]
fn a_pause_of_the_server_shows_in_the_percentiles_of_an_open_loop() {
    // A quarter of the requests are due while it stands still, and only four clients notice.
    let server = StandIn::standing_still(Duration::from_secs(1), Duration::from_secs(1));
    let words = ["-e", &server.url(), "-o", "json", "--rate", "200", "--seconds", "4", "--clients", "4"];
    let report = bench(&[&words[..], &["--warmup", "0", "--mix", "put"]].concat()).json(0);
    assert_adds_up(&report);
    assert_eq!(report["all"]["issued"], 800, "{report}");
    let latency = |name: &str| report["all"]["latency_ms"][name].as_f64().expect("a latency");
    assert!(latency("p90") >= 400.0 && latency("p99") >= 800.0, "{report}");
    assert!(latency("max") >= 900.0, "{report}");
}

#[test]
fn requests_that_no_client_was_free_for_are_counted_as_such() {
    let server = StandIn::slow(Duration::from_millis(500));
    let words = ["-e", &server.url(), "-o", "json", "--rate", "100", "--seconds", "1", "--clients", "2"];
    let report = bench(&[&words[..], &["--warmup", "0", "--mix", "put", "--timeout", "2"]].concat()).json(8);
    assert_adds_up(&report);
    assert_eq!(report["all"]["issued"], 100, "{report}");
    assert!(report["all"]["failed"]["unsent"].as_u64() > Some(50), "{report}");
}

#[test]
fn the_fastest_endpoint_is_asked_by_all_and_else_each_has_its_clients() {
    let (slow, quick) = (StandIn::slow(Duration::from_secs(1)), StandIn::lying(Lie::None));
    let both = format!("{},{}", slow.url(), quick.url());
    let words =
        ["-e", &both, "-o", "json", "--requests", "40", "--clients", "4", "--mix", "put", "--warmup", "0", "-q"];
    let slowest = |report: Value| report["all"]["latency_ms"]["max"].as_f64().expect("a latency");
    assert!(slowest(bench(&words).json(0)) >= 1_000.0);
    assert!(slowest(bench(&[&words[..], &["--fastest"]].concat()).json(0)) < 1_000.0);
}

#[test]
fn a_slow_cluster_fails_the_check_and_is_told_why() {
    let server = StandIn::slow(Duration::from_millis(200));
    let said = bench(&["check", "-e", &server.url(), "--seconds", "2", "--timeout", "2", "--keys", "20", "-q"]);
    assert_eq!(said.code, Some(8), "{said:?}");
    assert_fits(&said.stdout);
    assert!(said.stdout.ends_with("\nFAIL\n"), "{said:?}");
    for line in ["PASS  right answers: 0 wrong of", "FAIL  throughput: ", "FAIL  p99: "] {
        assert!(said.stdout.contains(line), "{line}: {said:?}");
    }
}

// ---- what is typed and shown

/// A terminal of 80 columns shows it as it is, and nothing in it is meant for a terminal alone.
#[track_caller]
fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
    }
}

#[test]
fn nobody_there_is_told_in_a_line() {
    let nobody = format!("http://127.0.0.1:{}", reserve_port());
    let said = bench(&["-e", &nobody, "--requests", "10"]);
    assert!(said.refusal(5).starts_with("kringlectl: no endpoint answers"), "{said:?}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let nobody = format!("http://127.0.0.1:{}", reserve_port());
    for (words, why) in [
        (&["--mix", "fly=1"][..], "nothing to ask for"),
        (&["--value-size", "10"], "40 bytes at least"),
        (&["--seconds", "1", "--requests", "5"], "cannot be used with"),
        (&["--seconds", "0"], "more than 0"),
        (&["--rate=-1"], "from 0.001"),
        (&["--zipf", "0"], "above 0"),
        (&["--mode", "fast"], "fast"),
        (&["--keys", "0"], "1..="),
        (&["--requests", "5", "check"], "check"),
    ] {
        let said = bench(&[&["-e", &nobody], words].concat());
        assert!(said.refusal(2).contains(why), "{words:?}: {said:?}");
    }
    let server = StandIn::lying(Lie::None);
    for (words, why) in [
        (&["--keys", "5", "--clients", "10"][..], "too few for 10 clients"),
        (&["--clients", "0"], "--clients is 0"),
        (&["--threads", "9", "--clients", "2"], "--threads is 9"),
        (&["--prefix", ""], "--prefix is empty"),
    ] {
        let said = bench(&[&["-e", &server.url()], words].concat());
        assert!(said.refusal(2).contains(why), "{words:?}: {said:?}");
    }
}

#[test]
fn a_table_fits_a_terminal_and_programs_get_what_they_can_read() {
    let server = StandIn::lying(Lie::None);
    let url = server.url();
    let words = ["-e", &url, "--requests", "200", "--mix", "get=1,put=1,incr=1,list=1", "--warmup", "0"];

    let table = bench(&words);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert_fits(&table.stdout);
    assert_fits(&table.stderr);
    assert!(table.stdout.lines().any(|line| line.trim_start().starts_with("all")), "{table:?}");

    let csv = bench(&[&words[..], &["-o", "csv"]].concat());
    let columns: BTreeSet<usize> = csv.stdout.lines().map(|line| line.split(',').count()).collect();
    assert_eq!((columns.len(), csv.stdout.lines().count()), (1, 5), "{csv:?}");

    let report = bench(&[&words[..], &["-o", "json"]].concat()).json(0);
    let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        names(&report),
        "all counters elapsed_s interrupted name operations plan reasons seconds warmup_requests wrong_examples"
    );
    assert_eq!(
        names(&report["all"]),
        "bytes_read bytes_written failed issued items latency_ms misses old_allowed rate verified wrong"
    );
    assert_eq!(names(&report["all"]["latency_ms"]), "max p50 p90 p99 p99.9");
    assert_eq!(names(&report["all"]["wrong"]), "foreign garbled lost stale torn");
    assert_eq!(names(&report["all"]["failed"]), "abandoned refused rejected timed_out unknown unreachable unsent");
}

#[test]
fn a_terminal_has_a_bar_that_is_gone_in_the_end() {
    let server = StandIn::lying(Lie::None);
    let tool = env!("CARGO_BIN_EXE_kringlectl");
    let command = format!("stty cols 80 && {tool} bench -e {} --seconds 2 --mix put --warmup 0", server.url());
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let Ok(output) = script.output() else { return eprintln!("skipped: script is not installed") };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("bench [==") && shown.contains("verified"), "{shown}");
    // The last thing that stands on the bar's line is its erasure.
    let (_, behind) = shown.rsplit_once("bench [").expect("a bar");
    assert!(behind.contains("\r\u{1b}[2K"), "{behind:?}");
    assert!(shown.lines().last().is_some_and(|line| line.contains("written")), "{shown}");
}

#[test]
fn whoever_reads_no_more_ends_it_without_a_fuss() {
    let server = StandIn::lying(Lie::None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kringlectl"));
    command.args(["bench", "-e", &server.url(), "--requests", "20", "--warmup", "0", "-q"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kringlectl starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
