//! Resolves host names to addresses, within the time limit of a connection.
//!
//! The resolver has limits of its own, of half a minute and more, and cannot be cancelled: it runs on a thread that is
//! abandoned when the time is up. Must never: wait longer than that, or send a query for this machine's own name.

use super::deadline::Until;
use super::peers::literal;
use crate::base::url::is_localhost;
use crate::os::sys;
use crate::os::sys::thread::{Thread, lock};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Stack of the thread, on which resolvers keep whole answers. The default would be 2 MiB.
const STACK_BYTES: usize = 256 << 10;

/// A name without an address: why, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved(&'static str, pub &'static str);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unresolved {}

/// Finds a host's addresses, at least one. Input: as in a URL, IPv6 in brackets.
/// Errors: an [`Unresolved`] inside; TimedOut: no answer in time.
pub(super) fn look_up(host: &str, port: u16, until: Until) -> io::Result<Vec<SocketAddr>> {
    let at = |address: IpAddr| SocketAddr::new(address, port);
    if is_localhost(host) {
        // A resolver could claim that this name is elsewhere. Source: RFC 6761, section 6.3.
        return Ok(vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]);
    }
    if let Some(address) = literal(host) {
        return Ok(vec![at(address)]);
    }
    let mut found = ask(host, until)?;
    found.iter_mut().for_each(|address| address.set_port(port));
    if found.is_empty() { Err(unresolved(libc::EAI_NODATA)) } else { Ok(found) }
}

fn ask(host: &str, until: Until) -> io::Result<Vec<SocketAddr>> {
    let shared: Arc<(Mutex<Option<_>>, Condvar)> = Arc::default();
    let (host, to) = (host.to_owned(), shared.clone());
    let resolve = move || {
        // Otherwise this process could not change its mount namespace while the thread runs.
        sys::unshare_directories();
        let found = sys::look_up(&host);
        *lock(&to.0) = Some(found);
        to.1.notify_all();
    };
    // An abandoned thread ends when the resolver returns, or with this process.
    drop(Thread::start(STACK_BYTES, resolve)?);
    let (answer, given) = &*shared;
    let mut answer = lock(answer);
    loop {
        match answer.take() {
            Some(found) => return found.map_err(unresolved),
            None => {
                let left = until.left()?.unwrap_or(Duration::MAX);
                answer = given.wait_timeout(answer, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Explains the resolver's error code. Input: see [`sys::look_up`].
/// Source: RFC 3493, section 6.1; the meaning of each in glibc 2.36 and musl 1.2.
fn unresolved(code: i32) -> io::Error {
    let (why, hint) = match code {
        libc::EAI_NONAME => ("no such name", "check the name; the name server does not know it"),
        libc::EAI_NODATA | EAI_ADDRFAMILY => ("this name has no address", "check the name, and its entry in the DNS"),
        libc::EAI_AGAIN => (
            "no answer from the name server, or only that it cannot say now",
            "is the one in /etc/resolv.conf reachable?",
        ),
        libc::EAI_FAIL => ("the name server refused to answer", "may this machine ask the one in /etc/resolv.conf?"),
        errno @ 1.. => return io::Error::from_raw_os_error(errno),
        _ => ("the name could not be looked up", ""),
    };
    io::Error::other(Unresolved(why, hint))
}

/// glibc: the name has addresses, but of no requested family.
const EAI_ADDRFAMILY: i32 = -9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::deadline::Wait;
    use std::time::Instant;

    fn soon() -> Until {
        Until::new(Instant::now().checked_add(Duration::from_secs(20)), Wait::Connect)
    }

    #[test]
    fn this_machine_and_addresses_are_not_asked_for() {
        let ours = vec!["127.0.0.1:5000".parse().unwrap(), "[::1]:5000".parse().unwrap()];
        for host in ["localhost", "LocalHost", "localhost.", "a.localhost", "x.y.LOCALHOST."] {
            assert_eq!(look_up(host, 5000, soon()).unwrap(), ours, "{host}");
        }
        for (host, address) in [("[::1]", "[::1]:5000"), ("10.1.2.3", "10.1.2.3:5000"), ("0x7f.1", "127.0.0.1:5000")] {
            assert_eq!(look_up(host, 5000, soon()).unwrap(), [address.parse().unwrap()], "{host}");
        }
    }

    #[test]
    fn each_answer_of_the_resolver_has_its_words() {
        for (code, words) in [
            (libc::EAI_NONAME, "no such name"),
            (libc::EAI_NODATA, "no address"),
            (-9, "no address"),
            (libc::EAI_AGAIN, "no answer from the name server"),
            (libc::EAI_FAIL, "refused"),
            (libc::EAI_MEMORY, "could not be looked up"),
            (libc::EMFILE, "Too many open files"),
        ] {
            assert!(unresolved(code).to_string().contains(words), "{code}");
        }
    }

    /// The resolver needs no name server for an address.
    #[test]
    fn an_answer_is_waited_for_no_longer_than_it_takes() {
        let begun = Instant::now();
        let until = Until::new(begun.checked_add(Duration::from_secs(120)), Wait::Connect);
        assert_eq!(ask("127.0.0.1", until).unwrap(), ["127.0.0.1:0".parse().unwrap()]);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }

    #[test]
    fn no_time_no_answer() {
        let start = Instant::now();
        assert_eq!(
            look_up("r.invalid", 1, Until::new(Some(start), Wait::Connect)).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
