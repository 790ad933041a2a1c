//! Backups of nodes that serve, restored elsewhere.

use super::ctl::{Done, killed_when, run, url, word};
use super::support::cluster::Cluster;
use super::support::http::{Request, encode};
use super::support::node::{Node, Plan};
use super::support::{eventually, seeded, thorough};
use super::{batch, fill, shown};
use kringle::protocol::Copies;
use kringle::record::{Actor, Dot, Stamp};
use rand::Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FLAGS: [&str; 7] = ["--memory", "--timeout", "10", "--pingfreq", "0.5", "--syncfreq", "2"];
/// Long enough for several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(90);

fn keys() -> usize {
    if thorough() { 50_000 } else { 3_000 }
}

fn all(cluster: &Cluster) -> Vec<&Node> {
    cluster.nodes.iter().collect()
}

/// A backup of all members.
#[track_caller]
fn backup(cluster: &Cluster, folder: &Path) -> Done {
    run(&all(cluster), &["-o", "json", "backup", word(folder)]).with(0)
}

/// What is told of a restore.
#[track_caller]
fn restore(nodes: &[&Node], folder: &Path) -> Value {
    run(nodes, &["-o", "json", "restore", word(folder)]).with(0).json()
}

/// The hash of all that a node owns, once it is built.
fn hash(node: &Node) -> Result<Value, String> {
    let hash = node.get("/store/hash").json();
    if hash["hash"].is_string() { Ok(hash) } else { Err(hash.to_string()) }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_backup_taken_under_load_is_restored_into_one_node_and_into_five() {
    let folder = tempfile::tempdir().unwrap();
    let from = Cluster::start(3, &FLAGS);
    let count = keys();
    fill(&from.nodes[0], count, "a backup under load");
    let mut client = from.client(1);
    for at in 0..40 {
        client.put(&format!("/kv/agreed/{at}?mode=quorum"), "first").expect(201);
        client.put(&format!("/kv/agreed/{at}?mode=quorum"), format!("agreed {at}")).expect(204);
    }
    let token = client.put("/kv/elsewhere", "x").must("Kringle-Context").to_owned();
    for value in ["red", "green"] {
        client.send(&Request::new("PUT", "/kv/two").header("Kringle-Context", &token).body(value));
    }
    batch(&mut client, (0..5).map(|at| json!({"op": "incr", "key": "counter", "by": at})));
    batch(&mut client, (0..100).map(|at| json!({"op": "delete", "key": format!("key/{at:07}")})));
    let before = shown(&mut client);
    assert_eq!(before.len(), count - 100 + 43);

    // What is written meanwhile may be in it or not; what was there before is.
    let (under_load, stop) = (folder.path().join("under-load"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut client, mut at) = (from.client(2), 0);
            while !stop.load(Ordering::Relaxed) {
                client.put(&format!("/kv/load/{}", at % 500), format!("load {at}"));
                at += 1;
            }
            at
        });
        let taken = backup(&from, &under_load).json();
        stop.store(true, Ordering::Relaxed);
        assert!(writing.join().unwrap() > 0, "something was written meanwhile");
        assert_eq!(taken.as_array().map(Vec::len), Some(3));
    });
    let verified = run(&[], &["backup", "verify", word(&under_load)]).with(0).text();
    assert_eq!(verified.lines().count(), 3, "{verified}");

    let (one, five) = (Cluster::start(1, &FLAGS), Cluster::start(5, &FLAGS));
    // A read that agrees leaves promises which are later than all that the backup says was accepted.
    for at in 0..40 {
        five.client(at % 5).get(&format!("/kv/agreed/{at}?mode=quorum")).expect(404);
    }
    for to in [&one, &five] {
        // What was written meanwhile is newer in the backup of one node than in another's.
        let told = restore(&all(to), &under_load);
        assert_eq!(told["failed"], 0, "{told}");
        for node in &to.nodes {
            let mut after = shown(&mut node.client());
            after.retain(|key, _| !key.starts_with("load/"));
            assert!(after == before, "{} keys and {}", after.len(), before.len());
        }
        for at in 0..40 {
            let node = &to.nodes[at % to.nodes.len()];
            let answer = node.get(&format!("/kv/agreed/{at}?mode=quorum")).expect(200);
            assert_eq!(answer.text(), format!("agreed {at}"));
        }
        // A new actor, which goes on from there.
        assert_eq!(to.client(0).post("/counters/counter", &json!({ "by": 5 })).expect(200).json()["value"], 15);
        assert_ne!(
            to.nodes[0].get("/cluster").json()["cluster_id"],
            from.nodes[0].get("/cluster").json()["cluster_id"]
        );
    }

    // Taken once more, with nobody writing: the restored copies become those that were backed up, to the last bit.
    let quiet = folder.path().join("quiet");
    backup(&from, &quiet);
    let fresh = Cluster::start(3, &FLAGS);
    restore(&all(&fresh), &under_load);
    restore(&all(&fresh), &quiet);
    eventually("the restored nodes hold just what the others do", SOON, || {
        let hashes = from.nodes.iter().chain(&fresh.nodes).map(hash).collect::<Result<Vec<_>, _>>()?;
        if hashes.iter().all(|hash| *hash == hashes[0]) { Ok(()) } else { Err(format!("{hashes:?}")) }
    });
    let again = restore(&all(&fresh), &quiet);
    assert_eq!((&again["restored"], &again["failed"]), (&json!(0), &json!(0)), "{again}");
}

