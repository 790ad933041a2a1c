//! What a node on disk keeps: through `kill -9` at any moment, a torn log, an orderly stop; and which folders it
//! refuses to touch.

use crate::support;

use rand::Rng;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use support::http::{Client, Request, connect, read_to_close};
use support::load::{History, Load, Outcome, Workload};
use support::node::{Node, Plan, refused, reserve_port};
use support::{copy_folder, eventually, thorough};
use tempfile::TempDir;

/// How soon an orderly stop is over.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The log segment written last that has anything in it, and where its written part ends. Segments are
/// preallocated: behind that point there are only zeros.
fn newest_segment(data: &Path) -> (PathBuf, usize) {
    let mut segments: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(data.join("log"))
        .expect("the log's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.metadata().and_then(|meta| meta.modified()).expect("its time"), path))
        .collect();
    segments.sort();
    let written = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("the segment");
        Some((path, bytes.iter().rposition(|byte| *byte != 0)? + 1))
    };
    segments.into_iter().rev().find_map(|(_, path)| written(path)).expect("a segment with something in it")
}

/// Writes keys one after another; each is acknowledged before the next is sent.
fn write_in_order(node: &Node, prefix: &str, count: usize) -> Vec<(String, String)> {
    let mut client = node.client();
    (0..count)
        .map(|number| {
            let (key, value) = (format!("{prefix}{number}"), format!("value of {prefix}{number}"));
            client.put(&format!("/kv/{key}"), value.clone()).expect(201);
            (key, value)
        })
        .collect()
}

#[track_caller]
fn assert_all_there(node: &Node, pairs: &[(String, String)]) {
    let mut client = node.client();
    for (key, value) in pairs {
        assert_eq!(client.get(&format!("/kv/{key}")).expect(200).text(), *value, "{key}");
    }
}

// ---- killed

