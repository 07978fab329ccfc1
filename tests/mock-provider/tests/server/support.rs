//! Starts the mock provider and talks to it over a plain socket, so that what is seen is what was on the wire.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running mock provider; ended when dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mock-provider"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("mock-provider listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request and leaves the reading to the caller.
    pub fn open(&self, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    pub fn post(&self, path: &str, headers: &str, body: &Value) -> Reply {
        Reply::read(self.open(path, headers, &body.to_string()))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path)
    }

    /// A request without a body.
    pub fn request(&self, method: &str, path: &str) -> Reply {
        let mut stream = self.connect();
        let text = format!("{method} {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        Reply::read(stream)
    }

    /// A chat completion for a message.
    pub fn chat(&self, text: &str) -> Reply {
        self.post("/v1/chat/completions", "", &chat(text, false))
    }

    /// A streamed chat completion for a message, with usage.
    pub fn chat_stream(&self, text: &str) -> Reply {
        self.post("/v1/chat/completions", "", &chat(text, true))
    }

    pub fn messages(&self, body: &Value) -> Reply {
        self.post("/v1/messages", ANTHROPIC, body)
    }

    /// The journal's entry with this tag, once it satisfies the condition.
    pub fn entry(&self, tag: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let entries = self.get(&format!("/_mock/journal?tag={tag}")).json();
            let last = entries.as_array().unwrap().last().cloned().unwrap_or(Value::Null);
            if !last.is_null() && fits(&last) {
                return last;
            }
            assert!(start.elapsed() < PATIENCE, "the entry stays {last}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Headers of an Anthropic request.
pub const ANTHROPIC: &str = "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n";

pub fn chat(text: &str, stream: bool) -> Value {
    let mut body = json!({"model": "mock-small", "messages": [{"role": "user", "content": text}]});
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

pub fn message(text: &str, stream: bool) -> Value {
    json!({
        "model": "mock-small", "max_tokens": 4096, "stream": stream,
        "messages": [{"role": "user", "content": text}],
    })
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

/// Everything that came back on a connection.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body without its chunked encoding.
    pub body: Vec<u8>,
    /// The sizes of the chunks.
    pub chunks: Vec<usize>,
    /// Whether the body came to its proper end.
    pub complete: bool,
    pub end: End,
}

impl Reply {
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut buffer = [0; 65536];
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break End::Closed,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        };
        let _ = stream.shutdown(Shutdown::Both);
        Self::parse(&bytes, end)
    }

    pub fn parse(bytes: &[u8], end: End) -> Self {
        let Some(length) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self {
                status: 0,
                head: String::from_utf8_lossy(bytes).into_owned(),
                body: Vec::new(),
                chunks: Vec::new(),
                complete: false,
                end,
            };
        };
        let head = String::from_utf8_lossy(&bytes[..length]).to_ascii_lowercase();
        let rest = &bytes[length + 4..];
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (body, chunks, complete) = if head.contains("transfer-encoding: chunked") {
            dechunk(rest)
        } else {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            (rest.to_vec(), Vec::new(), length == Some(rest.len()))
        };
        Self { status, head, body, chunks, complete, end }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The data of the events, `[DONE]` and its like as strings.
    pub fn events(&self) -> Vec<Value> {
        self.text()
            .split("\n\n")
            .filter(|event| !event.is_empty())
            .map(|event| {
                let data = event.lines().filter_map(|line| line.strip_prefix("data: "));
                let data = data.collect::<Vec<_>>().join("\n");
                serde_json::from_str(&data).unwrap_or(Value::String(data))
            })
            .collect()
    }

    /// The text that the deltas of a chat stream make up.
    pub fn said(&self) -> String {
        self.events()
            .iter()
            .filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned))
            .collect()
    }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, Vec<usize>, bool) {
    let (mut body, mut chunks) = (Vec::new(), Vec::new());
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            assert_eq!(&rest[line..], b"\r\n\r\n");
            return (body, chunks, true);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        chunks.push(size);
        rest = &rest[line + 2 + size + 2..];
    }
    (body, chunks, false)
}
