//! Starting the workers.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Engine, EngineEvent, IoBackend, IoChoice, StartError, WorkerHandle};
use crate::io::backend::PacketIo;
use crate::io::buffer_pool::BufferPool;
use crate::io::counters::WorkerCounters;
use crate::io::host_features::{self, HostFeature};
use crate::io::privilege::give_up_capabilities;
use crate::io::progress::WorkerProgress;
use crate::io::syscalls::Syscalls;
use crate::io::time_slice;
use crate::io::tunnel_gso::{TunnelDevice, TunnelGso};
use crate::io::unknown_vnis::UnknownVnis;
use crate::io::uring::Uring;
use crate::io::worker::{Worker, WorkerConfig};

impl Engine {
    pub(super) fn spawn(
        &self,
        number: usize,
        uso: bool,
        tunnel: Option<TunnelGso>,
    ) -> io::Result<WorkerHandle> {
        let (commands, inbox) = mpsc::channel();
        let bell = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        self.shared.neighbor_waker.add(Arc::clone(&bell));
        let nobody = Arc::new(WorkerCounters::default());
        let unknown_vnis = Arc::new(UnknownVnis::default());
        let progress = Arc::new(WorkerProgress::default());
        let own = Arc::clone(&progress);
        let worker_config = WorkerConfig {
            shared: Arc::clone(&self.shared),
            commands: inbox,
            bell: Arc::clone(&bell),
            unmatched: Arc::clone(&nobody),
            unknown_vnis: Arc::clone(&unknown_vnis),
            progress: Arc::clone(&progress),
            uso,
            tunnel,
        };
        let events = self.shared.events.clone();
        let backend = self.report.backend;
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                own.set_thread();
                time_slice::set_slice(false);
                // The ring belongs to the thread that creates it, hence here.
                let ended = match backend {
                    IoBackend::IoUring => run_worker(
                        Worker::new(worker_config, |tun: &BufferPool, udp: &BufferPool, bell| {
                            Uring::new(tun, udp, bell)
                        }),
                        &ready,
                    ),
                    IoBackend::Syscalls => run_worker(
                        Worker::new(worker_config, |tun: &BufferPool, udp: &BufferPool, bell| {
                            Syscalls::new(tun, udp, bell)
                        }),
                        &ready,
                    ),
                };
                if let Err(error) = ended {
                    let _ = events.send(EngineEvent::WorkerLost {
                        worker: number,
                        error,
                    });
                }
            })?;
        started
            .recv()
            .map_err(|_| io::Error::other("the worker ended at once"))??;
        Ok(WorkerHandle {
            commands,
            bell,
            thread: Some(thread),
            unmatched: nobody,
            unknown_vnis,
            progress,
            liveness: Mutex::default(),
        })
    }

    /// Returns the queues of the tunnel GSO device, one for each worker, and records in the report whether there is
    /// one.
    pub(super) fn tunnel_gso(&mut self, device: Result<TunnelDevice, String>) -> Vec<TunnelGso> {
        let outcome = match &device {
            Ok(_) => "TCP super-packets over IPv4 are cut by the kernel or the NIC, where it forwards them".to_owned(),
            Err(why) => format!("{why}; geneved cuts super-packets itself"),
        };
        if let Some(feature) = self
            .report
            .features
            .iter_mut()
            .find(|f| f.kind == HostFeature::TunnelGso)
        {
            feature.available = device.is_ok();
            feature.detail = outcome;
        }
        device.map_or_else(|_| Vec::new(), |device| device.into_workers().collect())
    }
}

/// Runs a worker and reports whether it could be started.
fn run_worker<B: PacketIo>(
    worker: io::Result<Worker<B>>,
    ready: &Sender<io::Result<()>>,
) -> io::Result<()> {
    match worker {
        Ok(worker) => {
            // A worker that is compromised by a packet has no privileges: everything it needs is open by now.
            give_up_capabilities();
            let _ = ready.send(Ok(()));
            worker.run()
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

/// Chooses the backend and returns the reason for the choice.
pub(super) fn choose(choice: IoChoice) -> Result<(IoBackend, String), StartError> {
    match (choice, host_features::uring()) {
        (IoChoice::Syscalls, _) => {
            Ok((IoBackend::Syscalls, "the configuration asks for it".into()))
        }
        (IoChoice::IoUring, Ok(())) => {
            Ok((IoBackend::IoUring, "the configuration asks for it".into()))
        }
        (IoChoice::IoUring, Err(error)) => Err(StartError::Uring(error)),
        (IoChoice::Auto, Ok(())) => Ok((IoBackend::IoUring, "this host allows it".into())),
        (IoChoice::Auto, Err(error)) => Ok((IoBackend::Syscalls, error.to_string())),
    }
}