#[test]
fn every_acknowledged_write_survives_ten_kills_under_load() {
    let mut rng = support::seeded("ten kills under load");
    let mut node = Node::on_disk();
    let mut history = History::default();
    for round in 0..if thorough() { 50 } else { 10 } {
        let workload = Workload { name: format!("r{round}-"), value_bytes: 300, ..Workload::default() };
        let load = Load::start(&[node.address()], &workload, &mut rng);
        load.await_more(1, Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        node.kill();
        let written = load.finish();
        node.restart();
        written.verify(&mut node.client());
        history.absorb(written);
    }
    history.verify(&mut node.client());
    assert!(history.count(Outcome::Acknowledged) >= 100, "a load worth the name");
}

#[test]
fn kills_while_starting_lose_nothing_either() {
    let mut rng = support::seeded("kills while starting");
    let mut node = Node::on_disk();
    let pairs = write_in_order(&node, "k", 200);
    node.kill();
    for _ in 0..if thorough() { 50 } else { 10 } {
        node.relaunch();
        std::thread::sleep(Duration::from_micros(rng.random_range(0..120_000)));
        node.kill();
    }
    node.restart();
    assert_all_there(&node, &pairs);
}

#[test]
fn a_write_that_was_deleted_or_replaced_stays_so_after_a_kill() {
    let mut node = Node::on_disk();
    let mut client = node.client();
    client.put("/kv/deleted", "v").expect(201);
    client.put("/kv/replaced", "old").expect(201);
    let context = client.get("/kv/replaced").must("Kringle-Context").to_owned();
    client.delete("/kv/deleted").expect(204);
    client.send(&Request::new("PUT", "/kv/replaced").header("Content-Type", "image/x-test").body("new")).expect(204);
    let sibling = Request::new("PUT", "/kv/replaced").header("Kringle-Context", context).body("sibling");
    client.send(&sibling).expect(204);
    let read = client.get("/kv/replaced").expect(200);
    let hash = client.get("/store/hash").json();
    node.kill();
    node.restart();
    let mut client = node.client();
    client.get("/kv/deleted").expect(404).must("Kringle-Context");
    let again = client.get("/kv/replaced").expect(200);
    for name in ["ETag", "Kringle-Siblings", "Content-Type"] {
        assert_eq!(again.must(name), read.must(name), "{name}");
    }
    assert_eq!(again.body, read.body);
    eventually("the same digest", Duration::from_secs(5), || {
        let told = client.get("/store/hash").json();
        (told == hash).then_some(()).ok_or(format!("{told}, was {hash}"))
    });
    // A context handed out before the kill still covers what it covered.
    let merge = Request::new("PUT", "/kv/replaced").header("Kringle-Context", read.must("Kringle-Context")).body("m");
    client.send(&merge).expect(204);
    assert_eq!(client.get("/kv/replaced").must("Kringle-Siblings"), "1");
}

#[test]
fn what_was_preallocated_behind_the_last_write_may_be_missing() {
    let mut node = Node::on_disk();
    let pairs = write_in_order(&node, "k", 100);
    node.kill();
    let (segment, end) = newest_segment(node.data());
    let file = std::fs::File::options().write(true).open(segment).expect("the segment");
    let length = file.metadata().expect("its length").len();
    file.set_len(length.min(end as u64 + 64)).expect("a shorter segment");
    node.restart();
    assert_all_there(&node, &pairs);
}

#[test]
fn a_torn_tail_costs_the_last_write_at_most_and_the_log_goes_on() {
    for (torn, by_length) in [(1, false), (1, true), (9, false), (9, true), (30, false), (30, true)] {
        let mut node = Node::on_disk();
        let mut pairs = write_in_order(&node, "k", 50);
        // The last write is long enough for every tear to stay inside it.
        node.put("/kv/last", vec![b'l'; 500]).expect(201);
        node.kill();
        let (segment, end) = newest_segment(node.data());
        let mut bytes = std::fs::read(&segment).expect("the segment");
        match by_length {
            true => bytes.truncate(end - torn),
            false => bytes[end - torn..end].iter_mut().for_each(|byte| *byte ^= 0x5a),
        }
        std::fs::write(&segment, bytes).expect("a torn segment");
        node.restart();
        assert_all_there(&node, &pairs);
        if node.get("/kv/last").status == 200 {
            assert_eq!(node.get("/kv/last").body, vec![b'l'; 500], "whole or not at all");
        }
        pairs.extend(write_in_order(&node, "after", 20));
        node.kill();
        node.restart();
        assert_all_there(&node, &pairs);
    }
}

// ---- stopped in order

#[test]
fn a_request_under_way_is_answered_before_the_node_stops() {
    let mut node = Node::on_disk();
    let body = vec![b'v'; 100_000];
    let mut under_way: Vec<_> = (0..8)
        .map(|number| {
            let mut stream = connect(&node.address(), STOP_LIMIT).expect("a connection");
            let head = format!("PUT /kv/u{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..body.len() / 2])).expect("a half");
            stream
        })
        .collect();
    // An idle connection is nothing to wait for.
    let mut idle = node.client();
    idle.get("/ping").expect(200);
    // Nothing tells from outside that the halves have been read; a moment later they have.
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    node.terminate();
    std::thread::sleep(Duration::from_millis(200));
    for (number, stream) in under_way.iter_mut().enumerate() {
        stream.write_all(&body[body.len() / 2..]).expect("the other half");
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap_or_else(|error| panic!("request {number} was cut: {error}"));
        assert_eq!(&status, b"HTTP/1.1 201", "request {number}");
    }
    drop(under_way);
    let status = node.await_exit(STOP_LIMIT.saturating_sub(started.elapsed()));
    assert_eq!(status.code(), Some(0));
    node.restart();
    for number in 0..8 {
        assert_eq!(node.get(&format!("/kv/u{number}")).expect(200).body, body);
    }
}

#[test]
fn a_stop_under_load_cuts_no_answer_and_loses_nothing() {
    let mut rng = support::seeded("a stop under load");
    let mut node = Node::on_disk();
    for round in 0..3 {
        let workload = Workload { name: format!("r{round}-"), ..Workload::default() };
        let load = Load::start(&[node.address()], &workload, &mut rng);
        load.await_more(100, Duration::from_secs(20));
        let status = node.stop(STOP_LIMIT);
        let history = load.finish();
        assert_eq!(status.code(), Some(0));
        let cut: Vec<_> = history.writes().filter(|write| write.said.contains("cut short")).collect();
        assert!(cut.is_empty(), "answers cut in the middle: {cut:?}");
        node.restart();
        history.verify(&mut node.client());
    }
}

#[test]
fn asking_twice_to_stop_is_not_too_much() {
    let mut node = Node::on_disk();
    node.put("/kv/a", "v").expect(201);
    node.terminate();
    // It may be gone already.
    if node.exited().is_none() {
        node.terminate();
        node.await_exit(STOP_LIMIT);
    }
    node.restart();
    assert_eq!(node.get("/kv/a").expect(200).text(), "v");
}

#[test]
fn with_100_000_keys_a_clean_restart_serves_within_a_second() {
    const KEYS: usize = 100_000;
    const CONNECTIONS: usize = 8;
    // The promise is about a release build; an unoptimized one gets three times as long.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });
    let mut node = Plan::new(&["--durability", "none"]).start();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let mut client = node.client();
            scope.spawn(move || {
                for number in (connection..KEYS).step_by(CONNECTIONS) {
                    client.put(&format!("/kv/key{number}"), format!("{number:0100}")).expect(201);
                }
            });
        }
    });
    assert_eq!(node.stop(STOP_LIMIT).code(), Some(0));
    let started = Instant::now();
    node.relaunch();
    let mut client = node.client().within(Duration::from_secs(5));
    let read = eventually("the first answer", Duration::from_secs(30), || {
        match client.try_send(&Request::new("GET", "/kv/key77777")) {
            Ok(answer) if answer.status == 200 => Ok(answer),
            Ok(answer) => Err(answer.to_string()),
            Err(error) => Err(error.to_string()),
        }
    });
    let took = started.elapsed();
    assert_eq!(read.text(), format!("{:0100}", 77777));
    assert!(took < limit, "served after {took:?}");
    node.await_ready();
    for number in (0..KEYS).step_by(997) {
        assert_eq!(client.get(&format!("/kv/key{number}")).expect(200).text(), format!("{number:0100}"));
    }
    eventually("all keys are counted", Duration::from_secs(30), || {
        let keys = client.get("/store/hash").json()["keys"].as_u64();
        (keys == Some(KEYS as u64)).then_some(()).ok_or(format!("{keys:?}"))
    });
}

