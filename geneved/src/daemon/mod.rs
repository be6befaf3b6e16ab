//! The daemon: start-up, shutdown, reload, and the owner of the running state.
//!
//! `core` holds the state and makes changes; `show`, `functions` and `run_until_stopped` tell what runs; [`health`]
//! checks backends; here is the life cycle.

mod backends;
pub mod capability_probe;
mod capture;
mod change_events;
mod compile;
mod core;
mod drop_events;
mod engine;
mod fdb;
mod flows;
mod function_counters;
mod functions;
mod gateway;
pub mod health;
mod kernel_forwarding;
mod link_local;
mod metrics;
mod path_mtu;
mod peer_devices;
pub mod preflight;
mod privilege;
mod rates;
mod reload;
mod routing_loops;
mod rx_interfaces;
mod service_manager;
mod show;
mod termination;
mod trace;
mod undelivered;
mod unreachable;
mod watchdog;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::{StreamExt, stream};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use self::core::{AffectedLinks, Core, host_event};
use self::health::HealthBoard;
use self::termination::Termination;
use self::watchdog::Watchdog;
use crate::config::file::{self, Config, IoSetting};
use crate::config::plan;
use crate::control::protocol::{
    ApplyReply, CallFailure, MonitorReply, RatesReply, Request, SaveReply,
};
use crate::control::server::{
    self, ControlListener, ReplyFuture, ReplyParameters, ReplyStreamFuture, RequestHandler,
};
use crate::control::yielding;
use crate::io::EngineEvent;
use crate::net::netlink_watch::{InterfaceEvent, NetlinkWatch};
use crate::net::port_holder::PortHolder;
use crate::net::underlay_monitor::{UnderlayChanges, UnderlayMonitor};
use crate::observe::log::tell_left_out;
use crate::observe::repeat_filter::tell_repeats;
use crate::observe::scrape::ScrapeListeners;
use crate::plural::counted;
use crate::random::HashKeys;
use crate::refusal::Refusal;

/// Interval of flow upkeep and of reading the log of policy rules.
const FLOW_UPKEEP: std::time::Duration = std::time::Duration::from_secs(1);
/// Time for which interface changes are gathered before they are handled.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(50);
const NO_NETLINK: &str = "cannot talk to the kernel by netlink";
/// Interval at which learned path MTUs are checked for expiry.
const PATH_MTU_REFRESH: std::time::Duration = std::time::Duration::from_secs(5);
/// Interval at which all paths are looked up again: the kernel does not report every change, such as those of nexthop
/// objects.
const WAYS_REFRESH: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs the daemon until SIGTERM or SIGINT. `path` is its configuration; `socket` overrides the control socket named
/// there.
///
/// # Errors
/// Everything that keeps it from starting, one sentence each, with the remedy.
pub fn run(path: &Path, socket: Option<&Path>) -> Result<(), Vec<String>> {
    crate::observe::log::init();
    let done = prepare(path, socket);
    crate::observe::log::finish();
    done
}

fn prepare(path: &Path, socket: Option<&Path>) -> Result<(), Vec<String>> {
    crate::io::bound_heap();
    let mut config = file::load(path)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    if let Some(socket) = socket {
        config.daemon.socket = socket.to_owned();
        config.daemon.socket_is_named = true;
    }
    let fail = |e: Refusal| vec![e.to_string()];
    server::ensure_free(&config.daemon.socket).map_err(fail)?;
    let holders = capability_probe::port_holders(&config.state);
    let watch = NetlinkWatch::open().map_err(|e| vec![format!("{NO_NETLINK}: {e}")])?;
    privilege::drop_privileges(&config.daemon).map_err(fail)?;
    if !config.state.links.is_empty() {
        privilege::ensure_net_admin().map_err(fail)?;
    }
    // The signals must be blocked first: they would kill a process with threads that were started earlier.
    let termination =
        Termination::watch().map_err(|e| vec![format!("cannot watch for signals: {e}")])?;
    crate::observe::log::begin();
    crate::io::raise_limit();
    let path = path.to_owned();
    let live = |config| run_until_stopped(config, path, holders, watch, termination);
    match control_ring(config.daemon.io) {
        Ok(ring) => ring.block_on(live(config)).map_err(fail),
        Err(why) => {
            tracing::info!(cause = why, "the control side runs without io_uring: {why}");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| vec![format!("cannot start the control side: {e}")])?;
            LocalSet::new()
                .block_on(&runtime, live(config))
                .map_err(fail)
        }
    }
}

