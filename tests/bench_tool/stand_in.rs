//! A small server in the place of a node, that can be told to lie or to stand still.

use serde_json::json;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    None,
    /// Reads show the first value that a key ever had.
    Old,
    /// Reads show another key's value.
    AnothersValue,
    /// Reads end early, at a length that says so.
    Cut,
    /// Reads show something nobody wrote.
    Invented,
    /// Every second increment is answered and not made.
    UncountedIncrements,
    /// Lists leave out a key.
    ShortLists,
    /// Writes are answered with a page for people.
    Pages,
    /// Increments are made, and whoever asked for them is hung up on.
    HangsUp,
}

struct State {
    lie: Lie,
    pause: Duration,
    stands_still: Option<(Duration, Duration)>,
    /// Since the first write.
    begun: Option<Instant>,
    values: HashMap<String, Vec<Vec<u8>>>,
    last: Vec<u8>,
    counters: HashMap<String, (i64, i64)>,
}

/// The server, until the test program ends.
pub struct StandIn {
    port: u16,
}

impl StandIn {
    /// One that answers at once, and lies so.
    pub fn lying(lie: Lie) -> StandIn {
        StandIn::start(lie, Duration::ZERO, None)
    }

    /// An honest one that takes so long for each answer.
    pub fn slow(pause: Duration) -> StandIn {
        StandIn::start(Lie::None, pause, None)
    }

    /// An honest one that stands still for `span`, that long `after` its first write.
    pub fn standing_still(after: Duration, span: Duration) -> StandIn {
        StandIn::start(Lie::None, Duration::ZERO, Some((after, span)))
    }

    fn start(lie: Lie, pause: Duration, stands_still: Option<(Duration, Duration)>) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            lie,
            pause,
            stands_still,
            begun: None,
            values: HashMap::new(),
            last: Vec::new(),
            counters: HashMap::new(),
        }));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        StandIn { port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(&bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if more(&mut stream, &mut bytes) => continue,
            _ => return,
        };
        let (method, target) =
            (request.method.unwrap_or_default().to_owned(), request.path.unwrap_or_default().to_owned());
        let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
        while bytes.len() < head + length {
            if !more(&mut stream, &mut bytes) {
                return;
            }
        }
        let body: Vec<u8> = bytes.drain(..head + length).skip(head).collect();
        let (status, headers, said) = answer(state, &method, &target, body);
        if method == "POST" && state.lock().expect("the state").lie == Lie::HangsUp {
            return;
        }
        let mut whole = format!("HTTP/1.1 {status} X\r\n{headers}").into_bytes();
        if status != 204 {
            whole.extend(format!("content-length: {}\r\n", said.len()).bytes());
        }
        whole.extend(b"\r\n");
        whole.extend(said);
        if stream.write_all(&whole).is_err() {
            return;
        }
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer) {
        Ok(count @ 1..) => {
            bytes.extend_from_slice(&buffer[..count]);
            true
        }
        _ => false,
    }
}

fn answer(state: &Mutex<State>, method: &str, target: &str, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    const STORED: &str = "kringle-replicas: wanted=1, acked=1, hinted=0\r\netag: \"1\"\r\n";
    let mut state = state.lock().expect("the state");
    let path = target.split('?').next().unwrap_or_default();
    if let (Some(begun), Some((after, span))) = (state.begun, state.stands_still)
        && begun.elapsed() >= after
    {
        // Everybody waits for the lock.
        std::thread::sleep((after + span).saturating_sub(begun.elapsed()));
        state.stands_still = None;
    }
    let pause = state.pause;
    let json = |status: u16, value: serde_json::Value| (status, String::new(), value.to_string().into_bytes());
    let said = match (method, path) {
        ("GET", "/config") => return json(200, json!({ "mode": "quorum", "replicas": 1, "epoch": 1 })),
        ("GET", "/ping") => json(200, json!({ "message": "pong" })),
        ("GET", "/kv") => {
            let parameter = |name: &str| {
                let found = target.split(['?', '&']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
                found.unwrap_or_default().replace("%2F", "/")
            };
            let (start, limit) = (parameter("start"), parameter("limit").parse().expect("a limit"));
            let mut keys: Vec<&String> = state.values.keys().filter(|key| **key >= start).collect();
            keys.sort();
            let is_more = keys.len() > limit;
            keys.truncate(limit);
            if state.lie == Lie::ShortLists && keys.len() > 1 {
                keys.remove(0);
            }
            let keys: Vec<_> = keys.into_iter().map(|key| json!({ "key": key })).collect();
            json(200, json!({ "keys": keys, "prefixes": [], "cursor": is_more.then_some("more") }))
        }
        ("POST", counter) if counter.starts_with("/counters/") => {
            let lies = state.lie == Lie::UncountedIncrements;
            let (asked, value) = state.counters.entry(counter.to_owned()).or_default();
            *asked += 1;
            let counts = !lies || *asked % 2 == 1;
            *value += i64::from(counts);
            // Its answer is what it should be.
            json(200, json!({ "value": *value + i64::from(!counts) }))
        }
        ("GET", counter) if counter.starts_with("/counters/") => {
            json(200, json!({ "value": state.counters.get(counter).map_or(0, |(_, value)| *value) }))
        }
        ("PUT", _) if state.lie == Lie::Pages => (200, String::new(), b"<html>It works!</html>".to_vec()),
        ("PUT", key) => {
            state.begun.get_or_insert_with(Instant::now);
            state.last.clone_from(&body);
            state.values.entry(key["/kv/".len()..].replace("%2F", "/")).or_default().push(body);
            (201, STORED.to_owned(), Vec::new())
        }
        ("GET", key) => {
            let values = state.values.get(&key["/kv/".len()..].replace("%2F", "/"));
            match values.map(|values| (values, values.last().expect("a value"))) {
                None => json(404, json!({ "error": "Key not found" })),
                Some((values, last)) => {
                    let shown = match state.lie {
                        Lie::Old => values[0].clone(),
                        Lie::AnothersValue => state.last.clone(),
                        Lie::Cut => last[..last.len() - 1].to_vec(),
                        Lie::Invented => b"hello".to_vec(),
                        _ => last.clone(),
                    };
                    (200, "kringle-siblings: 1\r\n".to_owned(), shown)
                }
            }
        }
        _ => json(400, json!({ "error": "what is that?" })),
    };
    drop(state);
    std::thread::sleep(pause);
    said
}
