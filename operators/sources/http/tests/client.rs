//! A client that writes exactly the bytes it is told and reads answers by their Content-Length, so that
//! nothing a well-behaved client would correct is corrected.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A test that waits longer has failed; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let stream = BufReader::new(stream);
        Client { stream }
    }

    /// The same connection, for another thread to send on.
    pub fn again(&self) -> Client {
        let stream = self.stream.get_ref().try_clone().expect("a file descriptor");
        Client {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server reads");
    }

    /// Says that nothing more will be sent. A server that has closed already need not hear it.
    pub fn half_close(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// The next answer, or nothing if the server has closed the connection.
    pub fn receive(&mut self) -> Option<Reply> {
        self.receive_to(true)
    }

    /// The next answer, of which only the head comes, as to HEAD.
    pub fn receive_head(&mut self) -> Option<Reply> {
        self.receive_to(false)
    }

    fn receive_to(&mut self, body: bool) -> Option<Reply> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.expect("a status line");
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().expect("a whole head");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|n| n.parse().ok());
        let length: usize = length.expect("every answer says its length");
        let mut bytes = vec![0; if body { length } else { 0 }];
        self.stream.read_exact(&mut bytes).expect("the whole body");
        Some(Reply {
            status,
            headers,
            body: bytes,
        })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).expect("an answer in time") {
            0 => None,
            _ => Some(line.trim_end().to_owned()),
        }
    }
}

/// A POST of `body`.
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", path, &BTreeMap::new(), body.as_ref())
}

/// A request with a Content-Length.
pub fn request(method: &str, path: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        bytes += &format!("{name}: {value}\r\n");
    }
    bytes += &format!("content-length: {}\r\n\r\n", body.len());
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
