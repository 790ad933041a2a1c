//! One flipped bit or one truncated file, anywhere in a node's folder: no wrong value is served, nothing is taken for
//! absent that is held, and it is repaired.

use crate::support;

use kringle::merkle::Forest;
use kringle::record::{Actor, Clock, Content, Edit, Key, Record, Row, Seen, Stamp};
use kringle::storage::{Address, Change, Committer, Feed, OpenOptions, Opened, Outcome, Store, open};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::cluster::Cluster;
use support::{eventually, seeded, thorough};

/// All files below a folder that are in use, and hold anything if not `empty_too`, by name.
fn files(folder: &Path, empty_too: bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true if entry.file_name().to_string_lossy().starts_with("set-aside") => {}
                true => folders.push(entry.path()),
                false if empty_too || entry.metadata()?.len() > 0 => found.push(entry.path()),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Flips a bit or cuts off the end of one of the files below `folder`, but for those called `spare`; says where.
fn damage(folder: &Path, spare: &str, rng: &mut ChaCha8Rng) -> String {
    // A running node may do away with the very file, or be about to fill it: another one is taken then.
    for _ in 0..100 {
        match try_damage(folder, spare, rng) {
            Ok(Some(what)) => return what,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", folder.display()),
        }
    }
    panic!("{}: no file stays for long enough to be damaged", folder.display())
}

/// As [`damage`]; `None` if the chosen file is empty by now.
fn try_damage(folder: &Path, spare: &str, rng: &mut ChaCha8Rng) -> io::Result<Option<String>> {
    let mut files = files(folder, false)?;
    files.retain(|path| path.file_name().is_none_or(|name| name != spare));
    let path = &files[rng.random_range(0..files.len())];
    let name = path.strip_prefix(folder).unwrap_or(path).display();
    let bytes = fs::read(path)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let written = written(&bytes).max(1);
    // In place: the node may be running on it.
    let file = File::options().write(true).open(path)?;
    if rng.random_range(0..5) == 0 {
        let length = rng.random_range(0..written as u64);
        file.set_len(length)?;
        return Ok(Some(format!("{name} cut at {length}")));
    }
    let (at, bit) = (rng.random_range(0..written), rng.random_range(0..8));
    file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64)?;
    Ok(Some(format!("bit {bit} of byte {at} of {name}")))
}

/// A folder in memory: each file's place, what was written of it, and how long it is.
struct Image(Vec<(PathBuf, Vec<u8>, u64)>);

impl Image {
    fn of(folder: &Path) -> Image {
        let file = |path: PathBuf| {
            let mut bytes = fs::read(&path).expect("a file");
            let length = bytes.len() as u64;
            bytes.truncate(written(&bytes));
            (path.strip_prefix(folder).expect("a file of the folder").to_owned(), bytes, length)
        };
        Image(files(folder, true).expect("the files").into_iter().map(file).collect())
    }

    fn put(&self, folder: &Path) {
        for (name, bytes, length) in &self.0 {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, bytes).expect("a copy");
            File::options().write(true).open(&path).and_then(|file| file.set_len(*length)).expect("its length");
        }
    }
}

/// Segments and journals are made long and filled later: how much of one was written.
fn written(bytes: &[u8]) -> usize {
    let page = bytes.chunks(4096).rposition(|page| page != &[0; 4096][..page.len()]).map_or(0, |page| page * 4096);
    bytes[page..].iter().rposition(|&byte| byte != 0).map_or(0, |last| page + last + 1)
}

fn key(number: usize) -> Key {
    Key::new(format!("key-{number}")).expect("a key")
}

fn committer(opened: &Opened) -> Committer {
    let feed = Arc::new(Feed::new(1, 9, 1 << 20));
    let hints = Arc::new(kringle::storage::HintLedger::new(1 << 20));
    let clock = Clock::starting_after(opened.store.last_stamp());
    Committer::new(opened.store.clone(), Arc::new(Forest::new()), feed, hints, Arc::default(), Actor(7), clock)
}

/// A folder whose every key was written several times: some into the base, some into the log alone.
fn filled(folder: &Path) -> BTreeMap<Key, Vec<Record>> {
    let opened = open(folder, options()).expect("a new folder");
    let mut committer = committer(&opened);
    let mut versions: BTreeMap<Key, Vec<Record>> = BTreeMap::new();
    for round in 0..4 {
        for number in 0..150 {
            if (number + round) % 3 == 0 {
                continue;
            }
            let content = Some(Content::plain(format!("value {round} of {number}, ").repeat(8)));
            let write =
                Change::Write { key: key(number), edit: Edit::write(Seen::Everything, content), until: Stamp::MAX };
            for outcome in committer.commit(1_000 + round as u64, vec![write]) {
                let Ok(Outcome::Written { record, .. }) = outcome else { panic!("{outcome:?}") };
                versions.entry(key(number)).or_default().push(record);
            }
        }
        if round < 3 {
            opened.store.checkpoint(&mut || ()).expect("a checkpoint");
        }
    }
    versions
}

