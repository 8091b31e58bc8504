//! A proxy in front of a healthy service that writes down every request.

use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::proxy::read_message;

/// A running recorder; its thread ends with the test process.
pub struct Recorder {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    /// One request per line: its head, and its body in hexadecimal digits.
    file: Mutex<File>,
    heads: Mutex<Vec<String>>,
    /// Of the first request whose head says this the answer is withheld.
    withhold: &'static str,
    withheld: AtomicBool,
}

impl Recorder {
    /// Stands before `target`, `http://host:port`, and writes to `file`. Of the first request whose head says `withhold`
    /// the client gets no answer, though the service did what was asked.
    pub fn start(target: &str, file: &Path, withhold: &'static str) -> Recorder {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            target: target.trim_start_matches("http://").into(),
            file: Mutex::new(File::create(file).expect("a writable directory")),
            heads: Mutex::default(),
            withhold,
            withheld: AtomicBool::new(false),
        });
        let recorder = Recorder {
            url,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for client in socket.incoming().flatten() {
                let shared = shared.clone();
                // A client that is killed leaves its connection in the middle of something.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        recorder
    }

    /// Whether a request with `part` in its head has been made.
    pub fn saw(&self, part: &str) -> bool {
        let heads = self
            .shared
            .heads
            .lock()
            .expect("no recorder panics while it writes");
        heads.iter().any(|head| head.contains(part))
    }

    /// Forgets what was seen; it stays written.
    pub fn forget(&self) {
        let mut heads = self
            .shared
            .heads
            .lock()
            .expect("no recorder panics while it writes");
        heads.clear();
    }
}

impl Shared {
    /// One request; the connection ends with it.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let request = read_message(&mut client, true)?;
        let head_length = request.windows(4).position(|w| w == b"\r\n\r\n");
        let (head, body) = request.split_at(head_length.map_or(request.len(), |at| at + 4));
        let head = String::from_utf8_lossy(head).into_owned();
        if head.is_empty() || head == "connection: close\r\n\r\n" {
            return Ok(());
        }
        self.write(json!({ "head": head, "body": hex(body) }))?;
        let mut heads = self.heads.lock().expect("no recorder panics while it writes");
        heads.push(head.clone());
        drop(heads);
        let mut server = TcpStream::connect(&self.target)?;
        server.write_all(&request)?;
        let answer = read_message(&mut BufReader::new(server), false)?;
        let named = !self.withhold.is_empty() && head.contains(self.withhold);
        if named && !self.withheld.swap(true, SeqCst) {
            return Ok(());
        }
        client.get_mut().write_all(&answer)
    }

    fn write(&self, line: Value) -> std::io::Result<()> {
        let mut file = self.file.lock().expect("no recorder panics while it writes");
        file.write_all(format!("{line}\n").as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    // What is asked for stands at the front; the rest is rows.
    const KEPT: usize = 1 << 20;
    bytes.iter().take(KEPT).map(|b| format!("{b:02x}")).collect()
}
