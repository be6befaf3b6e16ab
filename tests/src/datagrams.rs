//! UDP requests and replies, for what TCP does not show: fragments, ICMP errors, port exhaustion.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use geneved::lab::netns::LabNetns;

/// UDP server that answers each datagram with its source address, a line feed, and the datagram itself.
pub struct Reflector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// Listens in the namespace of `host` on all addresses of both families.
    ///
    /// # Panics
    /// If the port is taken.
    #[must_use]
    pub fn start(host: &LabNetns, port: u16) -> Self {
        let bind = move || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
        let socket = host.netns().run(bind).unwrap().expect("a free port");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let seen = SocketAddr::new(from.ip().to_canonical(), from.port());
                    let answer = [format!("{seen}\n").as_bytes(), &buffer[..len]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Reflector {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// UDP client of one [`Reflector`].
pub struct Asker(UdpSocket);

impl Asker {
    /// Opens a socket on `host`, connected to `to`.
    ///
    /// # Panics
    /// If `to` is not an address or the kernel has no route to it.
    #[must_use]
    pub fn new(host: &LabNetns, to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address");
        let connect = move || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            std::io::Result::Ok(socket)
        };
        Asker(host.netns().run(connect).unwrap().expect("a route"))
    }

    /// Returns the socket's local address.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn own(&self) -> SocketAddr {
        self.0.local_addr().expect("it is connected")
    }

    /// Sends a request of `len` bytes. Returns the source address that the reflector saw.
    ///
    /// # Errors
    /// If there is no reply within two seconds, or the kernel reports an ICMP error.
    ///
    /// # Panics
    /// If the reply belongs to another request.
    pub fn ask(&self, len: usize) -> std::io::Result<SocketAddr> {
        let question: Vec<u8> = (0..len).map(|at| (at / 3) as u8 | 0x80).collect();
        self.0.send(&question)?;
        let mut answer = vec![0; len + 100];
        let got = self.0.recv(&mut answer)?;
        let end = answer[..got].iter().position(|&b| b == b'\n');
        let end = end.expect("the answer of a reflector");
        assert!(answer[end + 1..got] == question, "another datagram");
        let seen = std::str::from_utf8(&answer[..end]).expect("text");
        Ok(seen.parse().expect("an address"))
    }

    /// Like [`Asker::ask`], for a request that must be answered.
    ///
    /// # Panics
    /// If there is no reply.
    #[must_use]
    pub fn seen(&self, len: usize) -> SocketAddr {
        let answer = self.ask(len);
        answer.unwrap_or_else(|error| panic!("{len} bytes from {}: {error}", self.own()))
    }

    /// Whether an unsolicited datagram arrives.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.recv(&mut [0; 100]).is_ok()
    }

    /// Whether a request gets no reply at all.
    ///
    /// # Panics
    /// If there is an error instead.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        let wait = Duration::from_millis(400);
        self.0.set_read_timeout(Some(wait)).expect("a timeout");
        match self.ask(8) {
            Ok(_) => false,
            Err(error) => {
                let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(silent, "an error instead of silence: {error}");
                true
            }
        }
    }
}