/// The control side's io_uring, or the reason why there is none.
fn control_ring(choice: IoSetting) -> Result<tokio_uring::Runtime, String> {
    if choice == IoSetting::Syscalls {
        return Err("the configuration asks for plain system calls".into());
    }
    tokio_uring::Runtime::new(tokio_uring::builder().entries(64)).map_err(|e| e.to_string())
}

async fn run_until_stopped(
    config: Config,
    path: PathBuf,
    holders: BTreeMap<u16, PortHolder>,
    watch: NetlinkWatch,
    mut termination: Termination,
) -> Result<(), Refusal> {
    let settings = &config.daemon;
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|e| Refusal::new(format!("cannot watch for signals: {e}"), ""))?;
    let mut underlay =
        UnderlayMonitor::follow().map_err(|e| Refusal::new(format!("{NO_NETLINK}: {e}"), ""))?;
    let netlink = underlay.handle.clone();
    let keys = HashKeys::draw()?;
    let engine = engine::start(settings, &underlay, &keys).await?;
    let mut events = engine.events();
    let socket = settings.socket.clone();
    let (board, mut health) = HealthBoard::new();
    let core = Rc::new(Core::new(
        (engine, keys),
        netlink,
        config.daemon,
        path,
        config.secret,
        board,
        holders,
    ));
    let scrape = ScrapeListeners::bind(
        core.settings().metrics_socket(),
        core.settings().metrics_address(),
    )
    .await?;
    follow_interfaces(&core, watch)?;
    core.follow_devices().await?;
    tokio::task::spawn_local(Rc::clone(&core).follow_errors());
    let plan = core.become_state(config.state).await?;
    let listener = ControlListener::bind(&socket)?;
    let (links, waiting) = (plan.add.len(), core.waiting());
    let waits = match waiting {
        0 => String::new(),
        waiting => format!(" ({waiting} of them waiting)"),
    };
    tracing::info!(
        links,
        waiting,
        socket = %socket.display(),
        "ready: {}{waits}, control socket {}",
        counted(links, "link"),
        socket.display()
    );
    core.service_manager().tell(&[NotifyState::Ready]);
    start_periodic(&core);
    let mut pulse = tokio::time::interval(FLOW_UPKEEP);
    let mut watchdog = Watchdog::default();
    let watched = watchdog::interval();
    let mut watching = tokio::time::interval(watched.unwrap_or(FLOW_UPKEEP));
    watching.reset();
    {
        let mut serving =
            std::pin::pin!(listener.serve(Rc::clone(&core) as Rc<dyn RequestHandler>));
        let mut scraping = std::pin::pin!(scrape.serve(Rc::clone(&core)));
        loop {
            tokio::select! {
                () = &mut serving => {}
                () = &mut scraping => {}
                () = termination.recv() => break,
                _ = hangup.recv() => {
                    let core = Rc::clone(&core);
                    tokio::task::spawn_local(async move { let _ = core.reload().await; });
                }
                Some(changes) = underlay.changed() => {
                    let core = Rc::clone(&core);
                    tokio::task::spawn_local(async move { core.underlay_changed(&changes).await });
                }
                Some(event) = events.recv() => handle_engine_event(&core, event),
                Some(change) = health.recv() => {
                    let core = Rc::clone(&core);
                    tokio::task::spawn_local(async move { core.health_changed(change).await });
                }
                _ = pulse.tick() => {
                    core.engine().wake_idle_workers();
                    core.service_manager().retry();
                    tell_repeats();
                    tell_left_out();
                    core.forget_rates();
                }
                _ = watching.tick(), if watched.is_some() => watchdog.check(&core),
            }
        }
    }
    tracing::info!("stopping");
    core.service_manager().tell(&[NotifyState::Stopping]);
    drop(listener);
    core.shut_down().await;
    Ok(())
}