fn options() -> OpenOptions {
    OpenOptions { heal: true, ..OpenOptions::new("kringle", 7, 8) }
}

/// What is wrong with a damaged folder as it was opened, if anything.
fn judge(opened: &mut Opened, versions: &BTreeMap<Key, Vec<Record>>) -> Result<&'static str, String> {
    let (mut missing, mut unreadable) = (0, 0);
    for (key, versions) in versions {
        let held = match opened.store.read(&Address::data(key)) {
            Ok(row) => row.map(|row| Row::decode(&row)),
            Err(_) => {
                unreadable += 1;
                continue;
            }
        };
        match held {
            Some(Ok(row)) if Some(&row.record) == versions.last() => {}
            Some(Ok(row)) if versions.contains(&row.record) => missing += 1,
            Some(Ok(row)) => return Err(format!("{key:?} was never {:?}", row.record)),
            Some(Err(_)) => unreadable += 1,
            None => missing += 1,
        }
    }
    if missing > 0 && opened.lost.is_empty() {
        return Err(format!("{missing} rows are old or missing, and nobody says so"));
    }
    let rotten = opened.store.rotten_files(&mut || ()).map_err(|error| error.to_string())?;
    if unreadable > 0 && rotten.is_empty() {
        return Err(format!("{unreadable} rows cannot be read, and every file is called sound"));
    }
    for (_, salvage) in &mut opened.salvages {
        while let Some(changes) = salvage.as_mut().and_then(|salvage| salvage.step()) {
            for change in changes {
                let Change::Merge { key, record } = &change else { return Err(format!("salvaged {change:?}")) };
                if !versions.get(key).is_some_and(|versions| versions.contains(record)) {
                    return Err(format!("salvaged {change:?}"));
                }
            }
        }
    }
    Ok(match (opened.lost.is_empty(), rotten.is_empty()) {
        (true, true) => "nothing was needed of it",
        (true, false) => "found by reading the files",
        (false, _) => "said to be lost at the start",
    })
}

#[test]
fn whatever_rots_in_a_folder_is_noticed_and_never_taken_for_data() {
    let mut rng = seeded("whatever_rots_in_a_folder_is_noticed_and_never_taken_for_data");
    let home = tempfile::tempdir().expect("a folder");
    let (sound, work) = (home.path().join("sound"), home.path().join("work"));
    let versions = filled(&sound);
    let image = Image::of(&sound);
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for place in 0..if thorough() { 2_000 } else { 200 } {
        image.put(&work);
        let what = damage(&work, "", &mut rng);
        let mut opened = open(&work, options()).unwrap_or_else(|error| panic!("place {place}, {what}: {error}"));
        let verdict = judge(&mut opened, &versions)
            .unwrap_or_else(|wrong| panic!("place {place}, {what}: {wrong}; {:?}", opened.lost));
        *tally.entry(verdict).or_default() += 1;
        drop(opened);
        fs::remove_dir_all(&work).expect("the copy");
    }
    eprintln!("{tally:?}");
    assert!(tally.len() == 3, "{tally:?}");
}

/// Long enough for a start, a scrub and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What every key should hold.
type Pairs = BTreeMap<String, String>;

fn write(cluster: &Cluster, pairs: &mut Pairs, round: usize) {
    let mut client = cluster.client(round % 3);
    for number in (0..60).filter(|number| round == 0 || (number + round).is_multiple_of(6)) {
        let (key, value) = (format!("key-{number}"), format!("value {round} of {number}, ").repeat(6));
        client.put(&format!("/kv/{key}"), value.clone()).expect(if round == 0 { 201 } else { 204 });
        pairs.insert(key, value);
    }
}

/// How many scrubs a node has ended since its start, or broken off to go on over another base; 0 while it is down.
fn scrubs(cluster: &Cluster, index: usize) -> u64 {
    let request = support::http::Request::new("GET", "/status");
    let Ok(status) = cluster.client(index).try_send(&request) else { return 0 };
    let scrub = &status.json()["scrub"];
    scrub["runs"].as_u64().unwrap_or(0) + 2 * scrub["bases_replaced"].as_u64().unwrap_or(0)
}

