//! The connections of plain beacons: read, taken and answered without an allocation for each.
//!
//! What one read brings is taken at once, however many requests it is, and where it lies, unless a request is cut;
//! the answers go out in the order of the requests, as many at once as are ready. So requests that a client sends one
//! behind the other wait for one fsync together, which hyper, that takes a request when the one before is answered,
//! does not do.
//!
//! Only what `head` knows for plain is taken. The first request that is anything else, or goes to no source, is left
//! unread, and the connection is hyper's from there on; so are limits and errors of HTTP itself.
//!
//! How it fails: as `connection` says. A refusal closes the connection, and what was sent behind it has no answer.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use millstream_engine::time::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFuture;

use super::answer::{self, Answer};
use super::batch::{LaneSource, Taken};
use super::body::{self, Share};
use super::connection::{HEAD_BYTES, is_refusal};
use super::head::{self, Head, Plain};
use super::lane::{Found, Lane, SPARE_BYTES};
use super::request;
use super::verdict::Awaited;
use crate::formats::json::Decoded;

/// Requests of one connection that wait for their answers; more are left in the socket. A browser sends none behind
/// another, and a collector that forwards for many fills batches with as many.
const AT_ONCE: usize = 256;
/// The same in bytes of their bodies, and of what is to be said of bad rows: a lane's log takes 64 MiB that wait.
const AT_ONCE_BYTES: usize = 1 << 20;
/// Memory of what is wrong with a row, about.
const FAILED_BYTES: usize = 128;

/// Room for more of a head that is cut.
const ROOM_BYTES: usize = 4 << 10;

/// Answers that are written in one go.
const WRITE_BYTES: usize = 64 << 10;

/// How a connection ends here.
pub(super) enum End {
    /// Everything is said.
    Over,
    /// A client was refused and may still be writing.
    Refused,
    /// What comes now is for hyper, beginning with what was read.
    Other(Bytes),
}

/// Serves the plain beacons that a connection begins with.
pub(super) async fn serve(lane: &Lane, stream: &mut TcpStream, peer: IpAddr) -> End {
    let mut connection = Connection {
        lane,
        stream,
        peer,
        kept: Vec::new(),
        share: Share::of(&lane.buffered),
        cut: Cut::Nothing,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        unsent: Vec::new(),
        ending: None,
        since: Instant::now(),
        timer: None,
    };
    let mut stop = pin!(lane.stop.cancelled());
    std::future::poll_fn(|cx| connection.poll(cx, stop.as_mut())).await
}

struct Connection<'a> {
    lane: &'a Lane,
    stream: &'a mut TcpStream,
    peer: IpAddr,
    /// What was read and is not taken.
    kept: Vec<u8>,
    share: Share<'a>,
    /// What `kept` begins with.
    cut: Cut,
    /// Requests without an answer, in their order.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Answers that the socket did not take at once.
    unsent: Vec<u8>,
    /// Nothing more is taken; what happens when the last answer is sent.
    ending: Option<Ending>,
    /// When what the client is waited for began.
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A request that has not come to its end.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// None: nothing is kept, or something that was not looked at.
    Nothing,
    /// Its head, of which so many bytes have been looked at.
    Head(usize),
    /// Its body: so many bytes are head and body together.
    Body(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Over,
    Refused,
    Other,
}

struct Waiting {
    began: Instant,
    /// What it counts for in `waiting_bytes`.
    bytes: usize,
    /// The page that sent it, and who says whether it may read the answer.
    origin: Option<(HeaderValue, Rc<LaneSource>)>,
    pixel: bool,
    state: State,
}

enum State {
    Taken(Decoded, Awaited),
    Refused(Box<Answer>),
}

