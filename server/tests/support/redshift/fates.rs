//! A proxy before a warehouse that stops at a word: what the client says there never arrives, or is never answered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Where a connection stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What holds this text does not arrive, and nothing after it; the connection stays open.
    Before(&'static str),
    /// It arrives, and neither its answer nor any other comes back; the connection stays open.
    Unanswered(&'static str),
    /// It arrives, and the connection breaks instead of an answer.
    Broken(&'static str),
}

impl Stop {
    fn at(self) -> &'static str {
        match self {
            Stop::Before(text) | Stop::Unanswered(text) | Stop::Broken(text) => text,
        }
    }
}

pub struct Fates {
    pub port: u16,
    next: Arc<Mutex<Option<Stop>>>,
    reached: Arc<AtomicU64>,
}

impl Fates {
    /// Stands before what listens on `target`.
    pub fn start(target: u16) -> Fates {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("an address").port();
        let (next, reached) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let (shared, count) = (next.clone(), reached.clone());
        std::thread::spawn(move || {
            for client in socket.incoming().flatten() {
                let (next, reached) = (shared.clone(), count.clone());
                std::thread::spawn(move || drop(serve(client, target, &next, &reached)));
            }
        });
        Fates { port, next, reached }
    }

    /// The next connection that comes there stops.
    pub fn stop_at(&self, stop: Stop) {
        *self.next.lock().expect("no test panics with it") = Some(stop);
    }

    /// How often a connection stopped.
    pub fn reached(&self) -> u64 {
        self.reached.load(SeqCst)
    }
}

fn serve(
    mut client: TcpStream,
    target: u16,
    next: &Mutex<Option<Stop>>,
    reached: &AtomicU64,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    let mute = Arc::new(AtomicBool::new(false));
    let answers = {
        let (mut from, mut to, mute) = (server.try_clone()?, client.try_clone()?, mute.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 16384];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                if !mute.load(SeqCst) && to.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
            if !mute.load(SeqCst) {
                let _ = to.shutdown(Shutdown::Both);
            }
        })
    };
    let mut bytes = [0; 16384];
    while let Ok(read @ 1..) = client.read(&mut bytes) {
        let said = &bytes[..read];
        let stop = {
            let mut next = next.lock().expect("no test panics with it");
            let here = next.filter(|stop| contains(said, stop.at().as_bytes()));
            here.inspect(|_| *next = None)
        };
        if let Some(stop) = stop {
            mute.store(true, SeqCst);
            if !matches!(stop, Stop::Before(_)) {
                server.write_all(said)?;
            }
            reached.fetch_add(1, SeqCst);
            if let Stop::Broken(_) = stop {
                // The end of what was said lets the server carry it out first.
                server.shutdown(Shutdown::Write)?;
                let _ = answers.join();
                return client.shutdown(Shutdown::Both);
            }
            // Until the client is gone.
            while let Ok(1..) = client.read(&mut bytes) {}
            break;
        }
        server.write_all(said)?;
    }
    server.shutdown(Shutdown::Both)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
