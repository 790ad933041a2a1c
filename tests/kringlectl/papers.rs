//! What explains itself: help, completions, manual pages, and clusters by name.

use crate::kit::{User, assert_narrow, url};
use crate::support::node::{Node, reserve_port};
use serde_json::json;
use std::process::Command;

/// The verbs that a command's help lists.
fn verbs(user: &User, of: &[&str]) -> Vec<String> {
    let help = user.run(&[of, &["--help"]].concat()).ok().text();
    let Some((_, listed)) = help.split_once("Commands:\n") else { return vec![] };
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let indented = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    indented.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_help_has_examples_and_fits_a_terminal() {
    let user = User::new();
    let mut seen = 0;
    let mut open: Vec<Vec<String>> = vec![vec![]];
    while let Some(words) = open.pop() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = user.run(&[&words[..], &["--help"]].concat()).ok();
        assert!(help.text().contains("\nExamples:\n"), "{words:?}: {help}");
        seen += 1;
        for verb in verbs(&user, &words).into_iter().filter(|verb| verb != "help") {
            open.push(words.iter().map(|word| (*word).to_owned()).chain([verb]).collect());
        }
    }
    assert!(seen > 30, "{seen}");
    let mut at = user.at_a_terminal(&["put", "--help"]);
    at.close_after(b"");
    let said = at.end().ok();
    assert!(said.text().contains("Examples:"), "{said}");
    assert_narrow(&said.text());
}

#[test]
fn completions_are_what_shells_take_and_pages_are_what_man_takes() {
    let user = User::new();
    for (shell, has) in [("bash", "complete -F"), ("zsh", "#compdef kringlectl"), ("fish", "complete -c kringlectl")] {
        let text = user.run(&["completions", shell]).ok().text();
        assert!(text.contains(has) && text.contains("locate"), "{shell}");
        if shell == "bash" {
            let path = user.home().join("completions");
            std::fs::write(&path, &text).unwrap();
            assert!(Command::new("bash").arg("-n").arg(path).status().expect("bash").success());
        }
    }
    let page = user.run(&["man"]).ok().text();
    assert!(page.contains(".TH kringlectl 1") && page.contains("Exit codes"), "{page}");
    assert!(user.run(&["man", "sync", "diff"]).ok().text().contains("partitions"));
    user.run(&["man", "gte"]).expect(2);
    user.run(&["man", "--to", "pages"]).ok();
    let pages: Vec<String> = std::fs::read_dir(user.home().join("pages"))
        .expect("pages")
        .map(|entry| entry.expect("a page").file_name().to_string_lossy().into_owned())
        .collect();
    for page in ["kringlectl.1", "kringlectl-get.1", "kringlectl-sync-diff.1"] {
        assert!(pages.iter().any(|found| found == page), "{page} is none of {pages:?}");
    }
}

#[test]
fn a_cluster_has_a_name_and_what_is_typed_outranks_it() {
    let (node, other) = (Node::in_memory(), Node::in_memory());
    let user = User::new();
    assert_eq!(user.run(&["context", "list", "-o", "json"]).ok().text(), "[]\n");
    user.run(&["context", "use", "home"]).expect(2);
    user.run(&["--context", "home", "get", "a"]).expect(2);
    user.run(&["context", "add", "home", &url(&node)]).ok();
    user.run(&["context", "add", "away", &format!("http://127.0.0.1:{}", reserve_port()), &url(&other)]).ok();
    user.run(&["put", "where", "home"]).ok();
    user.run(&["--context", "away", "put", "where", "away"]).ok();
    assert_eq!(node.get("/kv/where").text(), "home", "the first is the current one");
    assert_eq!(other.get("/kv/where").text(), "away");
    user.run(&["context", "use", "away"]).ok();
    assert_eq!(user.run(&["get", "where"]).ok().text(), "away");
    assert_eq!(user.run(&["-e", &url(&node), "get", "where"]).ok().text(), "home");
    let listed = user.json(&["context", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["current"]), (&json!("away"), &json!("yes")), "{listed}");
    user.run(&["-e", &url(&node), "--context", "away", "get", "where"]).expect(2);
    let user = user.with("KRINGLE_ENDPOINTS", url(&node));
    assert_eq!(user.run(&["get", "where"]).ok().text(), "home", "the environment outranks the current one");
    assert_eq!(user.run(&["--context", "away", "get", "where"]).ok().text(), "away", "and not what is typed");
    user.run(&["context", "remove", "away"]).ok();
    assert!(user.run(&["context", "show"]).expect(2).why().contains("no context is current"));
    let path = user.home().join(".config/kringle/contexts.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("endpoints", "endpoint")).unwrap();
    let refused = user.run(&["context", "add", "new", &url(&node)]).expect(2);
    assert!(refused.why().contains("\"endpoint\""), "{refused}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("new"), "what cannot be read is not written over");
}
