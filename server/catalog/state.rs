//! The states of jobs and runs, which may follow which, and what a request does to them: pure functions.
//!
//! `states.case` beside this file lists all of it; the test at the end holds the two against each other.

use serde::{Deserialize, Serialize};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Nothing is to be done now.
    Null,
    /// A process is about to take it up.
    Scheduled,
    /// Dates run, or will be tried again.
    Running,
    /// Every date that could be loaded is; more will come.
    Success,
    /// A date was given up; it and later dates wait for a retry.
    Error,
    /// The last date is loaded.
    Complete,
    /// Paused, with nothing in flight.
    Paused,
    /// Cancelled, with nothing in flight.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 8] = [
        JobState::Null,
        JobState::Scheduled,
        JobState::Running,
        JobState::Success,
        JobState::Error,
        JobState::Complete,
        JobState::Paused,
        JobState::Cancelled,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Null => "null",
            JobState::Scheduled => "scheduled",
            JobState::Running => "running",
            JobState::Success => "success",
            JobState::Error => "error",
            JobState::Complete => "complete",
            JobState::Paused => "paused",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The state that is written so.
    pub fn named(name: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The states that may follow.
    pub fn next(self) -> &'static [JobState] {
        use JobState::*;
        match self {
            Null => &[Scheduled],
            Scheduled => &[Null, Running],
            Running => &[Null, Success, Error, Complete, Paused, Cancelled],
            Success => &[Scheduled],
            Paused => &[Null, Success],
            Cancelled | Complete | Error => &[Null],
        }
    }

    /// The shortest way to another state, without this one; empty when it is the same.
    pub fn way_to(self, to: JobState) -> Vec<JobState> {
        let mut ways = vec![vec![self]];
        // The longest way has 5 steps, so this ends.
        loop {
            if let Some(found) = ways.iter().find(|way| way.last() == Some(&to)) {
                return found[1..].to_vec();
            }
            let longer = ways.iter().flat_map(|way| {
                let next = way.last().map_or(&[][..], |last| last.next());
                next.iter().map(move |state| [way.as_slice(), &[*state]].concat())
            });
            ways = longer.collect();
        }
    }
}

/// Where the run of one date is: `et` is the transform, for extract and transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// To be done.
    Null,
    /// To be done once its marker is there.
    Waiting,
    /// It transforms.
    EtStarted,
    /// It has transformed; nothing is visible yet.
    EtSuccess,
    /// The transform failed.
    EtError,
    /// The transform was cancelled.
    EtCancelled,
    /// The process that transformed it is gone.
    EtUnknown,
    /// It loads.
    LoadStarted,
    /// It is done.
    LoadSuccess,
    /// The load failed.
    LoadError,
    /// The load was cancelled, or will not be made as the job was cancelled.
    LoadCancelled,
    /// The process that loaded it is gone.
    LoadUnknown,
}

impl RunState {
    /// Every state.
    pub const ALL: [RunState; 12] = [
        RunState::Null,
        RunState::Waiting,
        RunState::EtStarted,
        RunState::EtSuccess,
        RunState::EtError,
        RunState::EtCancelled,
        RunState::EtUnknown,
        RunState::LoadStarted,
        RunState::LoadSuccess,
        RunState::LoadError,
        RunState::LoadCancelled,
        RunState::LoadUnknown,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Null => "null",
            RunState::Waiting => "waiting",
            RunState::EtStarted => "et_started",
            RunState::EtSuccess => "et_success",
            RunState::EtError => "et_error",
            RunState::EtCancelled => "et_cancelled",
            RunState::EtUnknown => "et_unknown",
            RunState::LoadStarted => "load_started",
            RunState::LoadSuccess => "load_success",
            RunState::LoadError => "load_error",
            RunState::LoadCancelled => "load_cancelled",
            RunState::LoadUnknown => "load_unknown",
        }
    }

    /// The state that is written so.
    pub fn named(name: &str) -> Option<RunState> {
        RunState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The states that may follow. A backfill takes any state back to `null` (or `et_success`, to load again).
    pub fn next(self) -> &'static [RunState] {
        use RunState::*;
        match self {
            Null => &[Waiting, EtStarted],
            Waiting => &[Null, EtStarted, EtCancelled],
            EtStarted => &[EtSuccess, EtError, EtCancelled, EtUnknown],
            EtSuccess => &[Null, EtStarted, LoadStarted, LoadCancelled],
            EtError => &[Null, EtStarted, EtCancelled],
            EtUnknown => &[Null, EtStarted, EtCancelled],
            EtCancelled => &[Null],
            LoadStarted => &[LoadSuccess, LoadError, LoadCancelled, LoadUnknown],
            LoadError => &[Null, EtSuccess, EtStarted, LoadStarted, LoadCancelled],
            LoadUnknown => &[Null, EtSuccess, EtStarted, LoadStarted, LoadCancelled],
            LoadCancelled => &[Null, EtSuccess],
            LoadSuccess => &[Null, EtSuccess],
        }
    }

    /// Whether a process works on it.
    pub fn in_flight(self) -> bool {
        matches!(self, RunState::EtStarted | RunState::LoadStarted)
    }

    /// Where a run goes when its process cannot say how it ended.
    pub fn lost(self) -> RunState {
        match self {
            RunState::EtStarted => RunState::EtUnknown,
            RunState::LoadStarted => RunState::LoadUnknown,
            other => other,
        }
    }

    /// Where a run goes when its job is cancelled.
    pub fn cancelled(self) -> RunState {
        use RunState::*;
        match self {
            EtStarted | EtError | EtUnknown | Waiting => EtCancelled,
            LoadStarted | LoadError | LoadUnknown | EtSuccess => LoadCancelled,
            Null | EtCancelled | LoadSuccess | LoadCancelled => self,
        }
    }
}

