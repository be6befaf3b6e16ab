//! `geneved capture`: packets as a pcapng file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libgeneve::drop::DropReason;
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};

use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, wrong};
use super::output;
use super::supported_options::SupportedOptions;
use crate::config::value::{DirectionValue, IfName};
use crate::control::protocol::{CaptureArgs, CaptureReply, CapturedPacket, Request};
use crate::plural::counted;

#[derive(Default)]
struct CaptureCommand {
    capture: CaptureArgs,
    inner: bool,
    count: Option<u32>,
    snaplen: Option<u32>,
    write: Option<String>,
}

type CaptureKeyword = Keyword<CaptureCommand>;

const CAPTURE_KEYWORDS: [CaptureKeyword; 12] = [
    key!(CaptureCommand; "dev", "LINK", capture.filter.dev),
    flag!(CaptureCommand; "inner", inner = true).at_most_one(1),
    flag!(CaptureCommand; "outer", capture.outer = true).at_most_one(1),
    flag!(CaptureCommand; "dropped", capture.dropped = true),
    key!(CaptureCommand; "from", "PREFIX", capture.filter.from),
    key!(CaptureCommand; "to", "PREFIX", capture.filter.to),
    key!(CaptureCommand; "proto", "PROTO", capture.filter.proto),
    key!(CaptureCommand; "sport", "PORT", capture.filter.sport),
    key!(CaptureCommand; "dport", "PORT", capture.filter.dport),
    key!(CaptureCommand; "count", "N", count),
    key!(CaptureCommand; "snaplen", "N", snaplen),
    CaptureKeyword::value(&["write"], "{ FILE | - }", |w, v| {
        w.write = Some(v.to_owned());
        Ok(())
    }),
];

/// The command.
pub const CAPTURE_COMMAND: GlobalCommand = GlobalCommand {
    name: "capture",
    about: "packets as a pcapng file, with the reason of a drop as comment",
    command: CommandDef::new(&["capture"], run, || grammar::words(&CAPTURE_KEYWORDS))
        .honouring_only(SupportedOptions::SOCKET),
    notes: "PROTO := { tcp | udp | icmp | icmpv6 | sctp | N }\nPackets of both directions of such flows are captured.",
};

