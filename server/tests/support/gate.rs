//! A proxy in front of a service that holds up requests for one thing while its gate is closed.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::pause;
use super::proxy::read_message;

/// How often a request that is held up looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

/// A running proxy; its threads end with the test process.
pub struct Gate {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Requests whose first line has one of these in it are held up.
    closed_to: BTreeSet<String>,
    /// Those of them for which one came.
    held: BTreeSet<String>,
}

impl Gate {
    /// Stands before `target`, `http://host:port`, open.
    pub fn start(target: &str) -> Gate {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            target: target.trim_start_matches("http://").into(),
            state: Mutex::default(),
        });
        let gate = Gate {
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
        gate
    }

    /// Holds up requests with `part` in their first line from now on.
    pub fn close(&self, part: &str) {
        let mut state = self.shared.lock();
        state.closed_to.insert(part.into());
        state.held.remove(part);
    }

    /// Lets them through.
    pub fn open(&self, part: &str) {
        self.shared.lock().closed_to.remove(part);
    }

    /// Whether one has been held up since the gate was closed to them.
    pub fn holds(&self, part: &str) -> bool {
        self.shared.lock().held.contains(part)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no gate panics while it holds this")
    }

    fn is_closed_to(&self, head: &str) -> bool {
        let mut state = self.lock();
        let part = state.closed_to.iter().find(|part| head.contains(part.as_str()));
        let part = part.cloned();
        state.held.extend(part.clone());
        part.is_some()
    }

    /// One request; the connection ends with it.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let request = read_message(&mut client, true)?;
        let head = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let head = String::from_utf8_lossy(head).into_owned();
        while self.is_closed_to(&head) {
            pause(LOOK);
        }
        let mut server = TcpStream::connect(&self.target)?;
        server.write_all(&request)?;
        let answer = read_message(&mut BufReader::new(server), false)?;
        client.get_mut().write_all(&answer)
    }
}
