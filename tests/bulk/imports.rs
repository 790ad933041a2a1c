//! Imports of what is not plain: several values of a key, files that were cut off, lines that cannot be written.

use super::ctl::{killed_when, run, word};
use super::support::http::Request;
use super::support::node::{Node, Plan};
use super::{fill, length, node, shown};
use serde_json::{Value, json};

/// The values of a key, the shown one first.
#[track_caller]
fn values(node: &Node, key: &str) -> Vec<String> {
    let siblings = node.get(&format!("/kv/{key}?siblings=1")).expect(200).json()["siblings"].clone();
    let siblings = siblings.as_array().expect("siblings").clone();
    siblings.iter().map(|sibling| sibling["value"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn values_side_by_side_come_through_in_their_order_whatever_the_mode_of_the_import() {
    let (from, folder) = (node(), tempfile::tempdir().unwrap());
    let token = from.put("/kv/elsewhere", "x").must("Kringle-Context").to_owned();
    // Too large for one batch together, and not each for itself.
    let heavy = |digit: &str| digit.repeat(5 << 20);
    for (key, written) in
        [("light", ["red", "green", "blue"].map(str::to_owned).to_vec()), ("heavy", ["1", "2"].map(heavy).to_vec())]
    {
        for value in written {
            let put = Request::new("PUT", format!("/kv/{key}")).header("Kringle-Context", &token);
            from.client().send(&put.body(value));
        }
    }
    let file = folder.path().join("keys");
    run(&[&from], &["export", word(&file)]).with(0);
    for mode in ["sloppy", "quorum", "chain"] {
        let to = node();
        to.put("/kv/light?mode=quorum", "older").expect(201);
        for _ in 0..2 {
            run(&[&to], &["import", "--mode", mode, "--verify", word(&file)]).with(0);
            for key in ["light", "heavy"] {
                let (before, after) = (values(&from, key), values(&to, key));
                assert!(before.len() > 1 && before == after, "{key} in {mode}: {} and {}", before.len(), after.len());
            }
        }
        assert_eq!(to.get("/kv/light?siblings=1").json()["siblings"][0]["value"], "blue");
    }
}

#[test]
fn all_lines_before_the_place_where_a_file_was_cut_off_are_written() {
    let (from, folder) = (node(), tempfile::tempdir().unwrap());
    let count = 10_000;
    fill(&from, count, "a torn file");
    let file = folder.path().join("keys.zst");
    run(&[&from], &["export", word(&file)]).with(0);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..length(&file) as usize * 9 / 10]).unwrap();
    let to = node();
    let done = run(&[&to], &["-o", "json", "import", "--unsealed", word(&file)]).with(0);
    assert!(done.stderr.contains("it was cut off"), "{}", done.stderr);
    let written = done.json()["written"].as_u64().unwrap();
    assert!((count as u64 / 2..count as u64).contains(&written), "{written}");
    assert_eq!(shown(&mut to.client()).len() as u64, written);
    assert!(!folder.path().join("keys.zst.import").exists(), "there is nothing to go on with");
}

#[test]
fn how_far_an_import_is_counts_for_no_other_file_of_that_name() {
    let (from, to, folder) = (node(), node(), tempfile::tempdir().unwrap());
    fill(&from, 20_000, "another file");
    let (file, state) = (folder.path().join("keys"), folder.path().join("keys.import"));
    run(&[&from], &["export", word(&file)]).with(0);
    let words = ["import", "--unsealed", "--jobs", "1", word(&file)];
    assert!(killed_when(&[&to], &words, || state.exists()), "killed in the middle");
    let mut changed = std::fs::read(&file).unwrap();
    changed.extend(json!({ "key": "more", "value": "1" }).to_string().into_bytes());
    std::fs::write(&file, changed).unwrap();
    run(&[&to], &["import", "--unsealed", "--resume", word(&file)]).refused(2, "not of this file");
}

#[test]
fn a_key_or_value_too_long_for_any_node_keeps_no_other_from_being_written() {
    let (to, folder) = (Plan::new(&["--memory", "--value-max", "100"]).start(), tempfile::tempdir().unwrap());
    let large = "v".repeat(9 << 20);
    let lines = [
        json!({ "key": "k".repeat(5_000), "value": "1" }),
        json!({ "key": "large", "value": large }),
        json!({ "key": "several", "siblings": [{ "value": large }, { "value": "2" }] }),
        json!({ "key": "a", "value": "1" }),
    ];
    let file = folder.path().join("keys");
    std::fs::write(&file, lines.map(|line: Value| format!("{line}\n")).concat()).unwrap();
    let done = run(&[&to], &["-o", "json", "import", "--unsealed", word(&file)]).with(5);
    assert_eq!(done.json(), json!({ "written": 1, "expired": 0, "short": 0, "failed": 3 }), "{}", done.stderr);
    for line in ["line 1: the key", "line 2: ", "line 3: "] {
        assert!(done.stderr.contains(line), "{line:?} in {}", done.stderr);
    }
    assert_eq!(to.get("/kv/a").expect(200).text(), "1");
}
