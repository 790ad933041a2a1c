//! `GET /kv`: the keys there are, in order, over the whole cluster: what lives is shown once, what was deleted never,
//! whoever writes or dies meanwhile.

use crate::support;

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::cluster::Cluster;
use support::http::{Answer, Client, Request, encode, read_to_close};
use support::node::Node;
use support::proxy::Fault;
use support::{base64, replicas, resp, seeded};

/// Peers are found dead within seconds, on a busy machine none that is not, and copies are not made equal meanwhile.
const QUICK: [&str; 7] = ["--memory", "--timeout", "5", "--pingfreq", "0.5", "--syncfreq", "3600"];
const MODES: [&str; 5] = ["sloppy", "async", "quorum", "sync", "chain"];

/// One thing that is listed: a key's bytes, or a common prefix.
type Shown = (Vec<u8>, bool);

/// Writes these pairs with one batch after the other, until as many owners have each as its mode wants.
#[track_caller]
fn load<'a>(client: &mut Client, pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, query: &str) {
    let line = |(key, value): (&[u8], &[u8])| {
        json!({"op": "put", "key_base64": base64(key), "value_base64": base64(value)}).to_string()
    };
    let lines: Vec<String> = pairs.into_iter().map(line).collect();
    for some in lines.chunks(5_000) {
        let mut left = some.to_vec();
        support::eventually("all of it is stored", Duration::from_secs(60), || {
            let answer = client.send(&Request::new("POST", format!("/batch{query}")).body(left.join("\n"))).expect(200);
            let text = answer.text();
            assert_eq!(text.lines().count(), left.len(), "a line for each");
            let is_stored = |line: &str| matches!(parsed(line)["status"].as_u64(), Some(201 | 204));
            let asked = std::mem::take(&mut left).into_iter().zip(text.lines());
            left.extend(asked.filter(|(_, answer)| !is_stored(answer)).map(|(asked, _)| asked));
            if left.is_empty() { Ok(()) } else { Err(format!("{} are not", left.len())) }
        });
    }
}

#[track_caller]
fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
}

fn bytes_of(line: &Value, text: &str, digits: &str) -> Option<Vec<u8>> {
    match (line[text].as_str(), line[digits].as_str()) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(digits)) => Some(unbase64(digits)),
        _ => None,
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let word = four.iter().fold(0u32, |word, byte| word << 6 | u32::from(digit(*byte) & 63));
        let kept = 3 - four.iter().filter(|byte| **byte == b'=').count();
        bytes.extend(&word.to_be_bytes()[1..=kept]);
    }
    bytes
}

#[track_caller]
fn shown(line: &Value) -> Shown {
    let key = bytes_of(line, "key", "key_base64").map(|key| (key, false));
    let prefix = || bytes_of(line, "prefix", "prefix_base64").map(|prefix| (prefix, true));
    key.or_else(prefix).unwrap_or_else(|| panic!("neither a key nor a prefix: {line}"))
}

/// All pages of a list as JSON, with what each key's line says.
#[track_caller]
fn pages(client: &mut Client, query: &str) -> Vec<(Shown, Value)> {
    let (mut cursor, mut all) = (String::new(), Vec::new());
    loop {
        let page = client.get(&format!("/kv?{query}{cursor}")).expect(200);
        let page = page.json();
        let list = |name: &str| page[name].as_array().cloned().unwrap_or_default();
        let mut items: Vec<(Shown, Value)> = list("keys").into_iter().map(|line| (shown(&line), line)).collect();
        items.extend(list("prefixes").iter().map(|text| ((text.as_str().unwrap().into(), true), Value::Null)));
        let binary = list("prefixes_base64");
        items.extend(binary.iter().map(|text| ((unbase64(text.as_str().unwrap()), true), Value::Null)));
        items.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.extend(items);
        match page["cursor"].as_str() {
            Some(word) => cursor = format!("&cursor={word}"),
            None => return all,
        }
    }
}

fn names(items: Vec<(Shown, Value)>) -> Vec<Shown> {
    items.into_iter().map(|(shown, _)| shown).collect()
}

fn as_lines(query: &str) -> Request {
    Request::new("GET", format!("/kv?{query}")).header("Accept", "application/x-ndjson")
}

