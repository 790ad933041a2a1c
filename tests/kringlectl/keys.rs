//! Keys, one and many: what goes in, what comes out, and the exit code.

use crate::kit::{Said, User, program, url};
use crate::support::node::{Node, reserve_port};
use serde_json::json;
use std::process::{Command, Stdio};

#[test]
fn a_value_comes_out_as_it_went_in() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    let bytes: Vec<u8> = (0..=255).collect();
    let said = user.run_with(&["put", "bytes", "-", "--content-type", "x/y"], &bytes).ok();
    assert_eq!(said.text(), "created, on 1 of 1 owner\n");
    assert_eq!(user.run(&["get", "bytes"]).ok().out, bytes);
    let shown = user.run(&["get", "bytes", "--json"]).ok().json();
    assert_eq!(
        (&shown["key"], &shown["content_type"], &shown["siblings"]),
        (&json!("bytes"), &json!("x/y"), &json!(1))
    );
    assert!(shown["value"].is_null() && shown["value_base64"].as_str().is_some_and(|word| word.starts_with("AAEC")));
    std::fs::write(user.home().join("file"), "from a file").unwrap();
    let written = user.json(&["put", "a/b c%", "--file", "file"]);
    assert_eq!((&written["result"], &written["acked"]), (&json!("created"), &json!(1)), "{written}");
    assert_eq!(user.json(&["get", "a/b c%"])["value"], "from a file");
    assert_eq!(node.get("/kv/a%2Fb%20c%25").expect(200).text(), "from a file");
    assert_eq!(user.run(&["put", "a/b c%", "--", "-3"]).ok().text(), "replaced, on 1 of 1 owner\n");
    assert_eq!(user.run(&["get", "a/b c%"]).ok().text(), "-3");
    assert_eq!(user.run(&["del", "a/b c%"]).ok().text(), "deleted, on 1 of 1 owner\n");
    user.run(&["get", "a/b c%"]).expect(3);
}

#[test]
fn a_value_that_is_to_go_goes() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    user.run(&["put", "brief", "x", "--ttl", "0.5"]).ok();
    assert!(user.json(&["get", "brief"])["expires"].as_u64().is_none_or(|ms| ms > 1_600_000_000_000));
    crate::support::eventually("it is gone", crate::kit::LIMIT, || match user.run(&["get", "brief"]).code {
        Some(3) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn every_failure_has_its_exit_code_and_one_line() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    let why = |said: Said, code: i32| said.expect(code).why().to_owned();
    assert!(why(user.run(&["get", "nothing"]), 3).contains("Key not found"));
    user.run(&["put", "lock", "1", "--if-none-match", "--mode", "quorum"]).ok();
    let taken = user.run(&["put", "lock", "2", "--if-none-match", "--mode", "quorum"]);
    assert!(taken.talk.contains("hint: "), "{taken}");
    assert!(why(taken, 4).contains("another version"));
    let etag = user.json(&["get", "lock", "--mode", "quorum"])["etag"].as_str().unwrap().to_owned();
    // With its quotes and without.
    user.run(&["put", "lock", "2", "--if-match", &etag, "--mode", "quorum"]).ok();
    let etag = user.json(&["get", "lock"])["etag"].as_str().unwrap().trim_matches('"').to_owned();
    user.run(&["put", "lock", "3", "--if-match", &etag, "--mode", "quorum"]).ok();
    assert!(why(user.run(&["put", "a", "1", "--w", "2"]), 5).contains("2 owners were asked for"));
    let nobody = format!("http://127.0.0.1:{}", reserve_port());
    assert!(why(user.run(&["-e", &nobody, "get", "a"]), 5).contains("nobody listens there"));
    assert!(why(user.run(&["put", "a", "--file", "absent"]), 2).contains("absent"));
    assert!(why(user.run(&["put", "a", "1", "--kringle-context", "?"]), 2).contains("ontext"));
    for nonsense in [&["gte", "a"][..], &["get"], &["get", "a", "--mode", "sloopy"], &["-e", "ftp://x", "get", "a"]] {
        let said = user.run(nonsense).expect(2);
        assert!(said.out.is_empty() && said.talk.contains("error: "), "{said}");
    }
    assert!(user.run(&["statsu"]).expect(2).talk.contains("status"), "what is meant is suggested");
    // Data that cannot be written is a failure, and not a small one.
    user.run(&["put", "a", "1"]).ok();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(program());
    command.args(["-e", &url(&node), "get", "a"]).stdout(full).stderr(Stdio::piped());
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    node.pause();
    assert!(why(user.run(&["put", "a", "2", "--timeout", "1"]), 6).contains("not known"));
    assert!(why(user.run(&["get", "a", "--timeout", "1"]), 5).contains("no answer within"));
    node.resume();
}

#[test]
fn concurrent_values_are_told_and_shown_when_asked_for() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    user.run(&["put", "cart", "empty"]).ok();
    let seen = user.json(&["get", "cart"])["context"].as_str().unwrap().to_owned();
    for value in ["apples", "pears"] {
        user.run(&["put", "cart", value, "--kringle-context", &seen]).ok();
    }
    let said = user.run(&["get", "cart"]).ok();
    assert_eq!(said.text(), "pears");
    assert!(said.talk.contains("2 concurrent values"), "{said}");
    user.run(&["get", "cart", "--one"]).expect(4);
    let all = user.json(&["get", "cart", "--siblings"]);
    assert_eq!(all["siblings"].as_array().map(Vec::len), Some(2), "{all}");
    let table = user.run(&["get", "cart", "--siblings"]).ok().text();
    assert!(table.starts_with("VALUE") && table.contains("\npears") && table.contains("\napples"), "{table}");
    let seen = all["context"].as_str().unwrap();
    user.run(&["put", "cart", "both", "--kringle-context", seen]).ok();
    assert_eq!(user.run(&["get", "cart", "--one"]).ok().text(), "both");
}

