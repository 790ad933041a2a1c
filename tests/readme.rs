//! The README is run: every command in it, against real nodes, and its table of settings is held to the code.
//!
//! A block of `cargo run` lines starts those nodes, on other ports and in folders of their own; any other `sh` block is
//! run line by line in bash; an `output` block right behind must be what was printed, `…` standing for anything.

mod support;

use kringle::config::SETTINGS;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::eventually;
use support::node::{Node, Plan, reserve_port};

const README: &str = include_str!("../README.md");

/// A fenced block: its language, its lines.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in README.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some(Block { language: language.into(), lines: Vec::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.into()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the last block of the README is never closed");
    blocks
}

/// The README's ports, each with the free one that stands in for it.
struct Ports(BTreeMap<u16, u16>);

impl Ports {
    fn fresh() -> Ports {
        Ports([8001, 8002, 8003, 8004, 8005, 6000].into_iter().map(|port| (port, reserve_port())).collect())
    }

    fn in_line(&self, line: &str) -> String {
        let mut replaced = String::new();
        let mut rest = line;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| at + length);
            let number = &rest[at..digits];
            let stands_in = number.parse().ok().and_then(|port| self.0.get(&port)).map(u16::to_string);
            replaced += &rest[..at];
            replaced += stands_in.as_deref().unwrap_or(number);
            rest = &rest[digits..];
        }
        replaced + rest
    }
}

fn start(lines: &[String], ports: &Ports) -> Vec<Node> {
    let started: Vec<Node> = lines
        .iter()
        .map(|line| {
            let line =
                ports.in_line(line.strip_prefix("cargo run -- ").expect("a block starts nodes or runs commands"));
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = words.iter().position(|word| *word == "--port").expect("the README names each port");
            let others: Vec<&str> = [&words[..port], &words[port + 2..]].concat();
            Plan::new(&others).port(words[port + 1].parse().expect("a port")).spawn()
        })
        .collect();
    started
        .into_iter()
        .map(|mut node| {
            node.await_ready();
            eventually("the nodes have agreed on who is a member", Duration::from_secs(20), || {
                let cluster = node.get("/cluster").json();
                let is_settled = cluster["established"] == true && cluster["changing"] == false;
                if is_settled { Ok(()) } else { Err(cluster.to_string()) }
            });
            node
        })
        .collect()
}

/// The ports that a block of `cargo run` lines names.
fn named_ports(lines: &[String]) -> BTreeSet<String> {
    let port = |line: &String| line.split_whitespace().skip_while(|word| *word != "--port").nth(1).map(str::to_owned);
    lines.iter().filter_map(port).collect()
}

/// Where programs are looked for, ours first.
fn path_with_ours() -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_kringlectl")).parent().expect("a folder").display();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}

/// Whether `printed` is `expected`, in which `…` stands for anything.
fn fits(printed: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut ends_open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        ends_open = part.is_empty();
    }
    rest.is_empty() || ends_open
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let (mut nodes, mut running) = (Vec::new(), BTreeSet::new());
    // What a command writes to where it stands.
    let folder = tempfile::tempdir().expect("a folder");
    let mut ports = Ports::fresh();
    let mut printed = String::new();
    let (mut run, mut is_skipped) = (0, false);
    let has_redis_cli = Command::new("redis-cli").arg("--version").output().is_ok_and(|output| output.status.success());
    for block in blocks() {
        match block.language.as_str() {
            "sh" if block.lines.iter().all(|line| line.starts_with("cargo run")) => {
                let named = named_ports(&block.lines);
                // Nodes on further ports come beside those that run; others take their place.
                if !named.is_disjoint(&running) {
                    drop(std::mem::take(&mut nodes));
                    running.clear();
                    ports = Ports::fresh();
                }
                running.extend(named);
                nodes.extend(start(&block.lines, &ports));
            }
            // The test command is what runs this very test, the simulator's among it.
            "sh" if block.lines.iter().all(|line| line.contains("cargo test") || line.starts_with("cargo bench")) => {}
            "sh" if block.lines.iter().any(|line| line.contains("redis-cli ")) && !has_redis_cli => {
                eprintln!("skipped: redis-cli is not installed");
                printed.clear();
                is_skipped = true;
            }
            "sh" => {
                is_skipped = false;
                printed.clear();
                for line in &block.lines {
                    let command = ports.in_line(line).replace("curl ", "curl -sS --max-time 20 ");
                    let mut bash = Command::new("bash");
                    bash.args(["-e", "-o", "pipefail", "-c", &command])
                        .env("PATH", path_with_ours())
                        .current_dir(&folder);
                    let output = bash.output();
                    let output = output.expect("bash runs");
                    let errors = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{line}\n{errors}");
                    let text = String::from_utf8_lossy(&output.stdout);
                    assert!(!text.contains("\"error\":"), "{line}\nprinted {text}");
                    printed.extend(text.lines().map(|line| format!("{line}\n")));
                    run += 1;
                }
            }
            "output" if is_skipped => {}
            "output" => {
                let expected: String = block.lines.iter().map(|line| format!("{line}\n")).collect();
                assert!(fits(&printed, &expected), "printed:\n{printed}\nthe README says:\n{expected}");
            }
            "text" => {}
            other => panic!("a block of the README in a language that nothing checks: {other:?}"),
        }
    }
    assert!(run > 20, "only {run} commands were found");
}

#[test]
fn the_readmes_table_of_settings_is_the_codes() {
    let mut table = String::from("| flag | default | meaning |\n| --- | --- | --- |\n");
    for setting in SETTINGS {
        table += &format!("| `--{}` | {} | {} |\n", setting.name, setting.fallback.said(), setting.help);
    }
    let (_, behind) = README.split_once("tests/readme.rs -->\n").expect("the table begins");
    let (shown, _) = behind.split_once("<!-- end of settings -->").expect("the table ends");
    assert!(shown == table, "the README should say:\n{table}");
}

#[test]
fn every_file_the_readme_points_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        assert!(root.join(link).exists(), "the README points to {link}, which is not there");
    }
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(fits("a1b\n", "a…b\n") && fits("ab", "ab") && fits("abc", "a…"));
    assert!(!fits("a1b\nc", "a…b\n") && !fits("ab", "a") && !fits("ab", "b…"));
}