/// The items of a stream, and its last line.
#[track_caller]
fn streamed(answer: &Answer) -> (Vec<(Shown, Value)>, Value) {
    assert_eq!((answer.status, answer.must("Content-Type")), (200, "application/x-ndjson"), "{answer}");
    let text = answer.text();
    let mut lines: Vec<Value> = text.lines().map(parsed).collect();
    let last = lines.pop().expect("a last line");
    (lines.into_iter().map(|line| (shown(&line), line)).collect(), last)
}

/// All of a list as lines.
#[track_caller]
fn stream(client: &mut Client, query: &str) -> Vec<Shown> {
    let (items, last) = streamed(&client.send(&as_lines(query)));
    assert_eq!(last, json!({"end": true}));
    names(items)
}

/// The dumb twin: what a list of these keys is to show.
fn expected<'a>(
    keys: impl IntoIterator<Item = &'a Vec<u8>>,
    prefix: &[u8],
    delimiter: &[u8],
    start: &[u8],
) -> Vec<Shown> {
    let shown = |key: &Vec<u8>| {
        let rest = &key[prefix.len()..];
        let at = rest.windows(delimiter.len().max(1)).position(|some| !delimiter.is_empty() && some == delimiter);
        at.map_or_else(|| (key.clone(), false), |at| (key[..prefix.len() + at + delimiter.len()].to_vec(), true))
    };
    let keys = keys.into_iter().filter(|key| key.starts_with(prefix) && key.as_slice() >= start);
    keys.map(shown).collect::<BTreeSet<Shown>>().into_iter().collect()
}

fn plain(keys: &[&str]) -> Vec<Shown> {
    keys.iter().map(|key| (key.as_bytes().to_vec(), false)).collect()
}

// ---- one node

#[test]
fn keys_of_any_bytes_are_listed_in_their_order_whatever_the_page() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.get("/kv").expect(200).json(), json!({"keys": [], "prefixes": []}));
    assert_eq!(stream(&mut client, ""), []);
    let mut random = seeded("keys_of_any_bytes_are_listed_in_their_order_whatever_the_page");
    let alphabet = [0u8, b'a', b'b', b'/', b'%', b' ', 0x7f, 0xc3, 0xa9, 0xff];
    let twin: BTreeSet<Vec<u8>> = (0..700)
        .map(|_| (0..random.random_range(1..6)).map(|_| alphabet[random.random_range(0..10)]).collect())
        .collect();
    load(&mut client, twin.iter().map(|key| (key.as_slice(), &b"v"[..])), "");
    let parts: [&[u8]; 6] = [b"", b"a", b"\xff", b"/", b"b/", b"\x00"];
    for (prefix, delimiter) in [(0, 0), (1, 0), (2, 0), (0, 3), (1, 3), (4, 1), (2, 2), (0, 5)] {
        let (prefix, delimiter) = (parts[prefix], parts[delimiter]);
        let start = parts[random.random_range(0..6)];
        let query = format!("prefix={}&delimiter={}", encode(prefix), encode(delimiter));
        let whole = expected(&twin, prefix, delimiter, b"");
        assert_eq!(stream(&mut client, &query), whole, "{query}");
        for limit in [3, 50, 10_000] {
            assert_eq!(names(pages(&mut client, &format!("{query}&limit={limit}"))), whole, "{query} by {limit}");
        }
        let later = format!("{query}&start={}", encode(start));
        assert_eq!(stream(&mut client, &later), expected(&twin, prefix, delimiter, start), "{later}");
    }
    let head = client.send(&Request::new("HEAD", "/kv?limit=5")).expect(200);
    assert!(head.body.is_empty(), "{head}");
    let head = client.send(&Request::new("HEAD", "/kv").header("Accept", "application/x-ndjson")).expect(200);
    assert!(head.body.is_empty(), "{head}");
}

