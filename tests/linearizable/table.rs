//! What each mode answers while owners are dead, measured, and held against the table in the README.
//!
//! With `KRINGLE_BLESS` set, the README's table is written anew instead.

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::{Answer, Request};
use kringle::placement::Mode;
use std::path::Path;

/// Peers are found dead within seconds; nothing is repaired meanwhile.
const FLAGS: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "3600"];

const BEGIN: &str = "<!-- modes: measured by tests/linearizable.rs -->\n";
const END: &str = "<!-- end of modes -->";

/// Who is dead, and what the column is called.
const DEAD: [(&[usize], &str); 7] = [
    (&[], "all three live"),
    (&[0], "first dead"),
    (&[1], "middle dead"),
    (&[2], "last dead"),
    (&[1, 2], "only the first lives"),
    (&[0, 2], "only the middle lives"),
    (&[0, 1], "only the last lives"),
];

/// Status of a write and of a read, through each living node, those that are the same once.
fn answers(cluster: &Cluster, dead: &[usize], mode: &str, key: &str) -> String {
    let living = || (0..3).filter(|index| !dead.contains(index));
    let told = |request: Request| {
        let status = |index: usize| cluster.client(index).send(&request).status.to_string();
        let mut told: Vec<String> = living().map(status).collect();
        told.sort();
        told.dedup();
        told.join(" or ")
    };
    // The read first: a write that failed may surface.
    let read = told(Request::new("GET", format!("/kv/{key}?mode={mode}")));
    let write = told(Request::new("PUT", format!("/kv/{key}?mode={mode}")).body("new"));
    format!("{write}, {read}")
}

fn measured() -> String {
    let mut cluster = Cluster::start(3, &FLAGS);
    let key = |dead: usize, mode: Mode| cluster.key_where(&format!("{mode}-{dead}-"), |owners| owners == [0, 1, 2]);
    let keys: Vec<Vec<String>> =
        (0..DEAD.len()).map(|dead| Mode::ALL.iter().map(|mode| key(dead, *mode)).collect()).collect();
    let mut columns: Vec<Vec<String>> = vec![];
    for ((dead, _), keys) in DEAD.iter().zip(&keys) {
        for (mode, key) in Mode::ALL.iter().zip(keys) {
            eventually("the key is written", std::time::Duration::from_secs(30), || {
                let answer: Answer = cluster.client(0).put(&format!("/kv/{key}?mode={mode}"), "old");
                let everywhere = (0..3).all(|index| cluster.held_by(index, key).is_some());
                (matches!(answer.status, 201 | 204) && everywhere).then_some(()).ok_or(answer.to_string())
            });
        }
        dead.iter().for_each(|index| cluster.nodes[*index].kill());
        let living: Vec<usize> = (0..3).filter(|index| !dead.contains(index)).collect();
        cluster.await_gone(&[&living]);
        let told = Mode::ALL.iter().zip(keys).map(|(mode, key)| answers(&cluster, dead, mode.name(), key));
        columns.push(told.collect());
        dead.iter().for_each(|index| cluster.nodes[*index].restart());
        cluster.await_gone(&[&[0, 1, 2]]);
    }
    let mut table = format!("| write, read | {} |\n", DEAD.map(|(_, name)| name).join(" | "));
    table += &format!("|{}\n", " --- |".repeat(DEAD.len() + 1));
    for (row, mode) in Mode::ALL.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        table += &format!("| `{mode}` | {} |\n", cells.join(" | "));
    }
    table
}

#[test]
fn the_readmes_table_of_what_modes_answer_while_owners_are_dead_is_what_they_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let table = measured();
    let place = readme.split_once(BEGIN).and_then(|(before, behind)| Some((before, behind.split_once(END)?)));
    let Some((before, (shown, behind))) = place else {
        panic!("no place in the README for the table: it stands between\n{BEGIN}{END}\nand is\n{table}");
    };
    if std::env::var_os("KRINGLE_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{behind}")).expect("the README");
        return;
    }
    assert!(shown == table, "the README should say (KRINGLE_BLESS=1 writes it):\n{table}");
}
