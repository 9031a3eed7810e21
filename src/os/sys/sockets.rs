//! Sockets and name look-up; waits are bounded.

use super::call::check;
use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects to a Unix socket.
/// Input: `limit`: how long to wait for a socket that does not accept, and then for each write.
/// Errors: WouldBlock: it does not accept.
pub fn connect_unix(path: &Path, limit: std::time::Duration) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: plain old data, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte stays zero as the terminator.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: plain values.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor without another owner.
    let stream = unsafe { UnixStream::from_raw_fd(socket) };
    // Source: unix(7) and socket(7): SO_SNDTIMEO applies to connect as well.
    stream.set_write_timeout(Some(limit))?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address outlives the call, and `length` is its own.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(stream)
}

/// Asks the resolver for a host's addresses, without a time limit. Their port is 0.
/// Errors: its code, which is negative (getaddrinfo(3)); a positive one is an errno.
pub fn look_up(host: &str) -> std::result::Result<Vec<SocketAddr>, libc::c_int> {
    let host = CString::new(host).map_err(|_| libc::EAI_NONAME)?;
    // SAFETY: plain old data, for which zero is a value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = std::ptr::null_mut();
    // SAFETY: a NUL-terminated string and hints that outlive the call; null is allowed for the service.
    match unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) } {
        0 => {}
        libc::EAI_SYSTEM => return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        code => return Err(code),
    }
    let (mut found, mut next) = (Vec::new(), list);
    // SAFETY: each entry lives until the list is freed, and the last one's link is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        match entry.ai_family {
            // SAFETY: the family determines the type of the address.
            libc::AF_INET => {
                let at = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                found.push((Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr)), 0).into());
            }
            // SAFETY: as above.
            libc::AF_INET6 => {
                let at = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                found.push(SocketAddrV6::new(at.sin6_addr.s6_addr.into(), 0, 0, at.sin6_scope_id).into());
            }
            _ => {}
        }
    }
    // SAFETY: the list is from getaddrinfo, and no longer used.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}
