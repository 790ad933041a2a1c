//! A small blocking HTTP/1.1 client over a plain socket, because the tests care about exact bytes: a body on a
//! GET, a path with `%00` or `..` that nobody tidies up, half a request, an answer that is cut short.
//!
//! One [`Client`] is one kept-alive connection. Nothing is ever sent twice: a request that fails after its
//! first byte has left is reported, for whether it was carried out is what the tests want to know.

use serde_json::Value;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// More than any answer's head: status line and headers.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Bodies leave in pieces of this size, so that an answer given early ("413") is noticed in between.
const WRITE_BYTES: usize = 64 * 1024;

/// What is asked. The target is sent as it is, unescaped and untidied.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: impl Into<String>) -> Request {
        Request { method: method.into(), target: target.into(), headers: vec![], body: vec![] }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// A JSON body with its content type.
    pub fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// The head as it goes over the wire. A length is given whenever there is a body, and for methods that
    /// usually have one, unless the test has set its own framing.
    fn head(&self, host: &str) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        let framed = |(name, _): &(String, String)| {
            name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("Transfer-Encoding")
        };
        let has_body = !self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST");
        if has_body && !self.headers.iter().any(framed) {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head + "\r\n"
    }
}

/// What came back, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// From the first byte sent to the last byte received.
    pub took: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The header's value; panics where there is none.
    pub fn must(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} header in {self}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The status is the expected one; the answer is handed on.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "expected {status}, got {self}");
        self
    }

    /// An error as the contract writes it: this status, JSON, what happened and what to do.
    #[track_caller]
    pub fn refusal(self, status: u16) -> Answer {
        let answer = self.expect(status);
        let body: Value =
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("an error body that is not JSON: {answer}"));
        for field in ["error", "hint"] {
            assert!(body[field].as_str().is_some_and(|text| !text.trim().is_empty()), "no {field:?} in {answer}");
        }
        answer
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(600)];
        write!(f, "{} {:?} {:?}", self.status, self.headers, String::from_utf8_lossy(shown))
    }
}

/// A kept-alive connection to one address, made when first needed.
#[derive(Debug)]
pub struct Client {
    address: String,
    limit: Duration,
    stream: Option<TcpStream>,
}

impl Client {
    /// `address` is `host:port`. No request takes longer than 30 s unless told otherwise.
    pub fn new(address: &str) -> Client {
        Client { address: address.into(), limit: Duration::from_secs(30), stream: None }
    }

    /// Bounds each request from now on, connecting included.
    pub fn within(mut self, limit: Duration) -> Client {
        self.limit = limit;
        self
    }

    /// Sends one request and reads its answer. After an error the connection is dropped.
    pub fn try_send(&mut self, request: &Request) -> io::Result<Answer> {
        let head = request.head(&self.address);
        self.exchange(&[head.as_bytes(), &request.body], request.method == "HEAD")
    }

    /// Sends bytes that need not be HTTP and reads an answer that must be.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<Answer> {
        self.exchange(&[bytes], false)
    }

    /// As [`Client::try_send`], where no answer is a failed test.
    #[track_caller]
    pub fn send(&mut self, request: &Request) -> Answer {
        match self.try_send(request) {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to {} {}: {error}", request.method, request.target),
        }
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(&Request::new("GET", target))
    }

    #[track_caller]
    pub fn delete(&mut self, target: &str) -> Answer {
        self.send(&Request::new("DELETE", target))
    }

    #[track_caller]
    pub fn put(&mut self, target: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(&Request::new("PUT", target).body(body))
    }

    #[track_caller]
    pub fn post(&mut self, target: &str, body: &Value) -> Answer {
        self.send(&Request::new("POST", target).json(body))
    }

    fn exchange(&mut self, parts: &[&[u8]], bodiless: bool) -> io::Result<Answer> {
        let started = Instant::now();
        let deadline = started + self.limit;
        let mut stream = match self.stream.take().filter(is_idle) {
            Some(stream) => stream,
            None => connect(&self.address, self.limit)?,
        };
        let sent = send(&mut stream, parts, deadline);
        // The other side may have answered and closed while the body was under way: look before giving up.
        match (receive(&mut stream, deadline, started, bodiless), sent) {
            (Ok((answer, reusable)), sent) => {
                self.stream = (reusable && matches!(sent, Ok(true))).then_some(stream);
                Ok(answer)
            }
            (Err(_), Err(unsent)) => Err(unsent),
            (Err(unread), Ok(_)) => Err(unread),
        }
    }
}

/// A connection with deadlines on both directions.
pub fn connect(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let address = address.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    Ok(stream)
}

/// Reads until the other side closes or `limit` has passed. Says what came and whether it was closed.
pub fn read_to_close(stream: &mut TcpStream, limit: Duration) -> (Vec<u8>, bool) {
    let deadline = Instant::now() + limit;
    let (mut bytes, mut buffer) = (vec![], [0; 4096]);
    loop {
        match read_by(stream, &mut buffer, deadline) {
            Ok(0) => return (bytes, true),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) => return (bytes, error.kind() != ErrorKind::TimedOut),
        }
    }
}

