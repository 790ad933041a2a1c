//! Much at a time: exports and imports, backups and restores, by the real programs.

mod support;

#[path = "bulk/ctl.rs"]
mod ctl;

#[path = "bulk/backups.rs"]
mod backups;

#[path = "bulk/imports.rs"]
mod imports;

use ctl::{killed_when, run, run_with, word};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::http::{Client, Request};
use support::node::{Node, Plan};
use support::{seeded, thorough};

/// Keys of the large tests.
fn many() -> usize {
    if thorough() { 1_000_000 } else { 20_000 }
}

/// A lone node that keeps nothing.
fn node() -> Node {
    Plan::new(&["--memory", "--timeout", "20"]).start()
}

/// Has these wishes done.
#[track_caller]
fn batch(client: &mut Client, wishes: impl IntoIterator<Item = Value>) {
    let wishes: Vec<Value> = wishes.into_iter().collect();
    for some in wishes.chunks(5_000) {
        let body: String = some.iter().map(|wish| format!("{wish}\n")).collect();
        let answer = client.send(&Request::new("POST", "/batch").body(body)).expect(200);
        for line in answer.text().lines() {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            assert!(matches!(line["status"].as_u64(), Some(200..=204)), "{line}");
        }
    }
}

/// Writes so many keys with values that zstd cannot make much shorter.
#[track_caller]
fn fill(node: &Node, count: usize, test: &str) {
    let (mut random, mut client) = (seeded(test), node.client());
    let value = |random: &mut rand_chacha::ChaCha8Rng| {
        (0..12).map(|_| format!("{:016x}", random.random::<u64>())).collect::<String>()
    };
    for from in (0..count).step_by(5_000) {
        let to = count.min(from + 5_000);
        batch(
            &mut client,
            (from..to).map(|at| json!({"op": "put", "key": format!("key/{at:07}"), "value": value(&mut random)})),
        );
    }
}

