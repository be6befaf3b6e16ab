//! Starts the engine as configured, and logs what it is able to do.

use std::sync::Arc;

use libgeneve::flow::{FlowLimits, Timeouts};
use rtnetlink::Handle;

use crate::config::file::{IoSetting, SegmentationSetting};
use crate::config::settings::{self, DaemonSettings};
use crate::io::{Engine, EngineConfig, IoChoice, TunnelDevice};
use crate::net;
use crate::net::underlay_monitor::UnderlayMonitor;
use crate::random::HashKeys;
use crate::refusal::Refusal;

/// Starts the workers, which follow the underlay of the daemon's own namespace.
///
/// # Errors
/// Why they cannot be started.
pub(super) async fn start(
    settings: &DaemonSettings,
    underlay: &UnderlayMonitor,
    keys: &HashKeys,
) -> Result<Engine, Refusal> {
    let config = EngineConfig {
        limits: FlowLimits {
            flows: settings.flows,
            timeouts: timeouts(&settings.timeouts),
        },
        key: keys.of("flow table"),
        underlay: Arc::clone(&underlay.generation),
        io: match settings.io {
            IoSetting::Auto => IoChoice::Auto,
            IoSetting::IoUring => IoChoice::IoUring,
            IoSetting::Syscalls => IoChoice::Syscalls,
        },
        workers: settings.workers.into(),
        segmentation: match settings.segmentation {
            SegmentationSetting::Auto => crate::io::Segmentation::Auto,
            SegmentationSetting::Tunnel => crate::io::Segmentation::Tunnel,
            SegmentationSetting::Off => crate::io::Segmentation::Off,
            SegmentationSetting::Gso => crate::io::Segmentation::Gso,
        },
    };
    let tunnel = tunnel_device(&config, &underlay.handle).await;
    let engine = Engine::start(&config, tunnel).map_err(|e| Refusal::new(e.to_string(), ""))?;
    announce(&engine);
    Ok(engine)
}

/// Opens the device for tunnel GSO, or says why there is none.
async fn tunnel_device(config: &EngineConfig, netlink: &Handle) -> Result<TunnelDevice, String> {
    let device = TunnelDevice::new(config.segmentation, config.workers)?;
    match net::gso_device::set_up(netlink, device.name()).await {
        Ok(mac) => Ok(device.ready(mac)),
        Err(error) => Err(format!(
            "forwarding cannot be switched on for the device {}: {error}",
            device.name()
        )),
    }
}

fn announce(engine: &Engine) {
    let report = engine.backend();
    let io = report.backend.name();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        io,
        cause = report.cause,
        workers = engine.workers(),
        "geneved {} starts with {} ({}), workers {}",
        env!("CARGO_PKG_VERSION"),
        io,
        report.cause,
        engine.workers()
    );
    for feature in report.features.iter().filter(|f| !f.available) {
        let name = feature.kind.name();
        tracing::warn!(
            feature = name,
            detail = feature.detail,
            "{name} is missing on this host: {}",
            feature.detail
        );
    }
}

fn timeouts(seconds: &settings::TimeoutSettings) -> Timeouts {
    let of = |seconds: u32| std::time::Duration::from_secs(seconds.into());
    Timeouts {
        syn: of(seconds.syn),
        syn_ack: of(seconds.syn_ack),
        established: of(seconds.established),
        fin: of(seconds.fin),
        closed: of(seconds.closed),
        udp: of(seconds.udp),
        udp_replied: of(seconds.udp_replied),
        icmp: of(seconds.icmp),
        other: of(seconds.other),
        refused: of(seconds.refused),
    }
}