/// The answers in `bytes`, which hold nothing else: to requests of these methods, then to whatever follows them.
#[track_caller]
pub fn answers_to(methods: &[&str], mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = vec![];
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(end)) = head.parse(bytes) else {
            panic!("no answer: {:?} behind {answers:?}", String::from_utf8_lossy(bytes));
        };
        let headers = head.headers.iter();
        let headers =
            headers.map(|header| (header.name.into(), String::from_utf8_lossy(header.value).into())).collect();
        let status = head.code.unwrap_or_default();
        let mut answer = Answer { status, headers, body: vec![], took: Duration::ZERO };
        let bodiless = methods.get(answers.len()) == Some(&"HEAD") || matches!(status, 204 | 304);
        let length = if bodiless { 0 } else { answer.must("Content-Length").parse().expect("a length") };
        answer.body = bytes.get(end..end + length).unwrap_or_else(|| panic!("cut short: {answer}")).to_vec();
        bytes = &bytes[end + length..];
        answers.push(answer);
    }
    answers
}

/// Every byte but the unreserved ones as `%XX`.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
        text
    })
}

/// Whether a kept connection is still open with nothing unread on it.
fn is_idle(stream: &TcpStream) -> bool {
    matches!(peek(stream), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    seen
}

/// True when everything was sent, false when an answer came first.
fn send(stream: &mut TcpStream, parts: &[&[u8]], deadline: Instant) -> io::Result<bool> {
    // Head and body of a small request leave as one segment, as a careful client's would.
    let joined: Vec<u8> = match parts.iter().map(|part| part.len()).sum::<usize>() <= WRITE_BYTES {
        true => parts.concat(),
        false => vec![],
    };
    let small = [joined.as_slice()];
    let pieces = if joined.is_empty() { parts } else { &small };
    for (index, piece) in pieces.iter().flat_map(|part| part.chunks(WRITE_BYTES)).enumerate() {
        if index > 0 && peek(stream).is_ok() {
            return Ok(false);
        }
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(piece)?;
    }
    Ok(true)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn read_by(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            // A read with a timeout is not gone on with by itself after the process was stopped for a moment.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads one answer. Its body ends by chunks, by length, or where the other side closes. The second value says
/// whether the connection may carry another request.
fn receive(stream: &mut TcpStream, deadline: Instant, started: Instant, bodiless: bool) -> io::Result<(Answer, bool)> {
    let mut input = Input { stream, deadline, bytes: vec![], at: 0 };
    let (status, headers) = loop {
        let (status, headers) = head(&mut input)?;
        if !(100..200).contains(&status) || status == 101 {
            break (status, headers);
        }
    };
    let mut answer = Answer { status, headers, body: vec![], took: Duration::ZERO };
    let mut reusable = !answer.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if bodiless || matches!(status, 204 | 304) {
        // Its headers may speak of a body; there is none.
    } else if answer.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = input.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|_| malformed(format!("chunk size {line:?}")))?;
            answer.body.extend(input.take(size)?);
            let end = input.line()?;
            if !end.is_empty() {
                return Err(malformed(format!("after a chunk: {end:?}")));
            }
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = answer.header("Content-Length") {
        let length = length.parse().map_err(|_| malformed(format!("Content-Length {length:?}")))?;
        answer.body = input.take(length)?;
    } else {
        while input.fill()? > 0 {}
        answer.body = input.bytes.split_off(input.at);
        reusable = false;
    }
    let reusable = reusable && input.at == input.bytes.len();
    answer.took = started.elapsed();
    Ok((answer, reusable))
}

fn head(input: &mut Input<'_>) -> io::Result<(u16, Vec<(String, String)>)> {
    let line = input.line()?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| malformed(format!("status line {line:?}")))?;
    let mut headers = vec![];
    loop {
        let line = input.line()?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(format!("header {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn malformed(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Bytes as they arrive, and how far they have been used.
struct Input<'a> {
    stream: &'a mut TcpStream,
    deadline: Instant,
    bytes: Vec<u8>,
    at: usize,
}

impl Input<'_> {
    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = read_by(self.stream, &mut buffer, self.deadline)?;
        self.bytes.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// More bytes must come. Closed before the first is "not answered"; closed later is "cut short".
    fn need(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 if self.bytes.is_empty() => Err(io::Error::new(ErrorKind::ConnectionAborted, "closed without an answer")),
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut short")),
            _ => Ok(()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(length) = self.bytes[self.at..].windows(2).position(|pair| pair == b"\r\n") {
                let line = self.bytes[self.at..self.at + length].to_vec();
                self.at += length + 2;
                return String::from_utf8(line).map_err(|_| malformed("a header that is not UTF-8".into()));
            }
            if self.bytes.len() - self.at > HEAD_BYTES_MAX {
                return Err(malformed("a head without an end".into()));
            }
            self.need()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() - self.at < length {
            self.need()?;
        }
        let taken = self.bytes[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(taken)
    }
}
