//! What becomes of a batch, told to every request in it at once.
//!
//! A lane is one thread, so this is a cell and a list of wakers: one allocation for a batch, none for a request.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What becomes of a batch.
pub(super) type Verdict = Result<(), NotTaken>;

/// Why a batch was not written.
#[derive(Clone, Debug)]
pub(super) enum NotTaken {
    /// The log is full or closing.
    Busy { message: String, after: Duration },
    /// Something that needs a person; it has been logged.
    Failed,
    /// The lane is ending and dropped the batch.
    Dropped,
}

#[derive(Default)]
struct Told {
    verdict: RefCell<Option<Verdict>>,
    waiting: RefCell<Vec<Waker>>,
    requests: Cell<usize>,
}

/// Says what became of a batch; to be dropped is to say that it was.
#[derive(Default)]
pub(super) struct Judge(Rc<Told>);

impl Judge {
    /// A place to wait for the verdict.
    pub fn admit(&self) -> Awaited {
        self.0.requests.set(self.requests() + 1);
        Awaited {
            told: self.0.clone(),
            place: None,
        }
    }

    /// How many requests were admitted.
    pub fn requests(&self) -> usize {
        self.0.requests.get()
    }

    pub fn tell(&self, verdict: Verdict) {
        self.0.verdict.borrow_mut().get_or_insert(verdict);
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.tell(Err(NotTaken::Dropped));
    }
}

/// The verdict on a batch, to be awaited by a request in it.
pub(super) struct Awaited {
    told: Rc<Told>,
    /// Which of the wakers is this one's.
    place: Option<usize>,
}

impl Future for Awaited {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(verdict) = self.told.verdict.borrow().as_ref() {
            return Poll::Ready(verdict.clone());
        }
        let told = self.told.clone();
        let mut waiting = told.waiting.borrow_mut();
        match self.place {
            Some(place) => waiting[place].clone_from(cx.waker()),
            None => {
                self.place = Some(waiting.len());
                waiting.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn everybody_is_told_also_by_silence() {
        let judge = Judge::default();
        let (mut early, late) = (judge.admit(), judge.admit());
        assert!((&mut early).now_or_never().is_none() && (&mut early).now_or_never().is_none());
        assert_eq!(judge.requests(), 2);
        let telling = async { judge.tell(Ok(())) };
        let (early, ()) = futures::join!(early, telling);
        assert!(early.is_ok() && late.await.is_ok());

        let judge = Judge::default();
        let awaited = judge.admit();
        let dropping = async { drop(judge) };
        let (verdict, ()) = futures::join!(awaited, dropping);
        assert!(matches!(verdict, Err(NotTaken::Dropped)));
    }
}