#[test]
fn every_durability_survives_an_orderly_stop() {
    for durability in ["sync", "interval:50ms", "interval:50", "none"] {
        let mut node = Plan::new(&["--durability", durability]).start();
        let pairs = write_in_order(&node, "k", 100);
        assert_eq!(node.stop(STOP_LIMIT).code(), Some(0), "{durability}");
        node.restart();
        assert_all_there(&node, &pairs);
    }
}

#[test]
fn by_default_the_folder_is_named_after_the_port() {
    let port = reserve_port();
    let place = TempDir::new().unwrap();
    // The shell only changes the folder; it becomes the node.
    let script = format!("cd {} && exec \"$0\" --port {port}", place.path().display());
    let node = Plan::new(&[]).port(port).data(Path::new("ignored")).under(["sh", "-c", &script]).start();
    node.put("/kv/a", "v").expect(201);
    assert!(place.path().join(format!("data/{port}")).is_dir());
}

#[test]
fn a_node_in_memory_leaves_nothing_behind() {
    let port = reserve_port();
    let place = TempDir::new().unwrap();
    let script = format!("cd {} && exec \"$0\" --memory --port {port}", place.path().display());
    let node = Plan::new(&["--memory"]).port(port).under(["sh", "-c", &script]).start();
    node.put("/kv/a", "v").expect(201);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

// ---- refused

#[test]
fn a_folder_in_use_is_refused() {
    let node = Node::on_disk();
    let place = TempDir::new().unwrap();
    let folder = node.data().to_str().unwrap();
    let line = refused(place.path(), &["--port", "0", "--data", folder], &[]).with_one_line(1);
    assert!(line.contains(folder), "says which folder: {line}");
    node.put("/kv/a", "v").expect(201);
}

#[test]
fn a_file_in_place_of_the_folder_is_called_what_it_is() {
    let place = TempDir::new().unwrap();
    std::fs::write(place.path().join("file"), "mine").unwrap();
    let line = refused(place.path(), &["--port", "0", "--data", "file"], &[]).with_one_line(1);
    assert_eq!(line, "kringle: file is not a data folder: it is a file");
    assert_eq!(std::fs::read(place.path().join("file")).unwrap(), b"mine");
}

#[test]
fn a_folder_of_another_cluster_is_refused_and_left_alone() {
    let mut node = Plan::new(&["--cluster", "one"]).start();
    let pairs = write_in_order(&node, "k", 10);
    assert_eq!(node.stop(STOP_LIMIT).code(), Some(0));
    let place = TempDir::new().unwrap();
    let words = ["--port", "0", "--cluster", "other", "--data", node.data().to_str().unwrap()];
    let line = refused(place.path(), &words, &[]).with_one_line(1);
    assert!(line.to_lowercase().contains("cluster"), "says what is wrong: {line}");
    node.restart();
    assert_all_there(&node, &pairs);
}

#[test]
fn a_folder_of_another_format_is_refused_and_never_wiped() {
    let mut node = Node::on_disk();
    let pairs = write_in_order(&node, "k", 10);
    assert_eq!(node.stop(STOP_LIMIT).code(), Some(0));
    let small = |entry: &std::fs::DirEntry| entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0);
    let names: Vec<_> =
        std::fs::read_dir(node.data()).unwrap().flatten().filter(small).map(|entry| entry.file_name()).collect();
    assert!(!names.is_empty(), "the folder says what it is in a file of its own");
    for name in &names {
        let place = TempDir::new().unwrap();
        let copy = place.path().join("data");
        copy_folder(node.data(), &copy);
        let original = std::fs::read(copy.join(name)).unwrap();
        std::fs::write(copy.join(name), b"\xff\xff not what was written here \0").unwrap();
        let mut other = Plan::new(&[]).port(node.port()).data(&copy).spawn();
        match other.ready_or_gone() {
            // A file that a start can do without, such as a lock or one of two copies.
            None => assert_all_there(&other, &pairs),
            Some(status) => {
                assert_eq!(status.code(), Some(1), "{name:?}: {}", other.log());
                assert_eq!(other.log().lines().count(), 1, "{name:?}: {}", other.log());
            }
        }
        other.kill();
        std::fs::write(copy.join(name), original).unwrap();
        other.restart();
        assert_all_there(&other, &pairs);
    }
    // Without any of them nobody can tell what is in the folder.
    let place = TempDir::new().unwrap();
    let copy = place.path().join("data");
    copy_folder(node.data(), &copy);
    names.iter().for_each(|name| std::fs::write(copy.join(name), b"\xff\xff").unwrap());
    let line = refused(place.path(), &["--port", "0", "--data", copy.to_str().unwrap()], &[]).with_one_line(1);
    assert!(line.contains("is not a data folder"), "{line}");
    for name in &names {
        std::fs::copy(node.data().join(name), copy.join(name)).unwrap();
    }
    node.kill();
    let again = Plan::new(&[]).port(node.port()).data(&copy).start();
    assert_all_there(&again, &pairs);
}