impl Connection<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, mut stop: Pin<&mut WaitForCancellationFuture<'_>>) -> Poll<End> {
        loop {
            if self.poll_answer(cx).is_err() {
                return Poll::Ready(End::Over);
            }
            if let Some(end) = self.end() {
                return Poll::Ready(end);
            }
            if self.takes() && self.poll_take(cx).is_ready() {
                continue;
            }
            if self.ending.is_none() && stop.as_mut().poll(cx).is_ready() {
                self.ending = Some(match (self.kept.is_empty(), self.waiting.is_empty()) {
                    (true, true) => Ending::Over,
                    // More may be on its way, which must not reset the connection under the answers.
                    (true, false) => Ending::Refused,
                    // hyper ends a request that has begun in order.
                    (false, _) => Ending::Other,
                });
                continue;
            }
            ready!(self.poll_timer(cx));
            self.out_of_time();
        }
    }

    /// Whether a request may be taken now. One whose answers the client does not read may not send more.
    fn takes(&self) -> bool {
        let room = self.waiting.len() < AT_ONCE && self.waiting_bytes < AT_ONCE_BYTES;
        room && self.ending.is_none() && self.unsent.is_empty()
    }

    fn end(&mut self) -> Option<End> {
        let ending = self.ending?;
        let all_sent = self.waiting.is_empty() && self.unsent.is_empty();
        all_sent.then(|| match ending {
            Ending::Over => End::Over,
            Ending::Refused => End::Refused,
            Ending::Other => {
                let kept = std::mem::take(&mut self.kept);
                let read = Bytes::copy_from_slice(&kept);
                self.lane.memory.give(kept);
                End::Other(read)
            }
        })
    }

    // Reading.

    /// Reads once and takes what there is; pending if there is nothing.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.kept.is_empty() {
            return self.poll_take_new(cx);
        }
        if self.cut != Cut::Nothing {
            let read = ready!(self.poll_read_on(cx));
            if self.is_last(read) {
                return Poll::Ready(());
            }
        }
        let kept = std::mem::take(&mut self.kept);
        if self.is_worth_a_look(&kept) {
            let taken = self.take(&kept);
            self.keep(kept, taken);
        } else {
            self.keep(kept, 0);
        }
        Poll::Ready(())
    }

    /// With nothing kept: what is read is taken from where all connections read to, and only a rest is copied.
    fn poll_take_new(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut memory = self.lane.memory.read.borrow_mut();
        let mut to = ReadBuf::new(&mut memory);
        let read = ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut to));
        let read = read.map(|()| to.filled().len());
        if self.is_last(read) {
            return Poll::Ready(());
        }
        let bytes = to.filled();
        let taken = self.take(bytes);
        let rest = &bytes[taken..];
        if !rest.is_empty() {
            let mut kept = self.lane.memory.take();
            kept.extend_from_slice(rest);
            self.since = Instant::now();
            self.keep(kept, 0);
        }
        Poll::Ready(())
    }

    /// Reads more of a request that is cut.
    fn poll_read_on(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let missing = match self.cut {
            Cut::Body(whole) => whole - self.kept.len(),
            Cut::Head(_) | Cut::Nothing => ROOM_BYTES,
        };
        // What a client announces costs nothing before it comes.
        let room = missing.min(self.kept.len().max(16 * ROOM_BYTES));
        self.kept.reserve(room);
        pin!(self.stream.read_buf(&mut self.kept)).poll(cx)
    }

    /// Whether the client sends nothing more.
    fn is_last(&mut self, read: std::io::Result<usize>) -> bool {
        let last = !matches!(read, Ok(1..));
        if last {
            self.ending = Some(Ending::Over);
        }
        last
    }

    /// Whether what is missing of a cut request may have come.
    fn is_worth_a_look(&self, kept: &[u8]) -> bool {
        match self.cut {
            Cut::Nothing => true,
            Cut::Head(seen) => kept.len() > HEAD_BYTES || kept[seen..].contains(&b'\n'),
            Cut::Body(whole) => kept.len() >= whole,
        }
    }

    /// Takes the requests that are whole; how many bytes they are.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        self.cut = Cut::Nothing;
        while self.takes() && at < bytes.len() {
            match self.take_one(&bytes[at..]) {
                Some(taken) => at += taken,
                None => break,
            }
        }
        at
    }

    /// Takes the request that `bytes` begin with; how many of them it is. Nothing if it is cut, or not for here.
    fn take_one(&mut self, bytes: &[u8]) -> Option<usize> {
        let head = match head::read(bytes) {
            Head::Plain(head) if head.head <= HEAD_BYTES => head,
            Head::Partial if bytes.len() <= HEAD_BYTES => {
                self.cut = Cut::Head(bytes.len());
                return None;
            }
            Head::Plain(_) | Head::Partial | Head::Other => {
                self.ending = Some(Ending::Other);
                return None;
            }
        };
        let Some(source) = self.source(&head) else {
            self.ending = Some(Ending::Other);
            return None;
        };
        let whole = head.head + head.body;
        if bytes.len() < whole {
            self.cut = Cut::Body(whole);
            self.since = Instant::now();
            return None;
        }
        self.accept(source, head, bytes);
        Some(whole)
    }

    /// Where a plain beacon of an ordinary size goes.
    fn source(&self, head: &Plain<'_>) -> Option<Rc<LaneSource>> {
        match self.lane.find(head.path) {
            Found::Source { source, gif } => {
                let fits = head.body as u64 <= source.endpoint.options.max_body.0;
                (gif == head.get && fits).then_some(source)
            }
            Found::Away | Found::Broken | Found::Unknown => None,
        }
    }

    /// Takes the rows of a whole request.
    fn accept(&mut self, source: Rc<LaneSource>, head: Plain<'_>, bytes: &[u8]) {
        self.since = Instant::now();
        let taken = match head.get {
            true => request::take_query(&source, self.peer, head.query),
            false => {
                let body = &bytes[head.head..head.head + head.body];
                request::take_sent(self.lane, &source, self.peer, body)
            }
        };
        let mut held = head.body;
        let state = match taken {
            Ok(Taken { decoded, verdict }) => {
                held += decoded.failed.len() * FAILED_BYTES;
                State::Taken(decoded, verdict)
            }
            Err(answer) => {
                self.ending = Some(Ending::Refused);
                State::Refused(answer)
            }
        };
        self.waiting_bytes += held;
        self.waiting.push_back(Waiting {
            began: self.since,
            bytes: held,
            origin: head.origin.map(|origin| (origin, source)),
            pixel: head.get,
            state,
        });
    }

    /// Keeps what of `bytes` was not taken.
    fn keep(&mut self, mut bytes: Vec<u8>, taken: usize) {
        bytes.drain(..taken);
        if taken > 0 && bytes.capacity() > SPARE_BYTES {
            // A large request has left a small rest.
            bytes.shrink_to(2 * bytes.len());
        }
        self.cut = match self.cut {
            Cut::Head(_) => Cut::Head(bytes.len()),
            cut => cut,
        };
        if bytes.is_empty() || self.ending == Some(Ending::Refused) {
            self.lane.memory.give(bytes);
        } else {
            self.kept = bytes;
        }
        if let Err(crowded) = self.share.hold(self.kept.len()) {
            self.kept = Vec::new();
            // Less is never refused.
            let _ = self.share.hold(0);
            self.refuse(crowded.answer());
        }
    }

    // Answering.

    /// Sends what can be sent; an error if the client is gone.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        loop {
            let unsent = std::mem::take(&mut self.unsent);
            let sent = self.poll_send(cx, &unsent)?;
            if sent < unsent.len() {
                self.unsent = unsent;
                self.unsent.drain(..sent);
                return Ok(());
            }
            let mut answers = self.lane.memory.written.borrow_mut();
            answers.clear();
            self.settle(cx, &mut answers);
            if answers.is_empty() {
                return Ok(());
            }
            let sent = self.poll_send(cx, &answers)?;
            if sent < answers.len() {
                self.unsent.extend_from_slice(&answers[sent..]);
                self.since = Instant::now();
            }
        }
    }

    /// How many bytes the socket takes now. If not all, it wakes us.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> std::io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match Pin::new(&mut *self.stream).poll_write(cx, &bytes[sent..]) {
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => sent += written?,
                Poll::Pending => break,
            }
        }
        if sent > 0 {
            self.since = Instant::now();
        }
        Ok(sent)
    }

    /// Writes the answers that are next and known.
    fn settle(&mut self, cx: &mut Context<'_>, to: &mut Vec<u8>) {
        let now = Timestamp::now();
        // Room first: a verdict that is seen is counted.
        while to.len() < WRITE_BYTES
            && let Some(next) = self.waiting.front_mut()
            && next.state.poll(self.lane, cx).is_ready()
            && let Some(next) = self.waiting.pop_front()
        {
            self.waiting_bytes -= next.bytes;
            let status = self.write(&next, now, to);
            self.lane.stats().answered(status.as_u16());
            if status.is_success() {
                self.lane.stats().took(next.began.elapsed());
            }
        }
    }

    /// Writes the answer to a request; its status.
    fn write(&mut self, next: &Waiting, now: Timestamp, to: &mut Vec<u8>) -> StatusCode {
        let Lane { replies, date, .. } = self.lane;
        let mut answer = match &next.state {
            State::Taken(decoded, _) => match replies.all_good(decoded) {
                Some(reply) if !next.pixel => {
                    let page = next.origin.as_ref();
                    let page = page.map(|(origin, source)| (origin, source.endpoint.options.allows(origin)));
                    date.write_reply(&reply, page, now, to);
                    return StatusCode::OK;
                }
                _ if next.pixel => answer::pixel(),
                _ => replies.of(decoded),
            },
            State::Refused(answer) => answer.as_ref().clone(),
        };
        if let Some((origin, source)) = &next.origin {
            let options = &source.endpoint.options;
            answer::allow_origin(&mut answer, Some(origin), |origin| options.allows(origin));
        }
        let status = answer.status();
        if is_refusal(&answer) {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
            self.ending = Some(Ending::Refused);
            self.waiting.clear();
            self.kept.clear();
        }
        date.write(answer, now, to);
        status
    }

    /// Answers nothing but this behind what is waiting.
    fn refuse(&mut self, answer: Answer) {
        self.ending = Some(Ending::Refused);
        self.waiting.push_back(Waiting {
            began: self.since,
            bytes: 0,
            origin: None,
            pixel: false,
            state: State::Refused(Box::new(answer)),
        });
    }

    // Time.

    /// Pending while the client has time left, or is not what is waited for.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = self.lane.limits();
        let time = match self.cut {
            _ if !self.unsent.is_empty() => limits.header_timeout,
            _ if !self.waiting.is_empty() => return Poll::Pending,
            Cut::Body(_) => limits.body_timeout,
            Cut::Head(_) | Cut::Nothing => limits.header_timeout,
        };
        let deadline = self.since + time;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer that is early looks again; moving it with every request would cost more.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// The client has let its time pass.
    fn out_of_time(&mut self) {
        if !self.unsent.is_empty() {
            // It does not read.
            self.unsent.clear();
            self.waiting.clear();
            self.ending = Some(Ending::Over);
            return;
        }
        match self.cut {
            Cut::Nothing => self.ending = Some(Ending::Over),
            Cut::Head(_) => {
                let late = "the request did not arrive in time";
                self.refuse(answer::error(StatusCode::REQUEST_TIMEOUT, late));
            }
            Cut::Body(_) => {
                let late = body::too_slow(self.lane.limits().body_timeout);
                self.refuse(late.answer());
            }
        }
    }
}

impl State {
    /// Ready when it is known what to answer.
    fn poll(&mut self, lane: &Lane, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Taken(decoded, verdict) = self {
            let verdict = ready!(Pin::new(verdict).poll(cx));
            if let Err(answer) = request::settled(lane, decoded, verdict) {
                *self = State::Refused(answer);
            }
        }
        Poll::Ready(())
    }
}
