//! The loopback ports of processes: one each, kept while the pod lives.
//!
//! They lie below the range from which Linux takes the ports of outgoing connections (32768 and up, unless configured otherwise), so
//! that no connection of a busy proxy sits on a pod's port while its process is being restarted.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt as _;

/// The ports that are taken. A cheap handle: every clone sees the same ones.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

/// A port that is taken; dropping it gives it back.
#[derive(Debug)]
pub struct Port {
    number: u16,
    ports: Ports,
}

impl Ports {
    /// Takes a port nobody listens on. The search begins at a random place, so that programs side by side rarely meet.
    ///
    /// # Errors
    /// When none of the range is free.
    pub fn take(&self) -> io::Result<Port> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let start = rand::rng().random_range(RANGE);
        let free = (start..RANGE.end)
            .chain(RANGE.start..start)
            .find(|port| !taken.contains(port) && is_free(*port));
        let number = free.ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))?;
        taken.insert(number);
        Ok(Port {
            number,
            ports: self.clone(),
        })
    }
}

impl Port {
    /// The port.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Whether a process could listen on it now.
    pub fn is_free(&self) -> bool {
        is_free(self.number)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Where ports are taken from.
const RANGE: Range<u16> = 20_000..32_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_to_one_at_a_time() {
        let ports = Ports::default();
        let held: Vec<_> = (0..50).map(|_| ports.take().unwrap()).collect();
        let numbers: BTreeSet<_> = held.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), held.len());
        drop(held);
        assert!(ports.taken.lock().unwrap().is_empty());
    }
}