/// Every key through every node: the value it should hold, whoever lacks what.
#[track_caller]
fn check(cluster: &Cluster, pairs: &Pairs, what: &[String]) {
    for index in 0..cluster.nodes.len() {
        let mut client = cluster.client(index);
        for (key, value) in pairs {
            let answer = client.get(&format!("/kv/{key}"));
            assert!(answer.status == 200 && answer.text() == *value, "{what:?}: {key} through node {index}: {answer}");
        }
    }
}

/// Waits until every node holds everything itself, and counts.
#[track_caller]
fn await_whole(cluster: &Cluster, pairs: &Pairs, what: &[String]) {
    eventually("all nodes hold everything", SOON, || {
        let told =
            |target: &str| -> Vec<Value> { (0..3).map(|index| cluster.client(index).get(target).json()).collect() };
        let (hashes, status) = (told("/store/hash"), told("/status"));
        let equal = hashes.iter().all(|told| *told == hashes[0] && told["keys"] == pairs.len());
        let filled = status.iter().all(|told| told["filling"]["state"] == "filled" && told["scrub"]["waiting"] == 0);
        let brief = || status.iter().map(|told| format!("{} {}", told["filling"], told["scrub"])).collect::<Vec<_>>();
        (equal && filled).then_some(()).ok_or_else(|| format!("{what:?}: {hashes:?} {:?}", brief()))
    });
    for index in 0..3 {
        for (key, value) in pairs {
            assert_eq!(cluster.held_by(index, key), Some(Value::from(value.as_str())), "{what:?}: node {index}");
        }
    }
}

#[test]
fn a_replica_that_rots_is_repaired_by_the_others() {
    let mut rng = seeded("a_replica_that_rots_is_repaired_by_the_others");
    let flags = ["--syncfreq", "1", "--pingfreq", "0.2", "--scrub-every", "1"];
    let mut cluster = Cluster::start(3, &flags);
    let mut pairs = Pairs::new();
    write(&cluster, &mut pairs, 0);
    await_whole(&cluster, &pairs, &[]);
    for round in 1..=if thorough() { 200 } else { 24 } {
        write(&cluster, &mut pairs, round);
        let node = rng.random_range(0..3);
        let folder = cluster.nodes[node].data().to_owned();
        // Most at rest, some under a running node; one place, or several of one replica at once.
        let places = if round % 4 == 0 { 12 } else { 1 };
        let running = round % 5 == 0;
        match round % 2 {
            _ if running => {}
            // What it has is in the base then, else in the log.
            0 => assert!(cluster.nodes[node].stop(SOON).success()),
            _ => cluster.nodes[node].kill(),
        }
        // One copy of the identity is as good as two; with none nobody could tell whose folder it is.
        let spare = if places > 1 { "identity.copy" } else { "" };
        let what: Vec<String> = (0..places).map(|_| damage(&folder, spare, &mut rng)).collect();
        eprintln!("round {round}, node {node}, {}: {what:?}", if running { "running" } else { "at rest" });
        let before = scrubs(&cluster, node);
        if !running {
            cluster.nodes[node].restart();
        }
        check(&cluster, &pairs, &what);
        if running {
            eventually("a scrub has seen it", SOON, || {
                let now = scrubs(&cluster, node);
                (now >= before + 2).then_some(()).ok_or(format!("{before} before, {now} now"))
            });
        }
        await_whole(&cluster, &pairs, &what);
        check(&cluster, &pairs, &what);
    }
}

#[test]
fn a_base_that_rot_turns_into_an_older_one_is_not_taken_for_the_present() {
    let home = tempfile::tempdir().expect("a folder");
    let (sound, work) = (home.path().join("sound"), home.path().join("work"));
    let versions = filled(&sound);
    let image = Image::of(&sound);
    let names = ["base/keyspaces/0/current", "base/keyspaces/1/current"];
    for (name, bit) in names.into_iter().flat_map(|name| (0..8).map(move |bit| (name, bit))) {
        image.put(&work);
        let mut bytes = fs::read(work.join(name)).expect("the file");
        bytes[0] ^= 1 << bit;
        fs::write(work.join(name), bytes).expect("the file");
        let mut opened = open(&work, options()).unwrap_or_else(|error| panic!("bit {bit} of {name}: {error}"));
        assert!(!opened.lost.is_empty(), "bit {bit} of {name} goes unnoticed");
        judge(&mut opened, &versions).unwrap_or_else(|wrong| panic!("bit {bit} of {name}: {wrong}"));
        drop(opened);
        assert!(work.join("base/keyspaces/1/tables").exists(), "bit {bit} of {name}: tables were removed");
        fs::remove_dir_all(&work).expect("the copy");
    }
}