#[test]
fn a_list_tells_of_a_key_what_a_read_of_it_tells() {
    let node = Node::in_memory();
    let mut client = node.client();
    let long = vec![7u8; 5_000];
    client.send(&Request::new("PUT", "/kv/a").header("Content-Type", "text/plain").body("short")).expect(201);
    client.put("/kv/b?ttl=1000", long.clone()).expect(201);
    let stale = client.put("/kv/c", "one").expect(201).must("Kringle-Context").to_owned();
    client.put("/kv/c", "two").expect(204);
    client.send(&Request::new("PUT", "/kv/c").header("Kringle-Context", stale).body("three")).expect(204);
    client.post("/counters/d", &json!({"by": 1234})).expect(200);
    client.put("/kv/e", "gone").expect(201);
    client.delete("/kv/e").expect(204);
    client.put("/kv/f?ttl=0.05", "brief").expect(201);
    support::eventually("the brief one has expired", Duration::from_secs(5), || {
        let status = client.get("/kv/f").status;
        (status == 404).then_some(()).ok_or(status.to_string())
    });
    for with_values in ["", "&values=1"] {
        let listed = pages(&mut client, &format!("limit=3{with_values}"));
        assert_eq!(names(listed.clone()), plain(&["a", "b", "c", "d"]));
        for ((key, _), line) in listed {
            let read = client.get(&format!("/kv/{}", encode(&key))).expect(200);
            assert_eq!(line["etag"], json!(read.must("ETag")), "{line}");
            assert_eq!(line["siblings"].to_string(), read.must("Kringle-Siblings"), "{line}");
            assert_eq!(line["size"], json!(read.body.len()), "{line}");
            let kind = read.must("Content-Type");
            assert_eq!(line["content_type"].as_str().unwrap_or("application/octet-stream"), kind, "{line}");
            let expires = read.header("Kringle-Expires").map(str::to_owned);
            assert_eq!(line["expires"].as_u64().map(|ms| ms.to_string()), expires, "{line}");
            let value = bytes_of(&line, "value", "value_base64");
            assert_eq!(value, (!with_values.is_empty()).then_some(read.body), "{line}");
        }
    }
    let (lines, last) = streamed(&client.send(&as_lines("values=1&limit=2")));
    assert_eq!(lines[1].1["value"].as_str().map(str::len), Some(long.len()), "bytes that are text are shown as text");
    let cursor = last["cursor"].as_str().expect("there is more");
    assert_eq!(stream(&mut client, &format!("cursor={cursor}")), plain(&["c", "d"]));
}

#[test]
fn nonsense_is_refused_and_explained() {
    let node = Node::in_memory();
    let mut client = node.client();
    ["a", "b", "c"].iter().for_each(|key| drop(client.put(&format!("/kv/p/{key}"), "v").expect(201)));
    let cursor = client.get("/kv?prefix=p/&limit=1").json()["cursor"].as_str().expect("more").to_owned();
    let mangled = cursor.replace(|c: char| c.is_ascii_lowercase(), "A");
    let long = "x".repeat(4_097);
    let nonsense = [
        "limit=0",
        "limit=-1",
        "limit=many",
        "limit=10001",
        "cursor=",
        "cursor=%ff",
        "start=%",
        "values=maybe",
        "mode=fast",
        "r=0",
        "r=9",
        "mode=quorum&r=1",
        "after=a",
        "prefix=p&prefix=q",
        &format!("cursor={cursor}"),
        &format!("prefix=p/&delimiter=/&cursor={cursor}"),
        &format!("prefix=p/&start=p/a&cursor={cursor}"),
        &format!("prefix=p/&cursor={mangled}"),
        &format!("prefix={long}"),
        &format!("delimiter={long}"),
        &format!("start={long}"),
    ];
    for query in nonsense {
        client.get(&format!("/kv?{query}")).refusal(400);
    }
    for method in ["PUT", "DELETE", "POST"] {
        client.send(&Request::new(method, "/kv")).refusal(405);
    }
    client.get("/kv/").refusal(400);
    let next = client.get(&format!("/kv?prefix=p/&cursor={cursor}&limit=1")).expect(200).json();
    assert_eq!(next["keys"][0]["key"], "p/b", "the cursor is as good as ever");
    node.assert_alive();
}

/// Every file below a folder, by its path relative to it.
fn files_below(folder: &Path, under: &str, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{under}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        match path.is_dir() {
            true => files_below(&path, &format!("{name}/"), found),
            false => drop(std::fs::read(&path).map(|bytes| found.insert(name.into_bytes(), bytes))),
        }
    }
}

