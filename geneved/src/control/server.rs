//! The serving half of the control socket: Varlink over a Unix stream socket.
//!
//! Each client has a task, a bounded message, and a time by which it must have sent or taken one,
//! so a slow or broken client costs nobody else anything. The framing is written here because the
//! Varlink crate's server awaits each reply's delivery before it reads from any other client.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::protocol::{
    Call, DESCRIPTION, Failure, INTERFACE, MAX_MESSAGE, Reply, Request, SERVICE_INTERFACE,
};
use crate::config::state::Refusal;
use crate::net::unix::{self, SocketFile};

/// Clients beyond these are told that the daemon is busy.
const MAX_CLIENTS: usize = 512;
/// A client that says nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(300);
/// A client that is in the middle of a message, or does not take a reply, is hung up on after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a request leads to.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, Failure>> + 'a>>;

/// Replies of a call that has many; dropped when the client hangs up.
pub type Replies = LocalBoxStream<'static, Value>;

/// What a request that has many replies leads to.
pub type Following = LocalBoxFuture<'static, Result<Replies, Failure>>;

/// Whoever answers requests.
pub trait Service {
    /// Answers one request; runs to its end even if the client hangs up meanwhile.
    fn answer(&self, request: Request) -> Answer<'_>;

    /// Answers a request that has many replies.
    fn follow(self: Rc<Self>, request: Request) -> Following;
}

/// The control socket's listening end; the file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener(SocketFile);

/// What the socket is called, and its key in `[daemon]`.
const NAMES: (&str, &str) = ("control socket", "socket");

/// Sees to it that nobody listens at `path`.
///
/// # Errors
/// Somebody does, or something else than a socket is there.
pub fn ensure_free(path: &Path) -> Result<(), Refusal> {
    unix::ensure_free(path, NAMES.0, NAMES.1)
}

impl Listener {
    /// Listens at `path`, mode 0660, in place of a socket that nobody answers at.
    ///
    /// # Errors
    /// As [`ensure_free`]; or the directory is missing or not writable.
    pub fn bind(path: &Path) -> Result<Self, Refusal> {
        SocketFile::bind(path, NAMES.0, NAMES.1).map(Listener)
    }

    /// Serves clients until the future is dropped.
    pub async fn serve(&self, service: Rc<dyn Service>) {
        let places = Rc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let mut stream = match self.0.listener().accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control client: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Ok(place) = Rc::clone(&places).try_acquire_owned_rc() else {
                let busy = encode(&error("Busy", json!({})));
                let _ = stream.try_write(&busy);
                continue;
            };
            let service = Rc::clone(&service);
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(&mut stream, &service).await {
                    tracing::debug!(%error, "hung up on a control client");
                }
                drop(place);
            });
        }
    }
}

/// A counted place among the clients.
struct Place(Rc<Semaphore>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

trait TryAcquireRc {
    fn try_acquire_owned_rc(self) -> Result<Place, ()>;
}

impl TryAcquireRc for Rc<Semaphore> {
    fn try_acquire_owned_rc(self) -> Result<Place, ()> {
        self.try_acquire().map_err(drop)?.forget();
        Ok(Place(self))
    }
}

async fn converse(stream: &mut UnixStream, service: &Rc<dyn Service>) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(message) = message(stream, &mut buffer).await? else {
            return Ok(());
        };
        let call: Call = serde_json::from_slice(&message)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let (oneway, more) = (call.oneway, call.more);
        let reply = match read(call) {
            Ok(Asked::Known(value)) => done(value),
            Ok(Asked::Request(request)) if request.streams() => {
                let following = match more && !oneway {
                    true => Rc::clone(service).follow(request).await,
                    false => Err(Failure::ExpectedMore),
                };
                match following {
                    Ok(replies) => match stream_out(stream, &mut buffer, replies).await? {
                        Some(last) => last,
                        None => return Ok(()),
                    },
                    Err(failure) => refusal(failure),
                }
            }
            Ok(Asked::Request(request)) => match service.answer(request).await {
                Ok(parameters) => done(parameters),
                Err(failure) => refusal(failure),
            },
            Err(failure) => refusal(failure),
        };
        if !oneway {
            timeout(PATIENCE, stream.write_all(&encode(&reply))).await??;
        }
    }
}

fn done(parameters: Value) -> Reply {
    Reply {
        parameters,
        ..Reply::default()
    }
}

