//! A scripted HTTP server on a real socket, in threads of its own. It writes down every request and answers from a script;
//! when the script is empty, as [`Say::Accept`].
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part of it")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nothing in these tests takes nearly as long, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(30);

/// More requests than any test sends before it looks.
const MOST: usize = 16_384;

/// What the server does with one request.
#[derive(Debug, Clone)]
pub enum Say {
    /// 202, everything accepted.
    Accept,
    /// Status, header lines (each with CRLF), body.
    Answer(u16, String, String),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, until the client goes.
    Hang,
    /// The connection is closed at once, without an answer.
    Close,
}

impl Say {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, String::new(), String::new())
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::Answer(status, "Content-Type: application/json\r\n".into(), body.into())
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Number of the connection it came on.
    pub connection: usize,
}

impl Request {
    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

pub struct Server {
    pub address: SocketAddr,
    script: Arc<Mutex<VecDeque<Say>>>,
    seen: Receiver<Request>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, seen) = sync_channel(MOST);
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (Ok(stream), script, sender) = (stream, Arc::clone(&shared), sender.clone()) else {
                    return;
                };
                std::thread::spawn(move || serve(stream, number, &script, &sender));
            }
        });
        Self { address, script, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Appends to the script.
    pub fn play(&self, says: impl IntoIterator<Item = Say>) {
        self.script.lock().unwrap().extend(says);
    }

    /// The next request.
    pub fn request(&self) -> Request {
        self.seen.recv_timeout(LONG).expect("a request must come")
    }

    /// Requests that came and nobody looked at.
    pub fn rest(&self) -> Vec<Request> {
        self.seen.try_iter().collect()
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: &Mutex<VecDeque<Say>>,
    seen: &SyncSender<Request>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer, connection) {
        let say = script.lock().unwrap().pop_front().unwrap_or(Say::Accept);
        let _ = seen.send(request);
        let written = match say {
            Say::Accept => stream.write_all(&answer(202, "", "{\"accepted\":1}")),
            Say::Answer(status, headers, body) => stream.write_all(&answer(status, &headers, &body)),
            Say::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Say::Hang => {
                let _ = stream.read(&mut [0]);
                return;
            }
            Say::Close => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// An HTTP/1.1 answer.
pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        fill(stream, buffer)?;
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < end + 4 + length {
        fill(stream, buffer)?;
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    Some(Request { line, headers, body, connection })
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 16 * 1024];
    let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
    buffer.extend_from_slice(&piece[..count]);
    Some(())
}
