//! One connection: what is on its way, and the bytes of it that are not whole yet. It does no accounting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::ledger::Ticket;

/// Between attempts to connect: doubled from the first to the last.
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_LAST: Duration = Duration::from_secs(1);

/// A server that does not accept within this is down; also bounds the end of a run.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Room for one read: a reply to 500 rows, or hundreds of replies to one row each.
pub const READ_BYTES: usize = 64 << 10;

/// A request on its way.
pub struct InFlight {
    /// When it was to be sent.
    pub due: Instant,
    /// When it was.
    pub sent: Instant,
    pub rows: usize,
    pub ticket: Option<Ticket>,
}

/// One connection, opened again whenever it is lost.
pub struct Lane {
    state: State,
    /// Requests without an answer, in the order of their answers.
    pub waiting: VecDeque<InFlight>,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    unsent_from: usize,
    /// The start of a reply.
    partial: Vec<u8>,
    /// No request before this.
    pub paused_until: Option<Instant>,
    /// It is in the queue of those that have room.
    pub queued: bool,
    reconnect: Duration,
}

enum State {
    Closed,
    Connecting(TcpStream, Instant),
    Open(TcpStream),
}

impl Lane {
    /// Not connected.
    pub fn new() -> Lane {
        Lane {
            state: State::Closed,
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            unsent_from: 0,
            partial: Vec::new(),
            paused_until: None,
            queued: false,
            reconnect: RECONNECT_FIRST,
        }
    }

    /// True when nothing is open, nor about to be.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// How many requests may go out now, of `pipeline` in flight.
    pub fn room(&self, pipeline: usize) -> usize {
        let free =
            matches!(self.state, State::Open(_)) && self.unsent.is_empty() && self.paused_until.is_none();
        if free {
            pipeline.saturating_sub(self.waiting.len())
        } else {
            0
        }
    }

    /// Begins to connect; events come as `token`.
    pub fn connect(&mut self, address: SocketAddr, registry: &Registry, token: Token) -> io::Result<()> {
        let mut socket = TcpStream::connect(address).map_err(cannot_connect)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.state = State::Connecting(socket, Instant::now());
        Ok(())
    }

    /// The socket may be written to: it is connected, or has room again.
    pub fn writable(&mut self) -> io::Result<()> {
        if let State::Connecting(socket, _) = &self.state {
            if let Some(error) = socket.take_error()? {
                return Err(cannot_connect(error));
            }
            if socket
                .peer_addr()
                .is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
            {
                return Ok(());
            }
            socket.set_nodelay(true)?;
            if let State::Connecting(socket, _) = std::mem::replace(&mut self.state, State::Closed) {
                self.state = State::Open(socket);
            }
        }
        self.flush()
    }

    /// Sends `bytes`; what the socket does not take now goes when it can. Only with room.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = self.write(bytes)?;
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        self.unsent_from += self.write(&unsent[self.unsent_from..])?;
        if self.unsent_from == unsent.len() {
            unsent.clear();
            self.unsent_from = 0;
        }
        self.unsent = unsent;
        Ok(())
    }

    /// How many bytes the socket took before it would have blocked.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Open(socket) = &mut self.state else {
            return Ok(0);
        };
        let mut taken = 0;
        while taken < bytes.len() {
            match socket.write(&bytes[taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Reads once into `into`, which only grows, behind the start of a reply that was kept. The bytes that are there
    /// now, and whether the socket may have more.
    pub fn read(&mut self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let State::Open(socket) = &mut self.state else {
            return Ok((0, false));
        };
        let from = self.partial.len();
        if into.len() < from + READ_BYTES {
            into.resize(from + READ_BYTES, 0);
        }
        into[..from].copy_from_slice(&self.partial);
        let room = &mut into[from..from + READ_BYTES];
        let count = loop {
            match socket.read(room) {
                Ok(0) => return Err(closed_by_server()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((0, false)),
                Err(error) => return Err(error),
            }
        };
        self.partial.clear();
        Ok((from + count, true))
    }

    /// Keeps the start of a reply for the next read.
    pub fn keep(&mut self, start: &[u8]) {
        self.partial.extend_from_slice(start);
    }

    /// What is overdue at `now`, if anything: an answer, or the connection itself.
    pub fn overdue(&self, now: Instant, timeout: Duration) -> Option<io::Error> {
        let late = |why| Some(io::Error::new(io::ErrorKind::TimedOut, why));
        match (&self.state, self.waiting.front()) {
            (State::Connecting(_, since), _) if now >= *since + CONNECT_TIMEOUT => {
                late("cannot connect: timed out")
            }
            (_, Some(first)) if now >= first.sent + timeout => late("no answer within the timeout"),
            _ => None,
        }
    }

    /// An answer came: the next attempt to connect need not wait long.
    pub fn is_well(&mut self) {
        self.reconnect = RECONNECT_FIRST;
    }

    /// Closes; how long to wait before connecting again.
    pub fn close(&mut self) -> Duration {
        self.state = State::Closed;
        self.unsent.clear();
        self.unsent_from = 0;
        self.partial.clear();
        self.paused_until = None;
        let pause = self.reconnect;
        self.reconnect = (pause * 2).min(RECONNECT_LAST);
        pause
    }
}

fn closed_by_server() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

fn cannot_connect(why: io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("cannot connect: {why}"))
}