/// What a node shows of each key: all its values with what is kept with them, sorted.
fn shown(client: &mut Client) -> BTreeMap<String, Vec<String>> {
    let list = client.send(&Request::new("GET", "/kv?values=1").header("Accept", "application/x-ndjson")).expect(200);
    let mut shown = BTreeMap::new();
    let text = list.text();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    assert_eq!(lines.next_back().expect("a last line"), json!({ "end": true }));
    let described = |value: &Value| {
        let expires = value["expires"].as_u64().map(|expires| expires / 10_000);
        json!([value["value"], value["value_base64"], value["content_type"], expires]).to_string()
    };
    for line in lines {
        let key = line["key"].as_str().or(line["key_base64"].as_str()).expect("a key").to_owned();
        let values = match line["siblings"].as_u64() {
            Some(1) => vec![described(&line)],
            _ => {
                let answer = client.get(&format!("/kv/{}?siblings=1", support::http::encode(&key))).expect(200).json();
                let mut values: Vec<String> =
                    answer["siblings"].as_array().expect("siblings").iter().map(described).collect();
                values.sort();
                values
            }
        };
        shown.insert(key, values);
    }
    shown
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn an_export_and_an_import_that_are_killed_in_the_middle_go_on_to_the_same_keys() {
    let (count, folder) = (many(), tempfile::tempdir().unwrap());
    let (from, to) = (node(), node());
    fill(&from, count, "killed in the middle");
    for name in ["keys.ndjson", "keys.ndjson.zst"] {
        let file = folder.path().join(name);
        let words = ["export", word(&file)];
        let begun = killed_when(&[&from], &words, || length(&file) > 20 * count as u64);
        assert!(begun, "killed in the middle");
        let cut = length(&file);
        run(&[], &["export", "--verify", word(&file)]).refused(2, "cut off");
        run(&[&to], &["import", word(&file)]).refused(2, "cut off");
        run(&[&from], &words).refused(2, "File exists");
        let resumed = run(&[&from], &["export", "--resume", word(&file)]).with(0);
        assert!(resumed.stderr.contains("going on"), "{}", resumed.stderr);
        assert!(length(&file) > cut);
        let verified = run(&[], &["-o", "json", "export", "--verify", word(&file)]).with(0).json();
        assert_eq!(verified["keys"], count);
        assert!(run(&[&from], &["export", "--resume", word(&file)]).with(0).stderr.contains("is whole"));
    }
    let file = folder.path().join("keys.ndjson.zst");
    let state = folder.path().join("keys.ndjson.zst.import");
    let lines_done = || {
        let noted = std::fs::read(&state).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        noted.and_then(|noted| noted["lines"].as_u64()).unwrap_or(0)
    };
    assert!(killed_when(&[&to], &["import", word(&file)], || lines_done() > count as u64 / 10), "killed in the middle");
    let before = to.get("/status").json()["store"]["keys"].as_u64().unwrap();
    assert!((1..count as u64).contains(&before), "{before} keys");
    let resumed = run(&[&to], &["-o", "json", "import", "--resume", word(&file)]).with(0);
    assert!(resumed.stderr.contains("going on"), "{}", resumed.stderr);
    assert_eq!(resumed.json(), json!({ "written": count, "expired": 0, "short": 0, "failed": 0 }));
    assert!(!state.exists(), "what is done is not gone on with");
    let patient = |node: &Node| node.client().within(Duration::from_secs(600));
    let (left, right) = (shown(&mut patient(&from)), shown(&mut patient(&to)));
    assert!(left.len() == count && left == right, "{} and {} keys", left.len(), right.len());
}

#[test]
fn whatever_a_key_holds_comes_through_a_file_and_through_a_pipe() {
    let (from, to, folder) = (node(), node(), tempfile::tempdir().unwrap());
    let mut client = from.client();
    batch(
        &mut client,
        [
            json!({"op": "put", "key": "a/plain", "value": "1"}),
            json!({"op": "put", "key": "a/typed", "value": "<p>", "content_type": "text/html", "ttl": 90_000}),
            json!({"op": "put", "key_base64": "//4A", "value_base64": "AP8="}),
            json!({"op": "put", "key": "a/empty", "value": ""}),
            json!({"op": "put", "key": "a/\n\"x", "value": "\u{0}line\n"}),
            json!({"op": "incr", "key": "a/count", "by": 41}),
            json!({"op": "put", "key": "b/other", "value": "2"}),
            json!({"op": "put", "key": "a/gone", "value": "2"}),
            json!({"op": "delete", "key": "a/gone"}),
        ],
    );
    // Two who have seen nothing of each other.
    let token = client.put("/kv/b/other", "2").must("Kringle-Context").to_owned();
    for value in ["red", "green"] {
        client
            .send(&Request::new("PUT", "/kv/a/two").header("Kringle-Context", &token).body(value))
            .expect(201 + u16::from(value == "green") * 3);
    }
    let large = vec![0xfe_u8; 7 << 20];
    client.put("/kv/large", large.clone()).expect(201);
    let file = folder.path().join("all");
    let exported = run(&[&from], &["export", "--zstd", word(&file)]).with(0);
    assert!(exported.stdout.is_empty() && exported.stderr.contains("9 keys"), "{exported:?}");
    for _ in 0..2 {
        // The second time over what the first one brought.
        run(&[&to], &["import", "--verify", word(&file)]).with(0);
        assert_eq!(shown(&mut client), shown(&mut to.client()));
    }
    assert_eq!(to.get("/kv/large").expect(200).body, large);
    assert_eq!(to.get("/counters/a/count").json()["value"], 41);
    let piped = run(&[&from], &["export", "--prefix", "a/"]).with(0);
    let lines: Vec<Value> = piped.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> = lines.iter().filter_map(|line| line["key"].as_str()).collect();
    assert_eq!(keys, ["a/\n\"x", "a/count", "a/empty", "a/plain", "a/two", "a/typed"]);
    assert_eq!((&lines[0]["prefix"], &lines[7]["keys"]), (&json!("a/"), &json!(6)));
    let other = node();
    run_with(&[&other], &["import", "-"], &piped.stdout).with(0);
    assert_eq!(shown(&mut other.client()).len(), 6);
}

#[test]
fn a_file_that_is_not_what_was_written_is_refused_before_anything_is_imported() {
    let (from, to, folder) = (node(), node(), tempfile::tempdir().unwrap());
    fill(&from, 300, "a changed file");
    let mut random = seeded("bits of an export");
    for name in ["keys", "keys.zst"] {
        let file = folder.path().join(name);
        run(&[&from], &["export", word(&file)]).with(0);
        let whole = std::fs::read(&file).unwrap();
        for _ in 0..6 {
            let mut changed = whole.clone();
            // Not in a frame's head, which has a bit without meaning.
            let at = random.random_range(64..whole.len());
            changed[at] ^= 1 << random.random_range(0..8);
            std::fs::write(&file, &changed).unwrap();
            assert_eq!(run(&[], &["export", "--verify", word(&file)]).code, Some(2), "byte {at}");
            assert_eq!(run(&[&to], &["import", word(&file)]).code, Some(2), "byte {at}");
        }
        std::fs::write(&file, &whole[..whole.len() - 10]).unwrap();
        assert_eq!(run(&[&to], &["import", word(&file)]).code, Some(2));
    }
    assert_eq!(to.get("/status").json()["store"]["keys"], 0);
    run(&[&to], &["import", "/nowhere/at/all"]).with(1);
    run(&[&from], &["export", "/nowhere/at/all"]).with(1);
}

#[test]
fn lines_that_cannot_be_written_are_told_and_keep_no_other_from_being() {
    let node = Plan::new(&["--memory", "--value-max", "10", "--key-max", "8"]).start();
    let text = [
        json!({"key": "a", "value": "1"}).to_string(),
        json!({"key": "b", "value": "much too long"}).to_string(),
        json!({"key": "much too long", "value": "1"}).to_string(),
        "a,1".to_owned(),
        json!({"key": "over", "value": "1", "expires": 1_000}).to_string(),
        json!({"key": "c", "value": "3"}).to_string(),
    ]
    .join("\n");
    run_with(&[&node], &["import", "-"], text.as_bytes()).refused(2, "no seal");
    let done = run_with(&[&node], &["-o", "json", "import", "--unsealed", "-"], text.as_bytes()).with(5);
    assert_eq!(done.json(), json!({ "written": 2, "expired": 1, "short": 0, "failed": 3 }));
    for line in ["line 2: the value", "line 3: the key", "line 4: not a line"] {
        assert!(done.stderr.contains(line), "{line:?} in {}", done.stderr);
    }
    assert_eq!(shown(&mut node.client()).into_keys().collect::<Vec<_>>(), ["a", "c"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    node.client().delete("/kv/a");
    let done = run(&[&node], &["import", "--unsealed", "--from-line", "5", word(file.path())]).with(0);
    assert!(done.stderr.contains("1 keys written"), "{}", done.stderr);
    assert_eq!(shown(&mut node.client()).into_keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn an_export_goes_on_with_another_node_and_an_import_with_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cluster, to) =
        (support::cluster::Cluster::start(3, &["--memory", "--timeout", "5", "--pingfreq", "0.5"]), node());
    fill(&cluster.nodes[0], 2_000, "a node that is gone");
    let file = folder.path().join("keys");
    cluster.nodes[1].kill();
    let nodes = [&cluster.nodes[1], &cluster.nodes[0]];
    run(&nodes, &["export", word(&file)]).with(0);
    run(&[&cluster.nodes[1], &to], &["import", word(&file)]).with(0);
    assert_eq!(shown(&mut to.client()).len(), 2_000);
    let nobody = run(&[&cluster.nodes[1]], &["import", word(&file)]);
    nobody.refused(5, "nobody listens there");
}