/// Writes these pairs as a client of Redis does, many commands before an answer is read, until every one is `OK`.
#[track_caller]
fn load_through_resp(client: &mut resp::Client, pairs: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut left: Vec<_> = pairs.iter().collect();
    support::eventually("all of it is stored", Duration::from_secs(60), || {
        let asked = std::mem::take(&mut left);
        for some in asked.chunks(100) {
            let commands = some.iter().flat_map(|(key, value)| resp::command(&[&b"SET"[..], key, value]));
            client.send_raw(&commands.collect::<Vec<u8>>()).expect("a pipeline");
            left.extend(some.iter().filter(|_| client.read().expect("an answer") != resp::ok()));
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{} are not", left.len())) }
    });
}

/// Time zones and package names as Debian ships them: names that people gave, with values of real files. Loaded by one
/// protocol at one node, listed by another at another.
#[test]
fn the_time_zones_of_the_world_are_listed_as_their_folders_are() {
    let mut twin = BTreeMap::new();
    files_below(Path::new("/usr/share/zoneinfo"), "zone/", &mut twin);
    let packages = std::fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
    let packages = packages.lines().filter_map(|line| line.strip_prefix("Package: "));
    twin.extend(packages.map(|name| (format!("package/{name}").into_bytes(), name.as_bytes().to_vec())));
    if twin.len() < 100 {
        return eprintln!("neither time zones nor packages on this machine: nothing to list");
    }
    let cluster = Cluster::start(3, &["--memory", "--resp-port", "0"]);
    load_through_resp(&mut resp::Client::of(&cluster.nodes[0]), &twin);
    let mut client = cluster.client(1);
    for (prefix, delimiter) in [
        ("", ""),
        ("", "/"),
        ("zone/", "/"),
        ("zone/America/", "/"),
        ("zone/A", ""),
        ("package/lib", "-"),
        ("none/", "/"),
    ] {
        let query = format!("prefix={}&delimiter={}", encode(prefix), encode(delimiter));
        let whole = expected(twin.keys(), prefix.as_bytes(), delimiter.as_bytes(), b"");
        assert_eq!(stream(&mut client, &query), whole, "{query}");
        assert_eq!(names(pages(&mut client, &format!("{query}&limit=100"))), whole, "{query}");
    }
    let (lines, last) = streamed(&client.send(&as_lines("values=1")));
    assert_eq!(last["end"], true, "{last}");
    let held: BTreeMap<Vec<u8>, Vec<u8>> = lines
        .into_iter()
        .map(|((key, _), line)| (key, bytes_of(&line, "value", "value_base64").expect("a value")))
        .collect();
    assert!(held == twin, "every file came back as it was, {} of {}", held.len(), twin.len());
}

// ---- several nodes

#[test]
fn five_nodes_list_the_same_in_every_mode_whoever_is_asked() {
    let cluster = Cluster::start(5, &QUICK);
    let mut twin = BTreeSet::new();
    for (at, mode) in MODES.iter().enumerate() {
        let mut client = cluster.client(at);
        let keys: Vec<Vec<u8>> = (0..120).map(|number| format!("{mode}/{number:03}").into_bytes()).collect();
        load(&mut client, keys.iter().map(|key| (key.as_slice(), &b"v"[..])), &format!("?mode={mode}"));
        for key in keys.iter().step_by(3) {
            client.delete(&format!("/kv/{}?mode={mode}", encode(key))).expect(204);
        }
        twin.extend(keys.into_iter().enumerate().filter(|(number, _)| number % 3 != 0).map(|(_, key)| key));
    }
    // What one owner has, the others are about to have.
    support::eventually("what async wrote has arrived", Duration::from_secs(20), || {
        let listed = stream(&mut cluster.client(0), "mode=async");
        (listed == expected(&twin, b"", b"", b"")).then_some(()).ok_or(format!("{} keys", listed.len()))
    });
    for (at, mode) in MODES.iter().enumerate() {
        let mut client = cluster.client((at + 1) % 5);
        assert_eq!(stream(&mut client, &format!("mode={mode}")), expected(&twin, b"", b"", b""), "{mode}");
        let query = format!("mode={mode}&delimiter=/&limit=2");
        assert_eq!(names(pages(&mut client, &query)), expected(&twin, b"", b"/", b""), "{mode}");
    }
    let three = client_with_r(&cluster, 3);
    assert_eq!(three, expected(&twin, b"quorum", b"", b""));
}

fn client_with_r(cluster: &Cluster, r: u8) -> Vec<Shown> {
    names(pages(&mut cluster.client(2), &format!("prefix=quorum&r={r}")))
}

#[test]
fn a_copy_that_is_behind_shows_no_key_that_was_deleted() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let keys = ["dead", "alive", "gone/a", "gone/b", "half/a", "half/b"];
    keys.iter().for_each(|key| drop(cluster.client(0).put(&format!("/kv/{key}?w=3"), "v").expect(201)));
    // Nothing reaches the third node any more, while all that it asks is answered.
    cluster.fault(2, Fault::Refuse);
    for key in ["dead", "gone/a", "gone/b", "half/a"] {
        let status = cluster.client(0).delete(&format!("/kv/{key}")).status;
        assert!(matches!(status, 202 | 204), "{status}");
    }
    let mut behind = cluster.client(2);
    let stale = stream(&mut behind, "r=1&start=d");
    assert!(stale.contains(&(b"dead".to_vec(), false)), "its own copy is behind: {stale:?}");
    let living = plain(&["alive", "half/b"]);
    assert_eq!(stream(&mut behind, ""), living);
    assert_eq!(stream(&mut behind, "mode=quorum"), living);
    let grouped = vec![(b"alive".to_vec(), false), (b"half/".to_vec(), true)];
    assert_eq!(stream(&mut behind, "delimiter=/"), grouped);
    assert_eq!(names(pages(&mut behind, "delimiter=/&limit=1")), grouped);
}