/// Sends replies until there are no more of them, and gives the last one; `None` when the client has hung up. A client that
/// does not take them holds up nobody but itself: whoever makes them has a bound.
async fn stream_out(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
    mut replies: Replies,
) -> io::Result<Option<Reply>> {
    let mut bytes = Vec::new();
    loop {
        let (mut from, mut to) = stream.split();
        let mut writing = std::pin::pin!(async {
            to.write_all(&bytes).await?;
            Ok::<_, io::Error>(replies.next().await)
        });
        let next = loop {
            tokio::select! {
                following = &mut writing => break following?,
                // What the client says meanwhile is for later.
                got = from.read_buf(buffer) => {
                    if got? == 0 {
                        return Ok(None);
                    }
                    if buffer.len() > MAX_MESSAGE {
                        return Err(io::Error::other("the message is too long"));
                    }
                }
            }
        };
        let Some(parameters) = next else {
            return Ok(Some(done(json!({}))));
        };
        bytes = encode(&Reply {
            parameters,
            continues: true,
            ..Reply::default()
        });
    }
}

/// The next message without its final NUL; `None` when the client has hung up between two.
async fn message(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut searched = 0;
    loop {
        if let Some(end) = buffer[searched..].iter().position(|&b| b == 0) {
            let rest = buffer.split_off(searched + end + 1);
            let mut message = std::mem::replace(buffer, rest);
            message.pop();
            return Ok(Some(message));
        }
        searched = buffer.len();
        if searched > MAX_MESSAGE {
            return Err(io::Error::other("the message is too long"));
        }
        let wait = if buffer.is_empty() { IDLE } else { PATIENCE };
        if timeout(wait, stream.read_buf(buffer)).await?? == 0 {
            return match buffer.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

/// A call as it is understood.
enum Asked {
    /// What every Varlink service knows of itself.
    Known(Value),
    /// The daemon's business.
    Request(Request),
}

fn read(call: Call) -> Result<Asked, Failure> {
    let known = match call
        .method
        .strip_prefix(SERVICE_INTERFACE)
        .and_then(|m| m.strip_prefix('.'))
    {
        Some("GetInfo") => Ok(json!({
            "vendor": "geneved",
            "product": "geneved",
            "version": env!("CARGO_PKG_VERSION"),
            "url": env!("CARGO_PKG_REPOSITORY"),
            "interfaces": [SERVICE_INTERFACE, INTERFACE],
        })),
        Some("GetInterfaceDescription") => match call.parameters["interface"].as_str() {
            Some(INTERFACE) => Ok(json!({ "description": DESCRIPTION })),
            Some(SERVICE_INTERFACE) => {
                Ok(json!({ "description": include_str!("org.varlink.service.varlink") }))
            }
            Some(other) => Err(Failure::InterfaceNotFound(other.to_owned())),
            None => Err(Failure::InvalidParameter("interface".into())),
        },
        Some(_) => Err(Failure::MethodNotFound(call.method)),
        None => return Request::from_call(call).map(Asked::Request),
    };
    known.map(Asked::Known)
}

fn refusal(failure: Failure) -> Reply {
    let (name, parameters) = match failure {
        Failure::Refused(Refusal {
            reason,
            hint,
            change,
        }) => {
            let mut parameters = json!({ "reason": reason, "hint": hint });
            if let Some(number) = change {
                parameters["change"] = json!(number);
            }
            return error("Refused", parameters);
        }
        Failure::Busy => return error("Busy", json!({})),
        Failure::ExpectedMore => ("ExpectedMore", json!({})),
        Failure::MethodNotFound(method) => ("MethodNotFound", json!({ "method": method })),
        Failure::InterfaceNotFound(name) => ("InterfaceNotFound", json!({ "interface": name })),
        Failure::InvalidParameter(what) => ("InvalidParameter", json!({ "parameter": what })),
    };
    Reply {
        parameters,
        error: Some(format!("{SERVICE_INTERFACE}.{name}")),
        continues: false,
    }
}

fn error(name: &str, parameters: Value) -> Reply {
    Reply {
        parameters,
        error: Some(format!("{INTERFACE}.{name}")),
        continues: false,
    }
}

fn encode(reply: &Reply) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(reply).expect("a reply has a form in JSON");
    bytes.push(0);
    bytes
}