#[test]
fn an_unusable_folder_or_port_ends_the_start_with_one_line() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("a file");
    std::fs::write(&file, "not a folder").unwrap();
    let inside = file.join("inside");
    for folder in [file.as_path(), inside.as_path(), Path::new("/proc/kringle")] {
        let line = refused(place.path(), &["--port", "0", "--data", folder.to_str().unwrap()], &[]).with_one_line(1);
        assert!(line.contains(folder.to_str().unwrap()), "says which folder: {line}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let line = refused(place.path(), &["--memory", "--port", &port], &[]).with_one_line(1);
    assert!(line.contains(&port), "says which port: {line}");
    // An address of documentation: on no machine.
    refused(place.path(), &["--memory", "--insecure", "--host", "192.0.2.1", "--port", "0"], &[]).with_one_line(1);
}

#[test]
fn bad_settings_end_the_start_with_one_line() {
    let place = TempDir::new().unwrap();
    std::fs::write(place.path().join("unknown.toml"), "prot = 8001\n").unwrap();
    std::fs::write(place.path().join("broken.toml"), "port = [\n").unwrap();
    std::fs::write(place.path().join("wrong.toml"), "port = \"many\"\n").unwrap();
    let table: [&[&str]; 46] = [
        &["--port", "x"],
        &["--port", "-1"],
        &["--port", "65536"],
        &["--port"],
        &["--host", ""],
        &["--host", "no such host name"],
        &["--host", "0.0.0.0"],
        &["--host", "::"],
        &["--host", "192.0.2.1"],
        &["--peers", "http://"],
        &["--peers", "ftp://127.0.0.1:8002"],
        &["--peers", "127.0.0.1:99999"],
        &["--peers", "127.0.0.1:x"],
        &["--peers", "http://a:8001/path"],
        &["--peers", "what ever"],
        &["--peers", "http://user:secret@127.0.0.1:8002"],
        &["--pingfreq", "0"],
        &["--pingfreq=-1"],
        &["--pingfreq", "nan"],
        &["--pingfreq", "inf"],
        &["--pingfreq", "often"],
        &["--timeout", "0"],
        &["--timeout=-0.5"],
        &["--timeout", "nan"],
        &["--timeout", "1e300"],
        &["--advertise", "nonsense:x"],
        &["--advertise", "ftp://127.0.0.1:8001"],
        &["--replicas", "0"],
        &["--replicas", "many"],
        &["--mode", "best"],
        &["--w", "0"],
        &["--w", "4"],
        &["--r", "0"],
        &["--r", "4"],
        &["--replicas", "1", "--w", "2"],
        &["--durability", "sometimes"],
        &["--durability", "interval:"],
        &["--value-max", "x"],
        &["--key-max", "0"],
        &["--key-max", "4097"],
        &["--log-format", "xml"],
        &["--config", "missing.toml"],
        &["--config", "unknown.toml"],
        &["--config", "broken.toml"],
        &["--config", "wrong.toml"],
        &["--colour"],
    ];
    for words in table {
        let result = refused(place.path(), &[&["--memory"], words].concat(), &[]);
        let shown = format!("{words:?}: {result:?}");
        assert_eq!(result.code, Some(2), "{shown}");
        assert_eq!(result.stderr.lines().count(), 1, "{shown}");
        let line = result.with_one_line(2);
        assert!(line.len() < 400, "{shown}");
    }
    for (name, value) in [("KRINGLE_PORT", "x"), ("KRINGLE_MODE", "best"), ("KRINGLE_TIMEOUT", "0")] {
        refused(place.path(), &["--memory"], &[(name, value)]).with_one_line(2);
    }
    let open = refused(place.path(), &["--memory", "--host", "0.0.0.0"], &[]).with_one_line(2);
    assert!(open.contains("--insecure"), "says what would allow it: {open}");
    let unknown = refused(place.path(), &["--memory", "--config", "unknown.toml"], &[]).with_one_line(2);
    assert!(unknown.contains("prot"), "says which setting: {unknown}");
}

#[test]
fn a_stopped_node_no_longer_listens() {
    let mut node = Node::in_memory();
    assert_eq!(node.stop(STOP_LIMIT).code(), Some(0));
    assert!(Client::new(&node.address()).try_send(&Request::new("GET", "/ping")).is_err());
    // What was connected while it ran is closed too.
    node.restart();
    let mut kept = connect(&node.address(), STOP_LIMIT).expect("a connection");
    assert_eq!(node.stop(STOP_LIMIT).code(), Some(0));
    assert!(read_to_close(&mut kept, Duration::from_secs(1)).1);
}
