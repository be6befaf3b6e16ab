//! Misbehaving clients of the control socket and of the metrics socket.

use super::actor::{Actor, ActorContext};
use super::hosts::SoakHosts;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CALL: &[u8] = b"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{}}\0";

/// Actor that connects to hosts a and b in turn.
pub struct Clients {
    hosts: Arc<SoakHosts>,
}

impl Clients {
    /// Returns the actor for these hosts.
    pub fn actor(hosts: &Arc<SoakHosts>) -> Box<dyn Actor> {
        Box::new(Self {
            hosts: Arc::clone(hosts),
        })
    }
}

impl Actor for Clients {
    fn name(&self) -> String {
        "hostile clients".to_owned()
    }

    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        let side = cx.rng.usize(..2);
        let site = self.hosts.site(side);
        let (control, metrics) = (site.socket(), self.hosts.metrics(side));
        // A connection may be refused while the daemon is busy or stopped.
        let open = |path| {
            let stream: UnixStream = UnixStream::connect(path).ok()?;
            stream
                .set_write_timeout(Some(Duration::from_millis(200)))
                .ok()?;
            Some(stream)
        };
        let held = Duration::from_millis(cx.rng.u64(10..500));
        match cx.rng.u8(..8) {
            0 => {
                let len = cx.rng.usize(1..4096);
                let noise: Vec<u8> = std::iter::repeat_with(|| cx.rng.u8(..)).take(len).collect();
                let _ = open(&control).map(|mut stream| stream.write_all(&noise));
            }
            1 => {
                let mut half = open(&control);
                let _ = half
                    .as_mut()
                    .map(|stream| stream.write_all(&CALL[..cx.rng.usize(1..CALL.len())]));
                cx.gate.pause(held);
            }
            2 => {
                // Does not read the replies.
                let mut ahead = open(&control);
                let _ = ahead
                    .as_mut()
                    .map(|stream| stream.write_all(&CALL.repeat(500)));
                cx.gate.pause(held);
            }
            3 => {
                let idle: Vec<_> = (0..50).map_while(|_| open(&control)).collect();
                cx.gate.pause(held);
                drop(idle);
            }
            4 => {
                let endless = vec![b'x'; 5 << 20];
                let _ = open(&control).map(|mut stream| stream.write_all(&endless));
            }
            5 => {
                let scrapers: Vec<_> = (0..20).map_while(|_| open(&metrics)).collect();
                for mut scraper in &scrapers {
                    let _ =
                        scraper.write_all(&b"GET /metrics HTTP/1.1\r\n\r\n"[..cx.rng.usize(..25)]);
                }
                cx.gate.pause(held);
            }
            // Starts to watch or capture, and then stops reading.
            choice => {
                let words: &[&str] = if choice == 6 {
                    &["monitor"]
                } else {
                    &["capture", "dev", "gp"]
                };
                let child = Command::new(&site.binary)
                    .arg("--socket")
                    .arg(&control)
                    .args(words)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn();
                let mut child = child.map_err(|error| error.to_string())?;
                cx.gate.pause(held);
                let pid = Pid::from_raw(child.id().cast_signed());
                let _ = kill(pid, Signal::SIGSTOP);
                cx.gate.pause(Duration::from_millis(cx.rng.u64(..1500)));
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        cx.gate.pause(Duration::from_millis(20));
        Ok(1)
    }
}