/// Writes packets until the requested count is reached, or until interrupted.
fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = CaptureCommand::default();
    grammar::parse(&CAPTURE_KEYWORDS, words, &mut wanted)?;
    if wanted.count == Some(0) {
        return Err(wrong("0", "at least 1; without \"count\" there is no end"));
    }
    let capture = CaptureArgs {
        count: wanted.count.unwrap_or(0).into(),
        snaplen: wanted.snaplen.unwrap_or(0),
        ..wanted.capture
    };
    let path = wanted.write.as_deref().unwrap_or("-");
    let failed = |error: io::Error| CliError::Refused(format!("Error: {path}: {error}"));
    let snaplen = capture.snaplen;
    let request = Request::Capture { capture };
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    let blocked = signals.thread_block().map_err(io::Error::from);
    let watched = blocked.and_then(|()| {
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(io::Error::from)
    });
    let stop = watched.map_err(failed)?;
    let client = context.client()?;
    if path == "-" && io::stdout().is_terminal() {
        return Err(wrong(
            "-",
            "packets are not for a terminal: name a file with \"write\", or pipe them into \"tshark -r -\"",
        ));
    }
    let begin = || {
        let out: Box<dyn Write> = match path {
            "-" => Box::new(io::stdout().lock()),
            file => Box::new(File::create(file)?),
        };
        PcapngFile::new(BufWriter::new(out), snaplen)
    };
    // Created late, so that an existing file is not lost if the daemon refuses.
    let mut file: Option<PcapngFile<_>> = None;
    let mut broken = None;
    let stdout = io::stdout();
    let mut stops = vec![(stop.as_fd(), PollFlags::POLLIN)];
    if path == "-" {
        // Detects that the reader has hung up even if no packet comes.
        stops.push((stdout.as_fd(), PollFlags::empty()));
    }
    let outcome = client.follow(&request, &stops, |reply| {
        let captured = serde_json::from_value::<CaptureReply>(reply).map_err(io::Error::other);
        let written = captured.and_then(|captured| match &mut file {
            Some(file) => file.add(&captured),
            // The first reply tells that the capture has started.
            none => {
                let begun = none.insert(begin()?);
                output::tell("capturing, until interrupted");
                begun.add(&captured)
            }
        });
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    let closed = file.as_mut().map(|file| {
        let closed = file.close();
        eprintln!(
            "{} captured, {} found no room",
            counted(file.packets, "packet"),
            file.lost
        );
        closed
    });
    outcome?;
    match broken.or(closed.and_then(Result::err)) {
        // The reader of the pipe has closed it.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(failed(error)),
        None => Ok(()),
    }
}

/// Writer of a pcapng file.
struct PcapngFile<W: Write> {
    writer: PcapNgWriter<W>,
    snaplen: u32,
    /// Interface IDs in the file, by link, for inner and for underlay packets.
    interfaces: HashMap<(Option<IfName>, bool, bool), u32>,
    packets: u64,
    lost: u64,
}

fn broken(error: pcap_file::PcapError) -> io::Error {
    match error {
        pcap_file::PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl<W: Write> PcapngFile<W> {
    fn new(out: W, snaplen: u32) -> io::Result<Self> {
        let program = format!("geneved {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let mut capture = PcapngFile {
            writer: PcapNgWriter::with_section_header(out, section).map_err(broken)?,
            snaplen,
            interfaces: HashMap::new(),
            packets: 0,
            lost: 0,
        };
        // The reader of a pipe wants to see packets at once.
        capture.flush()?;
        Ok(capture)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    fn add(&mut self, captured: &CaptureReply) -> io::Result<()> {
        self.lost += captured.lost;
        for packet in &captured.packets {
            self.packet(packet)?;
        }
        self.flush()
    }

    /// Returns the interface ID of a packet; writes the interface's description when its first packet comes.
    fn interface(&mut self, packet: &CapturedPacket) -> io::Result<u32> {
        let key = (packet.dev.clone(), packet.outer, packet.ethernet);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let name = match (&key.0, packet.outer) {
            (Some(dev), false) => dev.to_string(),
            (Some(dev), true) => format!("underlay of {dev}"),
            (None, _) => "underlay".to_owned(),
        };
        const NANOSECONDS: u8 = 9;
        let block = InterfaceDescriptionBlock {
            linktype: match packet.ethernet {
                true => DataLink::ETHERNET,
                false => DataLink::RAW,
            },
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(broken)?;
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.insert(key, number);
        Ok(number)
    }

    fn packet(&mut self, packet: &CapturedPacket) -> io::Result<()> {
        const INBOUND: u32 = 1;
        const OUTBOUND: u32 = 2;
        let interface_id = self.interface(packet)?;
        let data = STANDARD.decode(&packet.data).map_err(io::Error::other)?;
        let mut options = vec![EnhancedPacketOption::Flags(match packet.direction {
            DirectionValue::Ingress => INBOUND,
            DirectionValue::Egress => OUTBOUND,
        })];
        if let Some(reason) = &packet.reason {
            let vni = outer_vni(&data).filter(|_| packet.outer);
            options.push(EnhancedPacketOption::Comment(
                comment(reason, vni, packet.packets).into(),
            ));
        }
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(packet.time_ns),
            original_len: packet.length,
            data: Cow::Owned(data),
            options,
        };
        self.writer.write_pcapng_block(block).map_err(broken)?;
        self.packets += 1;
        Ok(())
    }

    /// Records how many packets were lost.
    fn close(&mut self) -> io::Result<()> {
        if !self.interfaces.is_empty() {
            let block = InterfaceStatisticsBlock {
                interface_id: 0,
                timestamp: 0,
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(self.packets + self.lost),
                    InterfaceStatisticsOption::IsbIfDrop(self.lost),
                ],
            };
            self.writer.write_pcapng_block(block).map_err(broken)?;
        }
        self.flush()
    }
}

/// VNI of an underlay packet; Geneve and VXLAN have it at the same offset after the UDP header.
fn outer_vni(packet: &[u8]) -> Option<u32> {
    const UDP: usize = 8;
    const VNI: usize = 4;
    let ip = match packet.first()? >> 4 {
        4 => usize::from(packet[0] & 0xf) * 4,
        _ => 40,
    };
    let bytes = packet.get(ip + UDP + VNI..ip + UDP + VNI + 3)?;
    Some(
        bytes
            .iter()
            .fold(0, |vni, byte| vni << 8 | u32::from(*byte)),
    )
}

/// Comment on a dropped packet, for human readers.
fn comment(reason: &str, vni: Option<u32>, packets: u32) -> String {
    let known = DropReason::ALL.iter().find(|r| r.name() == reason);
    let reason = match (known, vni) {
        (Some(DropReason::UnknownVni), Some(vni)) => format!("{reason} {vni}"),
        _ => reason.to_owned(),
    };
    let explained = known.map_or("", |r| r.explanation());
    let of = match packets {
        0 | 1 => String::new(),
        many => format!(" ({many} packets on the wire)"),
    };
    format!("dropped: {reason}{of}: {explained}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vni_without_a_link_is_named() {
        let geneve = [0, 0, 0x65, 0x58, 0x00, 0x10, 0x92, 0];
        for (version, ip) in [(0x45, 20), (0x60, 40)] {
            let mut packet = vec![0; ip + 8];
            packet[0] = version;
            packet.extend_from_slice(&geneve);
            let vni = outer_vni(&packet);
            assert_eq!(vni, Some(4242));
            let said = comment("unknown-vni", vni, 1);
            assert!(said.starts_with("dropped: unknown-vni 4242: "), "{said}");
            assert_eq!(outer_vni(&packet[..ip + 12]), None);
        }
        let said = comment("unknown-host", Some(4242), 3);
        assert!(
            said.starts_with("dropped: unknown-host (3 packets on the wire): "),
            "{said}"
        );
    }
}
