//! `bench change`: cost of one configuration change on a daemon with many links, and whether it grows with their
//! number.
//!
//! Each number of links gets its own daemon in its own namespace. A change is timed from the request on the control
//! socket to the reply; the daemon's CPU time is shown too and includes work after the reply.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use geneved::config::args::ObjectChange;
use geneved::control::client::Client;
use geneved::control::protocol::Request;
use geneved::lab::daemon::{DaemonFiles, DaemonProcess};
use geneved::lab::netns::{self, LabNetns};
use nix::time::ClockId;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::arguments::beside_this_program;

const HELP: &str = "\
bench change [OPTIONS]: the time that one change takes beside many links; needs root, iproute2
  --links LIST          how many links there are (default: 10,100,1000)
  --rounds N            how often each change is made (default: 15)
  --geneved PATH        the binary (default: geneved beside this program)";

/// Pause between changes, so that work after a reply is not charged to the next change.
const REST: Duration = Duration::from_millis(150);

struct Arguments {
    links: Vec<u32>,
    rounds: usize,
    geneved: PathBuf,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments {
            links: vec![10, 100, 1000],
            rounds: 15,
            geneved: beside_this_program(),
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(HELP)?;
            let number = |text: &str| text.parse::<u32>().map_err(|_| HELP.to_owned());
            match word.as_str() {
                "--links" => {
                    let links = value.split(',').map(number);
                    arguments.links = links.collect::<Result<_, _>>()?;
                }
                "--rounds" => arguments.rounds = number(&value)?.max(1) as usize,
                "--geneved" => arguments.geneved = value.into(),
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(arguments)
    }
}

/// Runs the benchmark with these arguments.
///
/// # Errors
/// If it cannot be run, or the help was asked for; with the text to print.
pub fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let arguments = Arguments::parse(words)?;
    measure_all(&arguments).map_err(|error| error.to_string())
}

fn measure_all(arguments: &Arguments) -> io::Result<()> {
    netns::prepare()?;
    println!("| links | change | answer, ms: median [lowest - highest] | CPU, ms |");
    println!("|---|---|---|---|");
    for &links in &arguments.links {
        let host = LabNetns::new(&format!("{}-change-{links}", crate::BENCH_PREFIX))?;
        // A new interface would solicit routers for 15 seconds.
        host.sysctl("ipv6/conf/default/accept_ra", "0")?;
        host.ip("link add u0 type veth peer name u1")?;
        host.ip("address add 192.0.2.1/24 dev u0")?;
        host.ip("link set u0 up")?;
        host.ip("link set u1 up")?;
        let site = DaemonFiles {
            binary: arguments.geneved.clone(),
            directory: std::env::temp_dir().join(host.name()),
            name: "geneved".into(),
        };
        let directory = site.directory.clone();
        let daemon = DaemonProcess::start(site, &host, &configuration(links))?;
        let measured = measure(&daemon, links, arguments.rounds);
        daemon.kill()?;
        fs::remove_dir_all(directory)?;
        measured?;
    }
    Ok(())
}

fn configuration(links: u32) -> String {
    (0..links).map(|number| {
        let net = net_of(number);
        let dev = format!("gnv{number}");
        format!(
            "[[link]]\nname = \"{dev}\"\nid = {}\nremote = \"192.0.2.{}\"\naddress = [\"{net}.1/24\"]\n\
             [[endpoint]]\ndev = \"{dev}\"\naddress = \"{net}.7\"\nhost = [\"192.0.2.{}\"]\n\
             [[policy]]\nname = \"ssh\"\ndev = \"{dev}\"\ndirection = \"ingress\"\nproto = \"tcp\"\ndport = \"22\"\naction = \"deny\"\npref = 100\n",
            number + 1,
            2 + number % 200,
            2 + number % 100,
        )
    }).collect()
}

/// Network of a link, without the last octet.
fn net_of(number: u32) -> String {
    format!("10.{}.{}", number / 250, number % 250)
}

/// Kind of change, with the change that reverts it.
struct TimedChange {
    name: &'static str,
    there: Value,
    back: Value,
}

fn kinds(links: u32) -> Vec<TimedChange> {
    let link = json!({
        "name": "fresh", "id": 100_000, "remote": "192.0.2.2", "address": ["10.200.0.1/24"],
    });
    let rule = json!({
        "name": "web", "dev": "gnv0", "direction": "egress", "proto": "tcp", "dport": "80",
        "action": "deny", "pref": 50,
    });
    let endpoint = |host| json!({"address": "10.0.0.7", "dev": "gnv0", "host": [host]});
    let last = format!("gnv{}", links - 1);
    vec![
        TimedChange {
            name: "link",
            there: json!({"verb": "add", "link": link}),
            back: json!({"verb": "del", "link": {"name": "fresh"}}),
        },
        TimedChange {
            name: "rule",
            there: json!({"verb": "add", "policy": rule}),
            back: json!({"verb": "del", "policy": {"name": "web", "dev": "gnv0"}}),
        },
        TimedChange {
            name: "endpoint",
            there: json!({"verb": "set", "endpoint": endpoint("192.0.2.9")}),
            back: json!({"verb": "set", "endpoint": endpoint("192.0.2.2")}),
        },
        TimedChange {
            name: "route",
            there: json!({"verb": "add", "route": {"prefix": "10.250.0.0/16", "dev": last, "via": ["192.0.2.8"]}}),
            back: json!({"verb": "del", "route": {"prefix": "10.250.0.0/16", "dev": last}}),
        },
    ]
}

fn measure(daemon: &DaemonProcess, links: u32, rounds: usize) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let mut client = Client::connect(&daemon.socket()).map_err(|e| failed(&e))?;
    // By then the kernel and the daemon have finished setting up the new interfaces.
    sleep(Duration::from_millis(1500) + Duration::from_millis(2 * u64::from(links)));
    let idle = cpu_of(daemon.pid())?;
    sleep(REST * 10);
    let idle = (cpu_of(daemon.pid())? - idle) / 10;
    for kind in kinds(links) {
        let mut took: [Vec<Duration>; 2] = Default::default();
        let mut busy = [Duration::ZERO; 2];
        for _ in 0..rounds {
            for (at, change) in [&kind.there, &kind.back].into_iter().enumerate() {
                let change: ObjectChange = serde_json::from_value(change.clone())?;
                let changes = vec![change];
                let before = cpu_of(daemon.pid())?;
                let start = Instant::now();
                let applied: Result<Value, _> = client.call(&Request::Apply { changes });
                took[at].push(start.elapsed());
                applied.map_err(|e| failed(&e))?;
                sleep(REST);
                let used = cpu_of(daemon.pid())? - before;
                busy[at] += used.saturating_sub(idle);
            }
        }
        for (at, word) in ["there", "and back"].into_iter().enumerate() {
            let times = &mut took[at];
            times.sort_unstable();
            println!(
                "| {links} | {} {word} | {:.2} [{:.2} - {:.2}] | {:.2} |",
                kind.name,
                millis(times[times.len() / 2]),
                millis(times[0]),
                millis(times[times.len() - 1]),
                millis(busy[at]) / rounds as f64,
            );
        }
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// CPU time of a process, all threads included.
fn cpu_of(pid: u32) -> io::Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()))?;
    Ok(Duration::from(clock.now()?))
}
