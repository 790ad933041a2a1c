//! A client of the Redis protocol, for tests: it takes answers apart and believes nothing.

use super::eventually;
use super::node::{Node, Plan};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, of either version of the protocol.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

pub fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

pub fn ok() -> Value {
    Value::Simple("OK".into())
}

impl Value {
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) => text.clone(),
            Value::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("a text"),
            other => panic!("no text: {other:?}"),
        }
    }

    #[track_caller]
    pub fn error(&self) -> &str {
        match self {
            Value::Error(line) => line,
            other => panic!("no error: {other:?}"),
        }
    }

    #[track_caller]
    pub fn int(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    #[track_caller]
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// To a node that listens for such clients on any free port.
    #[track_caller]
    pub fn of(node: &Node) -> Client {
        Client::at(port_of(node))
    }

    #[track_caller]
    pub fn at(port: u16) -> Client {
        Client::try_at(port).expect("a connection")
    }

    pub fn try_at(port: u16) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next answer.
    pub fn read(&mut self) -> Result<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or(ErrorKind::InvalidData)?;
        let bad = |what: &str| Error::new(ErrorKind::InvalidData, format!("{what}: {line:?}"));
        let number = || rest.parse::<i64>().map_err(|_| bad("no number"));
        Ok(match kind {
            "+" => Value::Simple(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Int(number()?),
            "_" => Value::Null,
            "$" => match number()? {
                -1 => Value::Null,
                length => {
                    let mut bytes = vec![0; length as usize + 2];
                    self.stream.read_exact(&mut bytes)?;
                    if bytes.split_off(length as usize) != b"\r\n" {
                        return Err(bad("more than its length"));
                    }
                    Value::Bulk(bytes)
                }
            },
            "*" => match number()? {
                -1 => Value::Null,
                count => Value::Array((0..count).map(|_| self.read()).collect::<Result<_>>()?),
            },
            "%" => {
                let pair = |_| Ok((self.read()?, self.read()?));
                Value::Map((0..number()?).map(pair).collect::<Result<_>>()?)
            }
            _ => return Err(bad("no answer")),
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| Error::new(ErrorKind::InvalidData, line.clone()))
    }

    pub fn try_call<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Value> {
        self.send_raw(&command(words))?;
        self.read()
    }

    #[track_caller]
    pub fn call<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Value {
        self.try_call(words).expect("an answer")
    }

    /// Words between blanks.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> Value {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends all of them before it reads an answer.
    #[track_caller]
    pub fn pipeline(&mut self, lines: &[String]) -> Vec<Value> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| command(&line.split(' ').collect::<Vec<_>>())).collect();
        self.send_raw(&bytes).expect("a pipeline");
        lines.iter().map(|_| self.read().expect("an answer")).collect()
    }

    #[track_caller]
    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).expect("as many bytes");
    }

    /// Whether the node has closed the connection, or does so now.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Goes on in this mode.
    #[track_caller]
    pub fn in_mode(mut self, mode: &str) -> Client {
        assert_eq!(self.call(&["KRINGLE.MODE", mode]), ok());
        self
    }
}

/// A command as bytes.
pub fn command<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Where a node that was started with `--resp-port 0` listens.
#[track_caller]
pub fn port_of(node: &Node) -> u16 {
    eventually("the node has told its port", Duration::from_secs(10), || {
        let log = node.log();
        let line = log.lines().rev().find(|line| line.starts_with("redis clients: "));
        let port = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        port.ok_or_else(|| log.clone())
    })
}

/// A lone node that keeps nothing.
#[track_caller]
pub fn node() -> Node {
    Plan::new(&["--memory", "--resp-port", "0"]).start()
}
