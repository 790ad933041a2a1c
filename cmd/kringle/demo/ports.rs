//! Ports for nodes: successive ones that nobody listens on, found by listening.

use std::net::{Ipv4Addr, TcpListener};

/// Goes up from a port, and over those that are taken. None is given out twice.
#[derive(Debug)]
pub(super) struct Ports {
    /// The next to try; `None` past the last there is.
    next: Option<u16>,
}

impl Ports {
    /// Begins with this one.
    pub(super) fn from(base: u16) -> Ports {
        Ports { next: Some(base) }
    }

    /// The next that can be listened on at 127.0.0.1; `None` when there are none left. The listener is closed again, so
    /// somebody may be quicker than the node: who starts it has to cope with that.
    pub(super) fn free(&mut self) -> Option<u16> {
        loop {
            let port = self.next?;
            self.next = port.checked_add(1);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over_and_none_comes_twice() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let base = taken.local_addr().unwrap().port();
        let mut ports = Ports::from(base);
        let (first, second) = (ports.free(), ports.free());
        assert!(first > Some(base), "{first:?} is not above {base}, which is taken");
        assert!(second > first || second.is_none(), "{second:?} after {first:?}");
    }

    #[test]
    fn past_the_last_port_there_is_none() {
        let mut ports = Ports::from(u16::MAX);
        ports.free();
        assert_eq!(ports.free(), None);
    }
}