#[test]
fn a_list_that_would_not_be_whole_is_refused_and_a_thin_one_says_so() {
    let mut cluster = Cluster::start(5, &QUICK);
    load(&mut cluster.client(0), (0..50u8).map(|_| (&b"key"[..], &b"v"[..])), "");
    cluster.nodes[4].kill();
    let whole = cluster.client(0).send(&as_lines(""));
    assert_eq!(streamed(&whole).1, json!({"end": true}), "two owners of everything are left");
    assert_eq!(whole.header("Kringle-Replicas"), None);
    cluster.nodes[3].kill();
    let thin = cluster.client(0).get("/kv").expect(200);
    assert_eq!(replicas(&thin), [("wanted".into(), 2), ("answered".into(), 1)].into(), "{thin}");
    let (_, last) = streamed(&cluster.client(0).send(&as_lines("")));
    assert_eq!(last, json!({"end": true, "replicas": {"wanted": 2, "answered": 1}}));
    for query in ["mode=quorum", "r=2"] {
        cluster.client(0).get(&format!("/kv?{query}")).refusal(503);
        cluster.client(0).send(&as_lines(query)).refusal(503);
    }
    cluster.nodes[2].kill();
    cluster.client(0).get("/kv").refusal(503);
    cluster.client(0).get("/kv?mode=async").refusal(503);
}

/// Keys so long that a list of them does not fit between a node and a client that does not read.
fn long_keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{number:06}{}", "x".repeat(2_000)).into_bytes()).collect()
}

/// Takes chunks apart. What is cut short ends where it was cut.
fn unchunked(body: &[u8]) -> Vec<u8> {
    let (mut text, mut rest) = (Vec::new(), body);
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(length) = length.filter(|length| *length > 0) else { break };
        let chunk = &rest[end + 2..];
        text.extend(&chunk[..length.min(chunk.len())]);
        rest = chunk.get(length + 2..).unwrap_or_default();
    }
    text
}

/// Begins a list of everything as lines, calls `meanwhile` when the first bytes are there, and reads on to the end of the
/// connection. The whole lines that came.
fn slowly(address: &str, meanwhile: impl FnOnce()) -> Vec<Value> {
    let mut stream = support::http::connect(address, Duration::from_secs(20)).expect("a connection");
    let headers = "Host: h\r\nAccept: application/x-ndjson\r\nConnection: close";
    write!(stream, "GET /kv HTTP/1.1\r\n{headers}\r\n\r\n").expect("a request");
    let mut begun = vec![0; 100_000];
    stream.read_exact(&mut begun).expect("the beginning");
    meanwhile();
    begun.extend(read_to_close(&mut stream, Duration::from_secs(60)).0);
    let head = begun.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let text = String::from_utf8(unchunked(&begun[head..])).expect("lines of text");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parsed).collect()
}