#[test]
fn a_count_with_a_name_counts_once() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    assert_eq!(user.run(&["incr", "n"]).ok().text(), "1\n");
    assert_eq!(user.run(&["incr", "n", "--by", "-3"]).ok().text(), "-2\n");
    for _ in 0..2 {
        assert_eq!(user.run(&["incr", "n", "--by", "10", "--id", "order-77"]).ok().text(), "8\n");
    }
    assert_eq!(user.json(&["incr", "n"])["value"], 9);
    user.run(&["put", "word", "no number"]).ok();
    user.run(&["incr", "word"]).expect(4);
}

#[test]
fn a_list_has_every_form() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    for (key, value) in [("fruit/apple", "1"), ("fruit/fig", "two\n\x1b[2J"), ("nuts/almond", "3"), ("z,\"z\"", "4")] {
        user.run(&["put", key, value]).ok();
    }
    node.put("/kv/%FF", "5");
    assert_eq!(user.run(&["list"]).ok().text(), "fruit/apple\nfruit/fig\nnuts/almond\nz,\"z\"\n\\xff\n");
    assert_eq!(user.run(&["list", "fruit/", "--limit", "1"]).ok().text(), "fruit/apple\n");
    assert_eq!(user.run(&["list", "--start", "g", "-n", "2"]).ok().text(), "nuts/almond\nz,\"z\"\n");
    assert_eq!(user.run(&["list", "-d", "/"]).ok().text(), "fruit/\nnuts/\nz,\"z\"\n\\xff\n");
    let shown = user.run(&["list", "fruit/", "--values"]).ok().text();
    assert_eq!(shown, "fruit/apple\t1\nfruit/fig\ttwo\\n\\u{1b}[2J\n", "what others wrote moves no cursor");
    let lines = user.run(&["list", "--values", "-o", "json"]).ok().lines();
    assert_eq!((&lines[1]["value"], &lines[4]["key_base64"]), (&json!("two\n\x1b[2J"), &json!("/w==")));
    let csv = user.run(&["list", "z", "-o", "csv"]).ok().text();
    assert!(csv.starts_with("key,key_base64,prefix,size,") && csv.contains("\n\"z,\"\"z\"\"\",,,1,1,"), "{csv}");
    let long = user.run(&["list", "nuts/", "--long"]).ok().text();
    assert!(long.ends_with("  nuts/almond\n") && long.trim_start().starts_with('1'), "{long}");
    assert_eq!(user.run(&["list", "none/"]).ok().text(), "");
}

#[test]
fn a_batch_is_answered_in_order_and_its_gravest_line_decides() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    // More than go together.
    let lines: Vec<String> = (0..2_500)
        .map(|n| json!({"op": "put", "key": format!("k{n:04}"), "value": n.to_string()}).to_string())
        .collect();
    let said = user.run_with(&["batch", "-o", "json"], lines.join("\n").as_bytes()).ok();
    let answers = said.lines();
    assert_eq!(answers.len(), lines.len());
    assert!(answers.iter().enumerate().all(|(n, answer)| answer["key"] == format!("k{n:04}")), "in order");
    assert_eq!(user.run(&["get", "k2499"]).ok().text(), "2499");
    let mixed = "{\"op\":\"get\",\"key\":\"k0001\"}\n\n{\"op\":\"get\",\"key\":\"none\"}\n";
    let said = user.run_with(&["batch"], mixed.as_bytes()).expect(3);
    assert_eq!(said.text(), "200  k0001\t1\n404  none\tKey not found\n");
    let mixed = format!("{mixed}nonsense\n");
    user.run_with(&["batch"], mixed.as_bytes()).expect(2);
    let taken = format!("{mixed}{{\"op\":\"put\",\"key\":\"k0001\",\"value\":\"x\",\"if_none_match\":\"*\"}}\n");
    std::fs::write(user.home().join("wishes"), taken).unwrap();
    let said = user.run(&["batch", "wishes", "--mode", "quorum"]).expect(4);
    assert_eq!(said.text().lines().count(), 4, "{said}");
    user.run(&["batch", "absent"]).expect(2);
    user.run_with(&["batch"], b"").ok();
}

#[test]
fn whoever_reads_no_more_ends_it_quietly() {
    let node = Node::in_memory();
    let user = User::of([&node]);
    let value = "x".repeat(1_000);
    let lines = (0..1_000).map(|n| format!("{{\"op\":\"put\",\"key\":\"k{n}\",\"value\":\"{value}\"}}\n"));
    user.run_with(&["batch"], lines.collect::<String>().as_bytes()).ok();
    let line = format!("'{}' -e {} list --values | head -n 1", program(), url(&node));
    let said = Command::new("bash").args(["-c", &format!("set -o pipefail; {line}")]).output().expect("a shell");
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(said.stdout.starts_with(b"k0\tx"));
}
