//! Command line of the benchmark.

use crate::measure::Measure;
use crate::tunnel::Tunnel;
use crate::underlay::VethKind;
use std::path::PathBuf;
use std::time::Duration;

const BENCH_HELP: &str = "\
bench [OPTIONS]: geneved beside the kernel's VXLAN device; needs root, iproute2, ethtool, iperf3
bench soak [OPTIONS]: a long run under everything at once; `bench soak --help` says more
bench change [OPTIONS]: what one change costs beside many links; `bench change --help` says more
  --quick               1.5 s for each measurement and 2 rounds (else 3 s and 3 rounds)
  --rounds N            how many rounds
  --seconds S           length of each throughput measurement
  --geneved PATH        the binary (default: target/release/geneved beside this program)
  --tunnel LIST         of geneved, geneved-io_uring, geneved-syscalls, geneved-ethernet (mode
                        ethernet), geneved-frames (inner ethernet), geneved-vxlan, geneved-functions
                        (1,000 rules, labels, a class, source NAT), vxlan (the kernel's), copy (the
                        least that user space can do: no encapsulation, packets are only copied),
                        raw, or NAME=PATH for another geneved binary (default: geneved,vxlan)
  --base NAME           the tunnel that the others are compared with (default: vxlan)
  --underlay LIST       of veth, wire, nic (default: all)
  --only LIST           of tcp1, tcp4, udp64, udp1300, iperf64, pingpong, idle (default: all)
  --daemon 'KEY = VAL'  a further line for the daemon's [daemon] table; may be repeated
  --link 'KEY = VAL'    a further line for the [[link]] table; may be repeated
  --outer 4|6           address family of the underlay (default 4)
  --inner 4|6           address family of the overlay (default 4)
  --mtu N               overlay MTU of every tunnel (default 1400)
  --underlay-mtu N      MTU of the veth (default 1500)
  --json FILE           every single value, for other programs";

/// Parsed arguments.
pub struct BenchArguments {
    pub rounds: usize,
    pub duration: Duration,
    pub geneved: PathBuf,
    pub tunnels: Vec<Tunnel>,
    pub base: String,
    pub underlays: Vec<VethKind>,
    pub measures: Vec<Measure>,
    pub daemon_lines: Vec<String>,
    pub link_lines: Vec<String>,
    pub outer6: bool,
    pub inner6: bool,
    pub mtu: u32,
    pub underlay_mtu: u32,
    pub json: Option<PathBuf>,
}

impl BenchArguments {
    /// Parses the command line; the error is the text to print.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            rounds: 3,
            duration: Duration::from_secs(3),
            geneved: beside_this_program(),
            tunnels: vec![Tunnel::parse("geneved")?, Tunnel::parse("vxlan")?],
            base: "vxlan".to_owned(),
            underlays: VethKind::ALL.to_vec(),
            measures: Measure::ALL.to_vec(),
            daemon_lines: Vec::new(),
            link_lines: Vec::new(),
            outer6: false,
            inner6: false,
            mtu: 1400,
            underlay_mtu: 1500,
            json: None,
        };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value\n{BENCH_HELP}"))
            };
            match word.as_str() {
                "--quick" => {
                    arguments.rounds = 2;
                    arguments.duration = Duration::from_millis(1500);
                }
                "--rounds" => arguments.rounds = number(&value()?)?,
                "--seconds" => {
                    let seconds = number(&value()?)?;
                    arguments.duration =
                        Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
                }
                "--geneved" => arguments.geneved = value()?.into(),
                "--tunnel" => arguments.tunnels = list(&value()?, Tunnel::parse)?,
                "--base" => arguments.base = value()?,
                "--underlay" => arguments.underlays = list(&value()?, VethKind::parse)?,
                "--only" => arguments.measures = list(&value()?, Measure::parse)?,
                "--daemon" => arguments.daemon_lines.push(value()?),
                "--link" => arguments.link_lines.push(value()?),
                "--outer" => arguments.outer6 = value()? == "6",
                "--inner" => arguments.inner6 = value()? == "6",
                "--mtu" => arguments.mtu = number(&value()?)?,
                "--underlay-mtu" => arguments.underlay_mtu = number(&value()?)?,
                "--json" => arguments.json = Some(value()?.into()),
                _ => return Err(BENCH_HELP.to_owned()),
            }
        }
        Ok(arguments)
    }
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(parse).collect()
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number\n{BENCH_HELP}"))
}

/// Path of the daemon from the same build.
pub fn beside_this_program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("geneved")
}