#[test]
fn a_node_that_dies_while_keys_are_listed_takes_none_of_them_with_it() {
    let mut cluster = Cluster::start(5, &QUICK);
    let keys = long_keys(6_000);
    load(&mut cluster.client(0), keys.iter().map(|key| (key.as_slice(), &b"v"[..])), "");
    let whole: Vec<Shown> = keys.iter().map(|key| (key.clone(), false)).collect();
    // One that is asked by the one that the client asks.
    let mut dying = cluster.nodes.pop().expect("a fifth node");
    let mut lines = slowly(&cluster.nodes[0].address(), || dying.kill());
    let last = lines.pop().expect("a last line");
    assert_eq!(last["end"], true, "{last}");
    let listed: Vec<Shown> = lines.iter().map(shown).collect();
    assert!(listed == whole, "{} of {} keys", listed.len(), whole.len());
    // The one that the client asks: what came is cut short, is known to be, and another goes on from there.
    let mut asked = cluster.nodes.pop().expect("a fourth node");
    let lines = slowly(&asked.address(), || asked.kill());
    assert!(lines.last().is_some_and(|last| last["end"].is_null() && last["error"].is_null()), "no last line");
    let mut listed: Vec<Shown> = lines.iter().map(shown).collect();
    assert!(listed.len() < whole.len(), "{} keys came", listed.len());
    let next = [&listed.last().expect("some").0[..], b"\0"].concat();
    listed.extend(stream(&mut cluster.client(1), &format!("r=1&start={}", encode(next))));
    assert!(listed == whole, "{} of {} keys", listed.len(), whole.len());
}

#[test]
fn what_is_there_throughout_is_shown_once_while_others_come_and_go() {
    let cluster = Cluster::start(3, &QUICK);
    let mut random = seeded("what_is_there_throughout_is_shown_once_while_others_come_and_go");
    let mut all: Vec<Vec<u8>> =
        (0..900).map(|number| format!("{}/{number:04}", ["a", "b", "c"][number % 3]).into_bytes()).collect();
    all.shuffle(&mut random);
    load(&mut cluster.client(0), all.iter().map(|key| (key.as_slice(), &b"v"[..])), "");
    let (stable, others) = all.split_at(500);
    let (dead, moving) = others.split_at(150);
    dead.iter().for_each(|key| drop(cluster.client(0).delete(&format!("/kv/{}", encode(key))).expect(204)));
    let stable: BTreeSet<&Vec<u8>> = stable.iter().collect();
    let dead: BTreeSet<&Vec<u8>> = dead.iter().collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in 0..2 {
            let (mut client, over) = (cluster.client(at), &over);
            scope.spawn(move || {
                let mut random = seeded("a writer");
                while !over.load(Ordering::Relaxed) {
                    let key = encode(&moving[random.random_range(0..moving.len())]);
                    match random.random_bool(0.5) {
                        true => drop(client.put(&format!("/kv/{key}"), "again")),
                        false => drop(client.delete(&format!("/kv/{key}"))),
                    }
                }
            });
        }
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..12 {
                let mut client = cluster.client(2);
                let mode = ["sloppy", "quorum"][round % 2];
                let listed = match round % 3 {
                    0 => names(pages(&mut client, &format!("limit=37&mode={mode}"))),
                    1 => stream(&mut client, &format!("mode={mode}")),
                    _ => names(pages(&mut client, &format!("prefix=b/&limit=10&mode={mode}"))),
                };
                assert!(listed.windows(2).all(|pair| pair[0] < pair[1]), "out of order, or twice: {listed:?}");
                let listed: BTreeSet<Vec<u8>> = listed.into_iter().map(|(key, _)| key).collect();
                let wanted = |key: &&&Vec<u8>| round % 3 < 2 || key.starts_with(b"b/");
                let missing: Vec<_> = stable.iter().filter(wanted).filter(|key| !listed.contains(**key)).collect();
                assert!(missing.is_empty(), "{} are missing in round {round}", missing.len());
                let raised: Vec<_> = dead.iter().filter(|key| listed.contains(**key)).collect();
                assert!(raised.is_empty(), "{} are back from the dead in round {round}", raised.len());
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = looked {
            std::panic::resume_unwind(panic);
        }
    });
}
