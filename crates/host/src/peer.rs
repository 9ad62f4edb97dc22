//! Who we are, and who is at the other end of a Unix socket.
//!
//! Takes no lock.

use std::io;
use std::os::fd::AsFd;

/// Our effective user ID.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user ID that the peer of a connected Unix socket had when it connected.
///
/// # Errors
/// Where the socket is no connected Unix socket.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_ends_of_a_pair_are_ours() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&one).unwrap(), own_uid());
    }

    #[test]
    fn a_file_has_no_peer() {
        assert!(peer_uid(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