/// What can be asked of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Finish what is in flight and start no more; `false` resumes.
    Pause(bool),
    /// Stop what is in flight and start no more; `false` takes a cancelled job up again.
    Cancel(bool),
    /// Forget a job that is over. What it has loaded stays.
    Delete(bool),
}

/// What has been asked of a job and not been done yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    pub pause: bool,
    pub cancel: bool,
    pub delete: bool,
}

/// What a request changes at once: the job's state and what is asked of it from then on.
///
/// # Errors
/// Why it cannot be asked in this state.
pub fn request(
    state: JobState,
    asked: Requested,
    request: Request,
) -> Result<(JobState, Requested), &'static str> {
    use JobState::*;
    let over = matches!(state, Cancelled | Complete);
    match request {
        Request::Pause(true) if over => Err("it is over; there is nothing to pause"),
        Request::Pause(true) if state == Error => Err("it has stopped at an error; retry or cancel it"),
        Request::Pause(true) => Ok((state, Requested { pause: true, ..asked })),
        Request::Pause(false) => {
            let now = if state == Paused { Null } else { state };
            Ok((
                now,
                Requested {
                    pause: false,
                    ..asked
                },
            ))
        }
        Request::Cancel(true) if state == Complete => Err("it is complete; there is nothing to cancel"),
        Request::Cancel(true) if state == Cancelled => Ok((state, asked)),
        Request::Cancel(true) => Ok((
            state,
            Requested {
                cancel: true,
                ..asked
            },
        )),
        Request::Cancel(false) if state == Cancelled => Ok((Null, Requested::default())),
        Request::Cancel(false) => Ok((
            state,
            Requested {
                cancel: false,
                delete: false,
                ..asked
            },
        )),
        Request::Delete(true) if over || asked.cancel => Ok((
            state,
            Requested {
                delete: true,
                ..asked
            },
        )),
        Request::Delete(true) => Err("only a cancelled or complete job can be deleted; cancel it first"),
        Request::Delete(false) => Ok((
            state,
            Requested {
                delete: false,
                ..asked
            },
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `job null: scheduled` and `run null: waiting et_started` list what may follow; `way complete cancelled: …`
    /// the steps between; `request running pause: running [pause]` the state and what is asked for afterwards, or
    /// `refused`; what was asked for before stands in brackets behind the state.
    #[test]
    fn states_follow_as_listed() {
        let cases = include_str!("states.case");
        let mut seen = 0;
        for line in cases.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (what, expect) = line.split_once(':').expect("a colon");
            assert_eq!(answer(what), expect.trim(), "{line}");
            seen += 1;
        }
        // Every state of both kinds is listed, so a new one must be, too.
        assert!(seen >= JobState::ALL.len() + RunState::ALL.len());
        for state in JobState::ALL {
            assert!(cases.contains(&format!("\njob {}:", state.name())));
        }
        for state in RunState::ALL {
            assert!(cases.contains(&format!("\nrun {}:", state.name())));
        }
    }

    fn answer(what: &str) -> String {
        let words: Vec<&str> = what.split_whitespace().collect();
        let job = |name: &str| JobState::named(name).unwrap_or_else(|| panic!("no job state {name}"));
        let run = |name: &str| RunState::named(name).unwrap_or_else(|| panic!("no run state {name}"));
        let jobs = |states: &[JobState]| states.iter().map(|s| s.name()).collect::<Vec<_>>().join(" ");
        match words[..] {
            ["job", from] => jobs(job(from).next()),
            ["way", from, to] => jobs(&job(from).way_to(job(to))),
            ["run", from] => {
                let next = run(from).next().iter().map(|s| s.name());
                next.collect::<Vec<_>>().join(" ")
            }
            ["cancelled", from] => run(from).cancelled().name().into(),
            ["lost", from] => run(from).lost().name().into(),
            ["request", state, ref asked @ .., what] => {
                let asked = asked.join(" ");
                let asked = Requested {
                    pause: asked.contains("pause"),
                    cancel: asked.contains("cancel"),
                    delete: asked.contains("delete"),
                };
                requested(request(job(state), asked, named(what)))
            }
            _ => panic!("not a case: {what}"),
        }
    }

    fn named(what: &str) -> Request {
        match what {
            "pause" => Request::Pause(true),
            "resume" => Request::Pause(false),
            "cancel" => Request::Cancel(true),
            "revive" => Request::Cancel(false),
            "delete" => Request::Delete(true),
            "keep" => Request::Delete(false),
            other => panic!("no request {other}"),
        }
    }

    fn requested(answer: Result<(JobState, Requested), &str>) -> String {
        let Ok((state, asked)) = answer else {
            return "refused".into();
        };
        let words = [
            (asked.pause, "pause"),
            (asked.cancel, "cancel"),
            (asked.delete, "delete"),
        ];
        let words: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, w)| *w).collect();
        match words.is_empty() {
            true => state.name().into(),
            false => format!("{} [{}]", state.name(), words.join(" ")),
        }
    }
}