/// Starts the periodic tasks. Each may wait for a change in progress without holding up the others.
fn start_periodic(core: &Rc<Core>) {
    every(core, PATH_MTU_REFRESH, async |core| {
        core.expire_path_mtus().await;
    });
    every(core, WAYS_REFRESH, async |core| {
        core.underlay_changed(&UnderlayChanges::everything()).await;
    });
    every(core, Core::RETRY, async |core| {
        if core.waiting() > 0 {
            core.retry_links().await;
        }
    });
    every(core, FLOW_UPKEEP, async |core| {
        core.expire_flows().await;
        core.tell_drops().await;
    });
    every(core, FLOW_UPKEEP, async |core| {
        core.look_link_local().await;
        core.probe_neighbors().await;
        core.read_refusals().await;
        core.check_interfaces().await;
        core.tell_undelivered().await;
        core.peer_devices_changed().await;
    });
}

/// Repeats a task every `pause`, the first time after one `pause`.
fn every(core: &Rc<Core>, pause: std::time::Duration, work: impl AsyncFn(&Core) + 'static) {
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            work(&core).await;
        }
    });
}

/// Handles interface changes of links as the kernel reports them.
fn follow_interfaces(core: &Rc<Core>, watch: NetlinkWatch) -> Result<(), Refusal> {
    let refuse = |e: std::io::Error| Refusal::new(format!("{NO_NETLINK}: {e}"), "");
    core.hears_of_namespaces(watch.everywhere);
    let mut all_news = watch.listen().map_err(refuse)?;
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        while let Some(news) = all_news.recv().await {
            let mut concerned = AffectedLinks::none();
            core.note(&news, &mut concerned);
            if concerned.is_none() {
                continue;
            }
            // Packets for an address arrive as soon as it is configured, so do not wait.
            if news
                .iter()
                .any(|news| matches!(news, InterfaceEvent::Address(_)))
            {
                core.follow_addresses(&concerned).await;
            }
            // Changes come in bursts; handle each burst once.
            tokio::time::sleep(SETTLE).await;
            while let Ok(news) = all_news.try_recv() {
                core.note(&news, &mut concerned);
            }
            core.interfaces_changed(&concerned).await;
        }
    });
    Ok(())
}

fn handle_engine_event(core: &Rc<Core>, event: EngineEvent) {
    match event {
        EngineEvent::QueueLost { link, error } => {
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move { core.link_lost(link, &error).await });
        }
        EngineEvent::GsoOff { host, error } => {
            core.hub()
                .announce(host_event(Some(host), "gso-off", error.to_string()));
            tracing::warn!(%host, %error, "UDP GSO is refused on the way to {host} and not used for it: {error}");
        }
        EngineEvent::TunnelGso { link, host, works } => {
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move { core.tunnel_gso(link, host, works).await });
        }
        EngineEvent::Unreachable(refusals) => {
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move { core.host_unreachable(&refusals).await });
        }
        EngineEvent::NotFromUnderlay {
            link,
            src,
            interface,
        } => {
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move {
                core.tell_not_from_underlay(link, src, interface).await;
            });
        }
        EngineEvent::SocketLost { port, error } => {
            let detail = format!("port {port}: {error}");
            core.hub().announce(host_event(None, "socket-lost", detail));
            tracing::error!(port, %error, "a receiving socket of port {port} broke: {error}");
        }
        EngineEvent::WorkerLost { worker, error } => {
            let detail = format!("worker {worker}: {error}");
            core.hub().announce(host_event(None, "worker-lost", detail));
            tracing::error!(worker, %error, "worker {worker} stopped: {error}; restart the daemon");
        }
    }
}