#[test]
fn a_restored_key_that_is_deleted_leaves_nothing_behind_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let backed_up = folder.path().join("backup");
    let from = Cluster::start(3, &FLAGS);
    fill(&from.nodes[0], 200, "deleted after a restore");
    batch(&mut from.client(0), (0..50).map(|at| json!({"op": "delete", "key": format!("key/{at:07}")})));
    backup(&from, &backed_up);
    let to = Cluster::start(3, &FLAGS);
    let told = restore(&all(&to), &backed_up);
    assert_eq!(told["failed"], 0, "{told}");
    batch(&mut to.client(1), (50..100).map(|at| json!({"op": "delete", "key": format!("key/{at:07}")})));
    assert_eq!(shown(&mut to.client(2)).len(), 100);
    eventually("no tombstone is left", SOON, || {
        let left: Vec<Value> =
            to.nodes.iter().map(|node| node.get("/status").json()["store"]["tombstones"].clone()).collect();
        if left.iter().all(|left| left == 0) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // And what was deleted since is known for what it is.
    let told = restore(&all(&to), &backed_up);
    assert_eq!((&told["restored"], &told["failed"]), (&json!(0), &json!(0)), "{told}");
    assert!(told["superseded"].as_u64() >= Some(50), "{told}");
    assert_eq!(shown(&mut to.client(2)).len(), 100);
    let same = run(&all(&from), &["restore", word(&backed_up)]).with(0);
    assert!(same.stderr.contains("the cluster that was backed up"), "{}", same.stderr);
}

#[test]
fn any_bit_that_was_flipped_is_found_and_nothing_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let backed_up = folder.path().join("backup");
    let (from, to) = (Plan::new(&["--memory"]).start(), Plan::new(&["--memory"]).start());
    fill(&from, 200, "flipped bits");
    let taken = run(&[], &["backup", "--node", &url(&from), word(&backed_up)]).with(0);
    assert!(taken.text().contains("200 records"), "{taken:?}");
    run(&[], &["backup", "--node", &url(&from), word(&backed_up)]).refused(2, "already");
    let mut random = seeded("flipped bits");
    for file in files(&backed_up) {
        let whole = std::fs::read(&file).unwrap();
        for _ in 0..if thorough() { 200 } else { 10 } {
            let (at, bit) = (random.random_range(0..whole.len()), random.random_range(0..8));
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            std::fs::write(&file, &flipped).unwrap();
            let place = format!("bit {bit} of byte {at} of {}", file.display());
            assert_eq!(run(&[], &["backup", "verify", word(&backed_up)]).code, Some(2), "{place}");
            assert_eq!(run(&[&to], &["restore", word(&backed_up)]).code, Some(2), "{place}");
        }
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(run(&[&to], &["restore", word(&backed_up)]).code, Some(2));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(run(&[&to], &["restore", word(&backed_up)]).code, Some(2));
        std::fs::write(&file, whole).unwrap();
    }
    assert_eq!(to.get("/status").json()["store"]["keys"], 0, "nothing came through");
    assert_eq!(restore(&[&to], &backed_up)["restored"], 200);
    assert_eq!(shown(&mut to.client()), shown(&mut from.client()));
}

#[test]
fn the_pieces_of_a_backup_are_asked_for_and_brought_back_over_http() {
    let (from, to) = (Plan::new(&["--memory"]).start(), Plan::new(&["--memory"]).start());
    from.put("/kv/a", "1");
    let piece = from.get("/backup").expect(200);
    assert_eq!(piece.must("Content-Type"), "application/vnd.kringle");
    let restore = |body: Vec<u8>| to.client().send(&Request::new("POST", "/restore").body(body));
    let told = restore(piece.body.clone()).expect(200).json();
    assert_eq!((&told["records"], &told["restored"], &told["partitions_known"]), (&json!(1), &json!(1), &json!(1024)));
    assert_eq!(to.get("/kv/a").expect(200).text(), "1");
    // What nobody can have written yet was seen by nobody.
    let mut ahead = Copies::decode(&piece.body).unwrap();
    let years_ahead = Stamp(ahead.portions[0].seen.latest().unwrap().0.saturating_mul(2));
    ahead.portions[0].seen.add(Dot { stamp: years_ahead, actor: Actor(7) });
    assert_eq!(restore(ahead.encode()).expect(200).json()["partitions_known"], 1023);
    let mut damaged = piece.body.clone();
    damaged[50] ^= 1;
    restore(damaged).refusal(400);
    restore(b"anything".to_vec()).refusal(400);
    from.get("/backup?partition=1024").refusal(400);
    from.get(&format!("/backup?partition=0&after={}", encode("a"))).refusal(400);
    let foreign = Request::new("POST", "/restore").header("Origin", "http://elsewhere.example").body(piece.body);
    to.client().send(&foreign).refusal(403);
}

