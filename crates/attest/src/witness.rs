//! The witness connection: how the kernel vouches for the key of a session.
//!
//! A daemon tells its token processes for whom a share is to be wrapped. One that lies would name a key of its own. So an agent opens,
//! beside its gRPC connection, a second one on which it writes a single message, the hashes of its session's public keys, and which the
//! daemon never reads but hands on. A token process that receives the descriptor *looks* at the message (`MSG_PEEK`: every custodian can)
//! and asks the kernel who connected. Bytes in that queue can only have come from the other end, and credentials and pidfd are those
//! of the process that opened it: a daemon can forge neither, unless it runs as the agent's user or may trace its processes.
//!
//! What that does not cover: a service of the agent's own user that listens on a Unix socket and sends whatever is asked of it could be
//! used as an agent's pen. The agent listens on no such socket.

use std::os::fd::{AsFd, AsRawFd};

use custody::witness::{WITNESS_BYTES, WitnessedKeys};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::refused::Refused;

/// What waits on a witness connection, and stays there for others to look at.
///
/// # Errors
/// [`Refused::WitnessMalformed`], also while the message is not complete.
pub fn peek(socket: impl AsFd) -> Result<WitnessedKeys, Refused> {
    // One byte more, so that a longer message is not taken for ours.
    let mut message = [0; WITNESS_BYTES + 1];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    loop {
        match recv(socket.as_fd().as_raw_fd(), &mut message, flags) {
            Err(Errno::EINTR) => {}
            Err(_) => return Err(Refused::WitnessMalformed),
            Ok(read) => {
                return WitnessedKeys::parse(&message[..read]).ok_or(Refused::WitnessMalformed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_an_agent_writes_can_be_looked_at_again_and_again() {
        let (mut agent, daemon) = UnixStream::pair().unwrap();
        assert_eq!(peek(&daemon), Err(Refused::WitnessMalformed), "nothing yet");
        let keys = WitnessedKeys::of(b"point", b"");
        agent.write_all(&keys.message()).unwrap();
        for _custodian in 0..3 {
            let seen = peek(&daemon).unwrap();
            assert_eq!(seen, keys);
            assert!(seen.covers(b"point"));
            assert!(!seen.covers(b"a daemon's own point"));
            assert!(!seen.covers(b""));
        }
        assert!(WitnessedKeys::of(b"point", b"der").covers(b"der"));
    }

    #[test]
    fn a_longer_shorter_or_other_message_vouches_for_nothing() {
        let good = WitnessedKeys::of(b"point", b"der").message();
        let mut other = good;
        other[15] = b'2';
        for bad in [&good[..79], &[good.as_slice(), b"x"].concat(), &other, b""] {
            let (mut agent, daemon) = UnixStream::pair().unwrap();
            agent.write_all(bad).unwrap();
            assert_eq!(peek(&daemon), Err(Refused::WitnessMalformed));
        }
    }
}
