//! How long a request may take as a whole, asked for at each wait for input.
//!
//! ureq sets its limits before an answer begins, and what it skips inside a body (the trailer of a chunked one)
//! never reaches the reader of that body. Must never: let a peer hold us by sending what nobody is given.

use super::Timeouts;
use crate::text::secs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// How long one request may take, from its first byte out to its last byte in.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// `None`: beyond what the clock can say.
    until: Option<Instant>,
    allowed: Duration,
    bytes_per_sec: Option<u64>,
}

impl Limit {
    /// For what is read whole before it is used.
    pub fn document(timeouts: &Timeouts) -> Limit {
        Limit::new(timeouts.document, None)
    }

    /// For a file of this length.
    pub fn body(timeouts: &Timeouts, size_bytes: u64) -> Limit {
        match timeouts.bytes_per_sec {
            0 => Limit::new(timeouts.body, None),
            rate => Limit::new(timeouts.body.saturating_add(Duration::from_secs(size_bytes / rate)), Some(rate)),
        }
    }

    fn new(allowed: Duration, bytes_per_sec: Option<u64>) -> Limit {
        Limit { until: Instant::now().checked_add(allowed), allowed, bytes_per_sec }
    }

    /// Returns the time that is left.
    pub fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Says what happened when it has passed.
    pub fn words(&self) -> String {
        let slow = match self.bytes_per_sec {
            Some(rate) if rate >= 1024 => format!("slower than {} KiB/s: ", rate / 1024),
            Some(rate) => format!("slower than {rate} bytes/s: "),
            None => String::new(),
        };
        format!("{slow}not complete after {} s", secs(self.allowed))
    }
}

/// When a wait for input ends, and as what.
type Until = Option<(Instant, Timeout)>;

/// The limit of the request that is being worked on. Clones share it: one request at a time is read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Until>>);

impl Watch {
    /// Begins a request.
    pub fn begin(&self, limit: Limit) {
        self.set(limit.until.map(|at| (at, Timeout::RecvBody)));
    }

    /// Begins one read of a body: it must give a byte within `stall`, and within the limit.
    pub fn begin_read(&self, limit: Limit, stall: Duration) {
        let stalled = Instant::now().checked_add(stall).map(|at| (at, Timeout::PerRead));
        let ends = [limit.until.map(|at| (at, Timeout::RecvBody)), stalled];
        self.set(ends.into_iter().flatten().min_by_key(|(at, _)| *at));
    }

    fn set(&self, until: Until) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Shortens a wait. Errors: Timeout: its time has passed.
    fn shorten(&self, mut timeout: NextTimeout) -> Result<NextTimeout, ureq::Error> {
        let Some((at, reason)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(timeout) };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ureq::Error::Timeout(reason));
        }
        if left < *timeout.after {
            (timeout.after, timeout.reason) = (left.into(), reason);
        }
        Ok(timeout)
    }
}

impl<In: Transport> Connector<In> for Watch {
    type Out = Watched<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| Watched { inner, watch: self.clone() }))
    }
}

/// A connection whose every wait for input is watched.
#[derive(Debug)]
pub(super) struct Watched<In> {
    inner: In,
    watch: Watch,
}

impl<In: Transport> Transport for Watched<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = self.watch.shorten(timeout)?;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(bytes_per_sec: u64) -> Timeouts {
        let ms = Duration::from_millis;
        Timeouts { connect: ms(1), headers: ms(1), stall: ms(1), document: ms(120), body: ms(300_000), bytes_per_sec }
    }

    #[test]
    fn the_time_for_a_file_follows_its_size() {
        for (rate, size_bytes, secs, words) in [
            (2048, 0, 300, "slower than 2 KiB/s: not complete after 300 s"),
            (2048, 2048 * 1000, 1300, "slower than 2 KiB/s: not complete after 1300 s"),
            (10, 100, 310, "slower than 10 bytes/s: not complete after 310 s"),
        ] {
            let limit = Limit::body(&timeouts(rate), size_bytes);
            assert_eq!((limit.allowed.as_secs(), limit.words().as_str()), (secs, words));
        }
        assert_eq!(Limit::document(&timeouts(1)).words(), "not complete after 0.12 s");
        // Whatever a document announces, there is no overflow.
        for (rate, size_bytes) in [(0, u64::MAX), (1, u64::MAX), (1, i64::MAX as u64)] {
            Watch::default().begin_read(Limit::body(&timeouts(rate), size_bytes), Duration::MAX);
        }
    }

    #[test]
    fn a_wait_ends_at_whichever_comes_first() {
        let watch = Watch::default();
        let hour = Duration::from_secs(3600);
        let free = NextTimeout::default();
        assert_eq!(watch.shorten(free).unwrap(), free);
        let limit = Limit::body(&timeouts(1), 0);
        for (stall, reason) in [(hour, Timeout::RecvBody), (Duration::from_secs(9), Timeout::PerRead)] {
            watch.begin_read(limit, stall);
            let got = watch.shorten(free).unwrap();
            assert!(got.reason == reason && *got.after <= stall, "{got:?}");
        }
        watch.begin_read(limit, Duration::ZERO);
        assert!(matches!(watch.shorten(free), Err(ureq::Error::Timeout(Timeout::PerRead))));
    }
}
