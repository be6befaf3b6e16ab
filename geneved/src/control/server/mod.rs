//! Server of the control socket: Varlink over a Unix stream socket.
//!
//! Each client has a task, a bounded message size, and a deadline for sending or taking a message, so that a slow or
//! broken client costs the others nothing; `admission` bounds what all clients together may use. The framing is
//! implemented here because the Varlink crate's server awaits the delivery of each reply before it reads from any
//! other client.

mod admission;
mod receive_buffer;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

pub(super) use self::admission::ClientAdmission;
use self::admission::{ClientSlot, RESERVED_BYTES};
use self::receive_buffer::ReceiveBuffer;
use super::protocol::{
    Call, CallFailure, DESCRIPTION, Reply, ReplyMode, Request, SERVICE_INTERFACE, VARLINK_INTERFACE,
};
use super::yielding;
use crate::net::unix::{self, SocketFile};
use crate::refusal::Refusal;

/// Timeout for a client that sends nothing.
const IDLE: Duration = Duration::from_secs(300);
/// Timeout for a client in the middle of a message, or that does not take a reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same timeout while others wait for the room that the client takes.
const STALL: Duration = Duration::from_secs(1);

/// Future of the reply to a request.
pub type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<ReplyParameters, CallFailure>> + 'a>>;

/// Parameters of a reply.
#[derive(Debug)]
pub enum ReplyParameters {
    /// A short value.
    Value(Value),
    /// A JSON object serialized in steps because it may be long.
    Json(Vec<u8>),
}

impl From<Value> for ReplyParameters {
    fn from(value: Value) -> Self {
        ReplyParameters::Value(value)
    }
}

/// Stream of the replies to one call; dropped when the client hangs up.
pub type ReplyStream = LocalBoxStream<'static, Value>;

/// Future of the reply stream of a request.
pub type ReplyStreamFuture = LocalBoxFuture<'static, Result<ReplyStream, CallFailure>>;

/// Handler of requests.
pub trait RequestHandler {
    /// Answers one request. Runs to completion even if the client hangs up meanwhile.
    fn answer(&self, request: Request) -> ReplyFuture<'_>;

    /// Answers a request with many replies.
    fn follow(self: Rc<Self>, request: Request) -> ReplyStreamFuture;
}

/// Listening control socket; removes the socket file when dropped.
#[derive(Debug)]
pub struct ControlListener(SocketFile);

/// Name of the socket in messages, and its key in `[daemon]`.
const NAMES: (&str, &str) = ("control socket", "socket");

/// Checks that nothing listens at `path`.
///
/// # Errors
/// If something does, or if a file other than a socket is there.
pub fn ensure_free(path: &Path) -> Result<(), Refusal> {
    unix::ensure_free(path, NAMES.0, NAMES.1)
}

impl ControlListener {
    /// Listens at `path` with mode 0660, replacing a stale socket.
    ///
    /// # Errors
    /// As [`ensure_free`]; also if the directory is missing or not writable.
    pub fn bind(path: &Path) -> Result<Self, Refusal> {
        SocketFile::bind(path, NAMES.0, NAMES.1).map(ControlListener)
    }

    /// Serves clients until the future is dropped.
    pub async fn serve(&self, service: Rc<dyn RequestHandler>) {
        self.serve_within(ClientAdmission::default(), service).await;
    }

    pub(super) async fn serve_within(
        &self,
        admission: ClientAdmission,
        service: Rc<dyn RequestHandler>,
    ) {
        let admission = Rc::new(admission);
        loop {
            let mut stream = match self.0.listener().accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control client: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Some(place) = admission.place(&stream) else {
                let busy = encode(&error("Busy", json!({})));
                let _ = stream.try_write(&busy);
                continue;
            };
            let (service, admission) = (Rc::clone(&service), Rc::clone(&admission));
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(&mut stream, &service, &admission, &place).await {
                    tracing::debug!(%error, "hung up on a control client");
                }
            });
        }
    }
}

async fn converse(
    stream: &mut UnixStream,
    service: &Rc<dyn RequestHandler>,
    admission: &ClientAdmission,
    place: &ClientSlot,
) -> io::Result<()> {
    let mut received = ReceiveBuffer::default();
    loop {
        let Some(message) = received.message(stream, admission).await? else {
            return Ok(());
        };
        let IncomingCall {
            oneway,
            more,
            asked,
        } = match message.len() {
            // Parsing this much takes a while.
            RESERVED_BYTES.. => yielding::spawn_blocking(move || understand(&message)).await?,
            _ => understand(&message)?,
        };
        let making = match &asked {
            Ok(ParsedCall::Request(request)) if request.lists() => admission.make(place).await,
            _ => None,
        };
        let bytes = match asked {
            Ok(ParsedCall::Known(value)) => encode(&done(value)),
            Ok(ParsedCall::Request(request)) if more && request.streaming() != ReplyMode::Never => {
                // Snapshots of existing objects are made one at a time; streams of future events need not wait.
                let turns = request.lists().then_some((admission, place));
                match Rc::clone(service).follow(request).await {
                    Ok(replies) => {
                        drop(making);
                        match stream_out(stream, &mut received, replies, turns).await? {
                            Some(last) => write(stream, &encode(&last), admission).await?,
                            None => return Ok(()),
                        }
                        continue;
                    }
                    Err(failure) => encode(&refusal(failure)),
                }
            }
            Ok(ParsedCall::Request(request)) if request.streaming() == ReplyMode::Always => {
                encode(&refusal(CallFailure::ExpectedMore))
            }
            Ok(ParsedCall::Request(request)) => match service.answer(request).await {
                Ok(ReplyParameters::Value(value)) => encode(&done(value)),
                Ok(ReplyParameters::Json(text)) => framed(text),
                Err(failure) => encode(&refusal(failure)),
            },
            Err(failure) => encode(&refusal(failure)),
        };
        if !oneway {
            let _charge = admission.reply(place, bytes.len()).await;
            drop(making);
            write(stream, &bytes, admission).await?;
        }
        // A client that pipelines a thousand calls must not starve the others.
        tokio::task::yield_now().await;
    }
}