impl RequestHandler for Core {
    fn answer(&self, request: Request) -> ReplyFuture<'_> {
        fn json<T: serde::Serialize>(value: T) -> Result<ReplyParameters, CallFailure> {
            let value = serde_json::to_value(value);
            Ok(value.expect("replies have a form in JSON").into())
        }
        async fn listed<T: serde::Serialize>(
            name: &str,
            items: &[T],
        ) -> Result<ReplyParameters, CallFailure> {
            Ok(ReplyParameters::Json(yielding::list(name, items).await))
        }
        Box::pin(async move {
            match request {
                Request::Apply { changes } => {
                    let plan = self.apply(changes).await?;
                    let summary = plan.to_string();
                    let told = plan::told(&plan.into_steps());
                    tracing::info!(summary, "changed: {told}");
                    json(ApplyReply { summary })
                }
                Request::ListLinks { name } => {
                    listed("links", &self.links(name).await?.links).await
                }
                Request::ListRoutes { dev } => {
                    listed("routes", &self.routes(dev).await?.routes).await
                }
                Request::ListFdb { dev } => listed("fdb", &self.list_fdb(dev).await?.fdb).await,
                Request::FlushFdb { dev } => json(self.flush_fdb(dev).await?),
                Request::ListEndpoints { dev } => {
                    listed("endpoints", &self.endpoints(dev).await?.endpoints).await
                }
                Request::ListPolicies { dev } => {
                    listed("policies", &self.list_policies(dev).await?.policies).await
                }
                Request::ListNats { dev } => listed("nats", &self.list_nats(dev).await?.nats).await,
                Request::ListServices { dev } => {
                    listed("services", &self.list_services(dev).await?.services).await
                }
                Request::ListClasses { dev } => {
                    listed("classes", &self.list_classes(dev).await?.classes).await
                }
                Request::ListOptions => listed("options", &self.list_options().await.options).await,
                Request::ListFlows { filter, limit } => json(self.list_flows(filter, limit).await?),
                Request::FlushFlows { filter } => json(self.flush_flows(filter).await?),
                Request::Trace { packet } => json(self.trace(packet).await?),
                Request::GetHost => json(self.host().await),
                Request::FlushHosts { address } => json(self.flush_hosts(address).await?),
                Request::GetRates { flows, by_packets } => json(RatesReply {
                    rates: self.rates(flows, by_packets).await,
                }),
                Request::Monitor { .. } | Request::Capture { .. } => Err(CallFailure::ExpectedMore),
                Request::Reload { dry_run } => {
                    let done = match dry_run {
                        true => self.reload_file(true).await?,
                        false => self.reload().await?,
                    };
                    Ok(ReplyParameters::Json(reload::told(done).await))
                }
                Request::Save => {
                    let (settings, state) = (self.settings().clone(), self.state().await);
                    let saved = yielding::spawn_blocking(move || {
                        let config = serde_json::to_value(file::in_tables(&settings, &state));
                        let saved = SaveReply {
                            text: file::save(&settings, &state),
                            config: config.expect("words have a form in JSON"),
                        };
                        serde_json::to_vec(&saved).expect("words have a form in JSON")
                    });
                    Ok(ReplyParameters::Json(saved.await))
                }
            }
        })
    }

    fn follow(self: Rc<Self>, request: Request) -> ReplyStreamFuture {
        Box::pin(async move {
            match request {
                Request::Monitor { topics } => {
                    let watch = self.hub().subscribe(&topics);
                    self.begin_drops().await;
                    let replies = stream::unfold(watch, async |mut watch| {
                        let event = (*watch.next().await).clone();
                        let reply = serde_json::to_value(MonitorReply { event });
                        Some((reply.expect("events have a form in JSON"), watch))
                    });
                    Ok(replies.boxed_local())
                }
                Request::Capture { capture } => self.capture(capture).await,
                Request::ListFlows { filter, limit } => self.stream_flows(filter, limit).await,
                _ => Err(CallFailure::MethodNotFound("it has one reply".into())),
            }
        })
    }
}
