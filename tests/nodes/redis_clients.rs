//! The clients that people have: redis-cli, redis-benchmark, redis-py, and a client in Perl. Where one is not installed its
//! test says so and is skipped.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use support::cluster::Cluster;
use support::node::Node;
use support::resp::{Client, bulk, command, node, port_of};

/// Whether a program can be used; says so where it cannot.
fn has(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {program} {arguments:?} does not work here");
    }
    found
}

#[track_caller]
fn run(program: &str, port: u16, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("its end");
    // It may have ended without reading everything.
    let _ = writer.join();
    output
}

#[track_caller]
fn said(program: &str, node: &Node, arguments: &[&str], input: &[u8]) -> String {
    let output = run(program, port_of(node), arguments, input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn redis_cli_sets_pipes_scans_and_measures() {
    if !has("redis-cli", &["--version"]) {
        return;
    }
    let node = node();
    let cli = |arguments: &[&str]| said("redis-cli", &node, arguments, b"");
    assert_eq!(cli(&["SET", "hello", "world"]), "OK\n");
    assert_eq!(cli(&["GET", "hello"]), "world\n");
    assert_eq!(cli(&["-3", "--no-raw", "GET", "nothing"]), "(nil)\n");
    assert!(cli(&["-3", "INFO", "server"]).contains("kringle_version:"));
    let typed = said("redis-cli", &node, &[], b"SET a \"b c\"\nGET a\nTTL a\nNONSENSE\nINCR n\n");
    assert!(typed.starts_with("OK\nb c\n-1\nERR unknown command 'NONSENSE'"), "{typed}");
    assert!(typed.trim_end().ends_with('1'), "{typed}");

    let many: Vec<u8> = (0..2_000).flat_map(|number| command(&["SET", &format!("key:{number}"), "v"])).collect();
    let piped = said("redis-cli", &node, &["--pipe"], &many);
    assert!(piped.contains("errors: 0, replies: 2000"), "{piped}");
    let scanned = cli(&["--scan", "--pattern", "key:*"]);
    assert_eq!(scanned.lines().count(), 2_000);
    let latency = cli(&["--raw", "--latency"]);
    assert_eq!(latency.split_whitespace().count(), 4, "{latency}");
    assert_eq!(cli(&["DBSIZE"]), "2003\n");
}

#[test]
fn redis_benchmark_runs_each_of_its_tests_that_applies() {
    if !has("redis-benchmark", &["--version"]) {
        return;
    }
    let node = node();
    for depth in ["1", "16"] {
        let tests = "ping_inline,ping_mbulk,set,get,incr,mset";
        let told = said(
            "redis-benchmark",
            &node,
            &["-t", tests, "-n", "3000", "-c", "20", "-P", depth, "-r", "1000", "-d", "100", "-q"],
            b"",
        );
        assert_eq!(told.matches("requests per second").count(), 6, "{told}");
        assert!(!told.to_lowercase().contains("error") && !told.contains("WARNING"), "{told}");
    }
    let counted = Client::of(&node).say("INFO stats").text();
    let commands = counted.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    assert!(commands.parse::<u64>().unwrap() >= 36_000, "{counted}");
}

/// Runs a script with the ports of three nodes, the first of which is killed when it says `ready`.
#[track_caller]
fn with_a_node_killed(program: &str, arguments: &[&str]) {
    let mut cluster = Cluster::start(3, &["--memory", "--resp-port", "0"]);
    let ports = cluster.nodes.iter().map(|node| port_of(node).to_string());
    let mut child = Command::new(program)
        .args(arguments)
        .args(ports)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a script");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().and_then(Result::ok);
    assert_eq!(next().as_deref(), Some("ready"), "the script ended early");
    cluster.nodes[0].kill();
    child.stdin.take().expect("its input").write_all(b"killed\n").expect("to tell it");
    assert_eq!(next().as_deref(), Some("done"), "the script ended early");
    assert!(child.wait().expect("its end").success());
    assert_eq!(Client::of(&cluster.nodes[2]).say("GET after"), bulk("all"));
}

#[test]
fn redis_py_connects_pipelines_scans_and_outlives_a_node() {
    let interpreters = ["/usr/bin/python3", "python3"];
    let Some(python) = interpreters.into_iter().find(|python| has(python, &["-c", "import redis"])) else { return };
    with_a_node_killed(python, &["-c", include_str!("redis_clients/with_redis_py.py")]);
}

#[test]
fn a_client_in_perl_connects_pipelines_scans_and_outlives_a_node() {
    if !has("perl", &["-MRedis", "-e", "1"]) {
        return;
    }
    with_a_node_killed("perl", &["-e", include_str!("redis_clients/with_perl.pl")]);
}