/// Sends a reply. A client that takes nothing for [`CLIENT_TIMEOUT`], or for [`STALL`] while others wait for its room, is hung up on.
async fn write(
    stream: &mut UnixStream,
    mut bytes: &[u8],
    admission: &ClientAdmission,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = progress(admission, stream.write(bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Waits for the client's next read or write, up to its timeout.
async fn progress(
    admission: &ClientAdmission,
    step: impl Future<Output = io::Result<usize>>,
) -> io::Result<usize> {
    let mut step = std::pin::pin!(step);
    let give_up = Instant::now() + CLIENT_TIMEOUT;
    loop {
        match timeout(STALL, &mut step).await {
            Ok(done) => return done,
            Err(_) if admission.is_contended() || Instant::now() >= give_up => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(_) => {}
        }
    }
}

fn done(parameters: Value) -> Reply {
    Reply {
        parameters,
        ..Reply::default()
    }
}

/// Sends replies until the last, which it returns; `None` if the client has hung up. A client that does not take them
/// delays only itself: the producer's buffer is bounded.
async fn stream_out(
    stream: &mut UnixStream,
    received: &mut ReceiveBuffer,
    mut replies: ReplyStream,
    turns: Option<(&ClientAdmission, &ClientSlot)>,
) -> io::Result<Option<Reply>> {
    let mut bytes = Vec::new();
    loop {
        let (mut from, mut to) = stream.split();
        let now = std::mem::take(&mut bytes);
        let mut writing = std::pin::pin!(async {
            to.write_all(&now).await?;
            let _turn = match turns {
                Some((admission, place)) => admission.make(place).await,
                None => None,
            };
            Ok::<_, io::Error>(replies.next().await)
        });
        let next = loop {
            tokio::select! {
                following = &mut writing => break following?,
                // Whatever the client sends meanwhile is processed later.
                got = received.read_ahead(&mut from) => {
                    if got? == 0 {
                        return Ok(None);
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

/// A parsed call.
enum ParsedCall {
    /// Answered by the Varlink service interface itself.
    Known(Value),
    /// A request for the daemon.
    Request(Request),
}

/// A parsed call, and how to answer it.
struct IncomingCall {
    oneway: bool,
    more: bool,
    asked: Result<ParsedCall, CallFailure>,
}

fn understand(message: &[u8]) -> io::Result<IncomingCall> {
    let call: Call = serde_json::from_slice(message)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(IncomingCall {
        oneway: call.oneway,
        more: call.more && !call.oneway,
        asked: read(call),
    })
}

/// Reads all messages that a client sends until it hangs up, as the server does; for tests and fuzzing.
///
/// # Errors
/// If the last one is incomplete or too long.
pub async fn messages(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<Bytes>> {
    let (admission, mut received) = (ClientAdmission::default(), ReceiveBuffer::default());
    let mut all = Vec::new();
    while let Some(message) = received.message(from, &admission).await? {
        all.push(message);
    }
    Ok(all)
}

fn read(call: Call) -> Result<ParsedCall, CallFailure> {
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
            "interfaces": [SERVICE_INTERFACE, VARLINK_INTERFACE],
        })),
        Some("GetInterfaceDescription") => match call.parameters["interface"].as_str() {
            Some(VARLINK_INTERFACE) => Ok(json!({ "description": DESCRIPTION })),
            Some(SERVICE_INTERFACE) => {
                Ok(json!({ "description": include_str!("../org.varlink.service.varlink") }))
            }
            Some(other) => Err(CallFailure::InterfaceNotFound(other.to_owned())),
            None => Err(CallFailure::InvalidParameter("interface".into())),
        },
        Some(_) => Err(CallFailure::MethodNotFound(call.method)),
        None => return Request::from_call(call).map(ParsedCall::Request),
    };
    known.map(ParsedCall::Known)
}

fn refusal(failure: CallFailure) -> Reply {
    let (name, parameters) = match failure {
        CallFailure::Refused(Refusal {
            reason,
            hint,
            change,
            cause: _,
        }) => {
            let mut parameters = json!({ "reason": reason, "hint": hint });
            if let Some(number) = change {
                parameters["change"] = json!(number);
            }
            return error("Refused", parameters);
        }
        CallFailure::Busy => return error("Busy", json!({})),
        CallFailure::ExpectedMore => ("ExpectedMore", json!({})),
        CallFailure::MethodNotFound(method) => ("MethodNotFound", json!({ "method": method })),
        CallFailure::InterfaceNotFound(name) => ("InterfaceNotFound", json!({ "interface": name })),
        CallFailure::InvalidParameter(what) => ("InvalidParameter", json!({ "parameter": what })),
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
        error: Some(format!("{VARLINK_INTERFACE}.{name}")),
        continues: false,
    }
}

/// Frames a reply with these parameters.
fn framed(mut parameters: Vec<u8>) -> Vec<u8> {
    parameters.splice(0..0, *b"{\"parameters\":");
    parameters.extend_from_slice(b"}\0");
    parameters
}

fn encode(reply: &Reply) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(reply).expect("a reply has a form in JSON");
    bytes.push(0);
    bytes
}
