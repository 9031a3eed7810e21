//! Time limits: for a request as a whole, and for each wait in it.
//!
//! Must never: let a peer hold the connection by trickling bytes, or beyond its limit.

use crate::base::text::secs;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the head of a response, once the request is out.
    pub headers: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// For a document as a whole, redirects included.
    pub document: Duration,
    /// For a file as a whole, redirects included; a second is added for each `bytes_per_sec` of its length.
    pub body: Duration,
    /// Slowest average rate of a file; 0: its length adds no time.
    pub bytes_per_sec: u64,
}

impl Timeouts {
    /// Sets all times to the same value.
    pub fn all(time: Duration) -> Timeouts {
        Timeouts { connect: time, headers: time, stall: time, document: time, body: time, bytes_per_sec: 0 }
    }

    /// Replaces the defaults with configured values. Input: longest silence; longest time for one transfer as a whole.
    pub fn limit(&mut self, silence: Option<Duration>, whole: Option<Duration>) {
        if let Some(silence) = silence {
            (self.connect, self.headers, self.stall) = (silence, silence, silence);
        }
        if let Some(whole) = whole {
            (self.document, self.body, self.bytes_per_sec) = (whole, whole, 0);
        }
    }
}

/// How long one request may take, from its first byte out to its last byte in.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// `None`: beyond the clock's range.
    until: Option<Instant>,
    allowed: Duration,
    bytes_per_sec: Option<u64>,
}

impl Limit {
    /// Limit for a document that is read whole before use.
    pub fn document(timeouts: &Timeouts) -> Limit {
        let allowed = timeouts.document;
        Limit { until: Instant::now().checked_add(allowed), allowed, bytes_per_sec: None }
    }

    /// Limit for a file of this length. Input: `begun`: when its first part was asked for; all parts share the limit.
    pub fn body(timeouts: &Timeouts, size_bytes: u64, begun: Instant) -> Limit {
        let (allowed, bytes_per_sec) = match timeouts.bytes_per_sec {
            0 => (timeouts.body, None),
            rate => (timeouts.body.saturating_add(Duration::from_secs(size_bytes / rate)), Some(rate)),
        };
        Limit { until: begun.checked_add(allowed), allowed, bytes_per_sec }
    }

    /// Returns the remaining time.
    pub fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Describes the failure when the limit has passed.
    pub fn words(&self) -> String {
        let slow = match self.bytes_per_sec {
            Some(rate) if rate >= 1024 => format!("slower than {} KiB/s: ", rate / 1024),
            Some(rate) => format!("slower than {rate} bytes/s: "),
            None => String::new(),
        };
        format!("{slow}not complete after {} s", secs(self.allowed))
    }
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A connection, TLS included.
    Connect,
    /// The address of a name, in the time for a connection.
    Name,
    /// The head of an answer.
    Answer,
    /// The next bytes of a body.
    Data,
    /// The whole transfer.
    Whole,
}

/// When a wait ends, and what it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// `None`: beyond the clock's range.
    at: Option<Instant>,
    wait: Wait,
}

impl Until {
    /// Input: `at`: `None`: no limit.
    pub fn new(at: Option<Instant>, wait: Wait) -> Until {
        Until { at, wait }
    }

    /// Returns the remaining time; `None`: no limit. Errors: TimedOut: no time remains.
    pub fn left(&self) -> io::Result<Option<Duration>> {
        let Some(at) = self.at else { return Ok(None) };
        match at.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.late()),
            left => Ok(Some(left)),
        }
    }

    /// Returns the same end for the first part of connecting, the name lookup.
    pub fn for_name(self) -> Until {
        let wait = if self.wait == Wait::Connect { Wait::Name } else { self.wait };
        Until { wait, ..self }
    }

    /// Makes the error for a wait that timed out.
    pub fn late(&self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, Late(self.wait))
    }
}

/// Marks, inside an I/O error, the wait that timed out.
#[derive(Debug)]
pub(super) struct Late(pub Wait);

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too late")
    }
}

impl std::error::Error for Late {}

/// Returns what ureq waited for.
pub(super) fn wait(reason: ureq::Timeout) -> Wait {
    match reason {
        ureq::Timeout::Global | ureq::Timeout::PerCall => Wait::Whole,
        ureq::Timeout::Resolve | ureq::Timeout::Connect => Wait::Connect,
        ureq::Timeout::PerRead | ureq::Timeout::RecvBody => Wait::Data,
        _ => Wait::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(bytes_per_sec: u64) -> Timeouts {
        let ms = Duration::from_millis;
        Timeouts { connect: ms(1), headers: ms(1), stall: ms(1), document: ms(1200), body: ms(300_000), bytes_per_sec }
    }

    #[test]
    fn the_time_for_a_file_follows_its_size() {
        for (rate, size_bytes, secs, words) in [
            (2048, 0, 300, "slower than 2 KiB/s: not complete after 300 s"),
            (2048, 2048 * 1000, 1300, "slower than 2 KiB/s: not complete after 1300 s"),
            (10, 100, 310, "slower than 10 bytes/s: not complete after 310 s"),
        ] {
            let limit = Limit::body(&timeouts(rate), size_bytes, Instant::now());
            assert_eq!((limit.allowed.as_secs(), limit.words().as_str()), (secs, words));
        }
        assert_eq!(Limit::document(&timeouts(1)).words(), "not complete after 1.2 s");
        // Whatever length a document announces, nothing overflows.
        for (rate, size_bytes) in [(0, u64::MAX), (1, u64::MAX), (1, i64::MAX as u64)] {
            assert!(Limit::body(&timeouts(rate), size_bytes, Instant::now()).left() > Duration::from_secs(100));
        }
    }

    #[test]
    fn a_wait_says_what_was_in_vain() {
        assert!(Until::new(None, Wait::Data).left().unwrap().is_none());
        let soon = Until::new(Instant::now().checked_add(Duration::from_secs(9)), Wait::Data);
        assert!(soon.left().unwrap().unwrap() <= Duration::from_secs(9));
        let late = Until::new(Some(Instant::now()), Wait::Connect).for_name().left().unwrap_err();
        assert_eq!(late.get_ref().and_then(|e| e.downcast_ref::<Late>()).unwrap().0, Wait::Name);
    }
}