#[test]
fn a_backup_that_was_cut_off_is_none_and_a_member_that_is_down_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let backed_up = folder.path().join("backup");
    let mut from = Cluster::start(3, &FLAGS);
    fill(&from.nodes[0], 100, "a member that is down");
    let port = from.nodes[2].port().to_string();
    from.nodes[2].kill();
    let failed = run(&all(&from)[..1], &["backup", word(&backed_up)]).with(5);
    assert!(failed.stderr.contains(&port) && failed.stderr.contains("2 of 3 members"), "{}", failed.stderr);
    let to = Plan::new(&["--memory"]).start();
    run(&[], &["backup", "verify", word(&backed_up)]).refused(2, "there is no backup of");
    run(&[&to], &["restore", word(&backed_up)]).refused(2, "there is no backup of");
    run(&all(&from)[..1], &["backup", word(&backed_up)]).refused(2, "already");
    run(&all(&from)[..1], &["restore", word(folder.path())]).refused(2, "there is no backup");
    // Whoever wants what there is names it.
    let members: Vec<PathBuf> = std::fs::read_dir(&backed_up).unwrap().map(|entry| entry.unwrap().path()).collect();
    let taken: Vec<&str> = members.iter().filter(|path| path.is_dir()).map(|path| word(path)).collect();
    assert_eq!(taken.len(), 2);
    let told = run(&[&to], &[&["-o", "json", "restore"], &taken[..]].concat()).with(0).json();
    assert_eq!(told["failed"], 0, "{told}");
    // A folder that was made and has nothing in it is one that is not done.
    let members = backed_up.join("members.json");
    let text = std::fs::read_to_string(&members).unwrap();
    std::fs::write(&members, text.replacen("kringle", "krangle", 1)).unwrap();
    run(&[&to], &["restore", word(&backed_up)]).refused(2, "members.json");
    std::fs::remove_file(&members).unwrap();
    std::fs::create_dir(backed_up.join("third")).unwrap();
    run(&[&to], &["restore", word(&backed_up)]).refused(2, "not done");
}

#[test]
fn a_backup_during_which_the_layout_changed_says_that_keys_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let from = Cluster::start(2, &FLAGS);
    fill(&from.nodes[0], keys(), "a layout that changes");
    let one = |at: usize, name: &str| {
        let path = folder.path().join(name);
        run(&[], &["backup", "--node", &url(&from.nodes[at]), word(&path)]).with(0);
        path
    };
    let change = |mode: &str| {
        from.client(0)
            .send(&Request::new("PUT", "/cluster/mode").body(json!({ "mode": mode }).to_string()))
            .expect(200);
        eventually("both nodes have the mode", SOON, || {
            let modes = from.nodes.iter().map(|node| node.get("/cluster").json()["mode"].clone());
            if modes.clone().all(|now| now == mode) { Ok(()) } else { Err(format!("{:?}", modes.collect::<Vec<_>>())) }
        });
    };
    let first = one(0, "first");
    change("quorum");
    let second = one(1, "second");
    let warned = run(&[], &["backup", "verify", word(&first), word(&second)]).with(0);
    assert!(warned.stderr.contains("the layout changed"), "{}", warned.stderr);
    // It may be through before it is killed.
    let cut = (0..20).map(|at| folder.path().join(format!("cut-{at}"))).find(|path| {
        let words = ["backup", "--node", &url(&from.nodes[0]), word(path)];
        killed_when(&[], &words, || path.join("unfinished.json").exists()) && !path.join("manifest.json").exists()
    });
    let cut = cut.expect("one that was cut off");
    run(&[], &["backup", "verify", word(&cut)]).refused(2, "not done");
    change("sloppy");
    let words = ["-o", "json", "backup", "--resume", "--node", &url(&from.nodes[0]), word(&cut)];
    assert_eq!(run(&[], &words).with(8).json()[0]["whole_node"], false);
}

#[test]
fn a_restore_that_not_all_owners_took_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let backed_up = folder.path().join("backup");
    let (from, mut to) = (Plan::new(&["--memory"]).start(), Cluster::start(3, &FLAGS));
    fill(&from, 100, "an owner that is down");
    run(&[&from], &["backup", word(&backed_up)]).with(0);
    to.nodes[2].kill();
    let told = run(&all(&to)[..2], &["-o", "json", "restore", word(&backed_up)]).with(8);
    assert_eq!(told.json()["failed"], 0, "{told:?}");
    assert!(told.stderr.contains("repeat the restore"), "{}", told.stderr);
}
