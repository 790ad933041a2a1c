//! The shell: from a pipe, and at a terminal with history and completion, while nodes die.

use crate::kit::{LIMIT, Running, User, url};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::node::Node;

const QUICK: [&str; 5] = ["--memory", "--pingfreq", "0.5", "--timeout", "3"];

#[test]
fn a_pipe_of_lines_is_worked_off_and_its_first_failure_is_the_exit_code() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    let script =
        "# a remark\n\nput 'a b' \"it's\"\nget 'a b'\nincr n --by 4\nget nothing\nget n -o json\nmode sloopy\nlist\n";
    let said = user.run_with(&["shell"], script.as_bytes()).expect(3);
    let lines: Vec<String> = said.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "created, on 1 of 1 owner", "{said}");
    assert_eq!(lines[1], "it's4", "a value has no line end that was not put: {said}");
    assert!(lines[2].contains("\"value\":\"4\""), "{said}");
    assert_eq!(&lines[3..], ["a b", "n"], "{said}");
    assert!(said.talk.contains("Key not found") && said.talk.contains("sloopy"), "{said}");
    let said = user.run_with(&["shell"], b"get a 'b\nput a 1\nexit\nput a 2\n").expect(2);
    assert!(said.talk.contains("is opened and not closed"), "{said}");
    assert_eq!(node.get("/kv/a").text(), "1", "exit ends it");
    let said = user.run_with(&["-o", "json", "shell"], b"get a\nget a -o table\n").ok();
    assert!(said.text().starts_with('{') && said.text().ends_with("}\n1"), "{said}");
    let help = user.run_with(&["shell"], b"help\nhelp locate\nget --help\n").ok().text();
    assert!(
        help.contains("watch") && help.contains("Where a key lives") && help.contains("The value of a key"),
        "{help}"
    );
}

/// Types a line, and waits until it is answered by this, and for the next prompt; what is behind the line typed.
#[track_caller]
fn type_line(shell: &mut Running, line: &str, wanted: &str) -> String {
    let from = shell.out().len();
    shell.write(format!("{line}\r").as_bytes());
    let answered = shell.await_out(from, wanted).len();
    shell.await_out(from + answered, "> ")
}

#[test]
fn at_a_terminal_it_completes_remembers_and_goes_on_with_another_node() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.nodes[0].put("/kv/fruit/apple", "green");
    cluster.nodes[0].put("/kv/a%20b", "x");
    let user = User::of(&cluster.nodes[..1]);
    let first = cluster.nodes[0].address();
    let mut shell = user.at_a_terminal(&["shell"]);
    shell.await_out(0, &format!("kringle {first}> "));
    // A verb and a key are begun and completed.
    type_line(&mut shell, "loc\t fru\t", "position ");
    type_line(&mut shell, "get fruit/app\t", "green");
    type_line(&mut shell, "put kept kept-value", "created");
    type_line(&mut shell, "get 'nothing here'", "Key not found");
    // The line before the last once more.
    type_line(&mut shell, "\x1b[A\x1b[A", "replaced");
    // What runs is ended, and the shell is not.
    let from = shell.out().len();
    shell.write(b"watch w --values\r");
    eventually("it watches", LIMIT, || {
        cluster.nodes[1].put("/kv/w", "watched-value");
        if shell.out()[from..].contains("watched-value") { Ok(()) } else { Err(shell.out()) }
    });
    let from = shell.out().len();
    shell.write(b"\x03");
    shell.await_out(from, &format!("kringle {first}> "));
    cluster.nodes[0].kill();
    let said = type_line(&mut shell, "get kept --timeout 30", "kept-value");
    assert!(!said.contains(&format!("kringle {first}> ")), "another node: {said:?}");
    type_line(&mut shell, "get fruit/apple", "green");
    // Ctrl-D.
    shell.write(b"\x04");
    assert_eq!(shell.end().code, Some(0));
    let history = std::fs::read_to_string(user.home().join(".local/state/kringle/history")).expect("a history");
    assert!(history.contains("get fruit/apple") && history.contains("put kept kept-value"), "{history}");
    let mut shell = user.at_a_terminal(&["-e", &url(&cluster.nodes[1]), "shell"]);
    shell.await_out(0, "> ");
    type_line(&mut shell, "\x1b[A", "green");
    shell.write(b"exit\r");
    assert_eq!(shell.end().code, Some(0));
}

/// What a bench is told to do that nobody waits for.
const LONG: &str = "bench --seconds 600 --warmup 0 --clients 4 --keys 50";

#[test]
fn at_a_terminal_ctrl_c_ends_a_bench_with_what_it_has_measured_and_its_load_with_it() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    let mut shell = user.at_a_terminal(&["shell", "--no-history"]);
    shell.await_out(0, "> ");
    let from = shell.out().len();
    shell.write(format!("{LONG}\r").as_bytes());
    shell.await_out(from, "/s  slowest");
    let from = shell.out().len();
    shell.write(b"\x03");
    let told = shell.await_out(from, "stopped before its end");
    shell.await_out(from + told.len(), "> ");
    // The next verb is another's, and the load is gone: what is counted stays as it is.
    type_line(&mut shell, "put kept kept-value", "created");
    eventually("nothing is asked of the node any more", LIMIT, || {
        let rate = node.get("/status").json()["load"]["requests_per_s"].as_f64();
        if rate.is_some_and(|rate| rate < 20.0) { Ok(()) } else { Err(format!("{rate:?} a second")) }
    });
    shell.write(b"exit\r");
    assert_eq!(shell.end().code, Some(0));
}

#[test]
fn from_a_pipe_ctrl_c_ends_the_shell_also_after_a_bench() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    for last in ["watch w --values\n", ""] {
        let mut shell = user.start(&["shell"]);
        shell.write(b"bench --requests 20 --warmup 0 --keys 10\nput a 1\n");
        shell.write(last.as_bytes());
        shell.await_out(0, "on 1 of 1 owner");
        if !last.is_empty() {
            eventually("it watches", LIMIT, || {
                node.put("/kv/w", "watched-value");
                if shell.out().contains("watched-value") { Ok(()) } else { Err(shell.out()) }
            });
        }
        shell.interrupt();
        assert_eq!(shell.end().code, Some(130), "{last:?}");
    }
    let mut shell = user.start(&["shell"]);
    shell.write(format!("{LONG}\nput never 1\n").as_bytes());
    shell.await_talk("/s  slowest");
    shell.interrupt();
    let said = shell.end().expect(130);
    assert!(said.text().contains("stopped before its end"), "{said}");
    assert_eq!(node.get("/kv/never").status, 404, "what stands behind it is not done");
}
