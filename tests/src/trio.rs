//! Three hosts on one segment, and TCP conversations between them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use geneved::lab::netns::{self, LabNetns};

use crate::world::{TestBackend, TestDaemon, TestWorld};

/// Hosts a, b and c at 192.0.2.1, .2 and .3, joined by a bridge.
pub struct Trio {
    /// Host a, b and c.
    pub hosts: [LabNetns; 3],
    _switch: LabNetns,
    /// Dropped last.
    pub world: TestWorld,
}

impl Trio {
    /// Creates them, with an underlay MTU of 1500.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let world = TestWorld::new();
        let hosts = ["a", "b", "c"].map(|name| world.host(name));
        let switch = world.host("switch");
        switch.ip("link add br0 type bridge").expect("a bridge");
        switch.ip("link set br0 up").expect("a bridge comes up");
        for (number, host) in hosts.iter().enumerate() {
            let port = format!("p{number}");
            let address = format!("192.0.2.{}/24", number + 1);
            netns::veth((host, "u0", &[&address]), (&switch, &port, &[]), 1500)
                .expect("a veth can be made");
            let join = format!("link set {port} master br0");
            switch.ip(&join).expect("a port joins");
        }
        Trio {
            hosts,
            _switch: switch,
            world,
        }
    }

    /// Starts a daemon on each host, with these tables.
    #[must_use]
    pub fn daemons(&self, io: TestBackend, daemon: &str, tables: [&str; 3]) -> [TestDaemon; 3] {
        let start = |at: usize| self.world.daemon(&self.hosts[at], io, daemon, tables[at]);
        [start(0), start(1), start(2)]
    }
}

/// TCP server that greets each connection with its name, and then echoes.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens in the namespace of `host` on all addresses of both families.
    ///
    /// # Panics
    /// If the port is taken.
    #[must_use]
    pub fn start(host: &LabNetns, port: u16, name: &str) -> Self {
        let listen = move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = host.netns().run(listen).unwrap().expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let name = name.clone();
                        std::thread::spawn(move || echo(stream, &name));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        EchoServer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream, name: &str) {
    // The greeting contains the client's address as the server sees it, which shows NAT.
    let peer = stream
        .peer_addr()
        .map(|a| SocketAddr::new(a.ip().to_canonical(), a.port()).to_string())
        .unwrap_or_default();
    let greeting = format!("{name} {peer}\n");
    if stream.set_nonblocking(false).is_err() || stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..len]).is_err() {
            return;
        }
    }
}

/// One connection to an [`EchoServer`] server.
pub struct EchoConnection {
    stream: TcpStream,
    /// The server's name.
    pub server: String,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
}

impl EchoConnection {
    /// Connects from the namespace of `host`, and reads the greeting.
    ///
    /// # Errors
    /// If there is no reply within two seconds, or the connection is refused.
    ///
    /// # Panics
    /// If the greeting is malformed.
    pub fn open(host: &LabNetns, to: &str) -> std::io::Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let to: SocketAddr = to.parse().expect("an address");
        let connect = move || TcpStream::connect_timeout(&to, PATIENCE);
        let mut stream = host.netns().run(connect)??;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut greeting = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte)?;
            greeting.push(byte[0]);
        }
        let greeting = String::from_utf8(greeting).expect("text");
        let (server, seen) = greeting.trim().split_once(' ').expect("two words");
        Ok(EchoConnection {
            server: server.to_owned(),
            seen: seen.parse().expect("an address"),
            stream,
        })
    }

    /// Whether a few bytes are echoed within `time`.
    pub fn echoes(&mut self, time: Duration) -> bool {
        let mut back = [0; 5];
        let _ = self.stream.set_read_timeout(Some(time));
        self.stream.write_all(b"hello").is_ok() && self.stream.read_exact(&mut back).is_ok()
    }

    /// Whether `len` bytes are echoed unchanged.
    pub fn carries(&mut self, len: usize) -> bool {
        let sent: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        let mut writer = self.stream.try_clone().expect("a second handle");
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).is_ok());
        let mut back = vec![0; len];
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(5)));
        let read = self.stream.read_exact(&mut back).is_ok();
        writing.join().unwrap_or(false) && read && back == sent
    }

    /// Returns the client's local address.
    ///
    /// # Panics
    /// If the socket has none.
    #[must_use]
    pub fn own(&self) -> IpAddr {
        self.stream.local_addr().expect("connected").ip()
    }
}

/// Formats an `[[endpoint]]` table; `more` is further lines.
#[must_use]
pub fn endpoint(link: &str, address: &str, host: Option<&str>, more: &str) -> String {
    let place = host.map_or_else(
        || "local = true".to_owned(),
        |host| format!("host = [\"{host}\"]"),
    );
    format!("[[endpoint]]\naddress = \"{address}\"\ndev = \"{link}\"\n{place}\n{more}\n")
}
