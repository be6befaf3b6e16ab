//! The serving half of the control socket: Varlink over a Unix stream socket.
//!
//! Each client has a task, a bounded message, and a time by which it must have sent or taken one,
//! so a slow or broken client costs nobody else anything; what all of them may take together is bounded
//! by `admission`. The framing is written here because the Varlink crate's server awaits each reply's
//! delivery before it reads from any other client.

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

/// A client that says nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(300);
/// A client that is in the middle of a message, or does not take a reply, is hung up on after this.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while others wait for the room that it takes.
const STALL: Duration = Duration::from_secs(1);

/// What a request leads to.
pub type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<ReplyParameters, CallFailure>> + 'a>>;

/// What is answered.
#[derive(Debug)]
pub enum ReplyParameters {
    /// Something short.
    Value(Value),
    /// An object in JSON that was written in steps, because it may be long.
    Json(Vec<u8>),
}

impl From<Value> for ReplyParameters {
    fn from(value: Value) -> Self {
        ReplyParameters::Value(value)
    }
}

/// Replies of a call that has many; dropped when the client hangs up.
pub type ReplyStream = LocalBoxStream<'static, Value>;

/// What a request that has many replies leads to.
pub type ReplyStreamFuture = LocalBoxFuture<'static, Result<ReplyStream, CallFailure>>;

/// Whoever answers requests.
pub trait RequestHandler {
    /// Answers one request; runs to its end even if the client hangs up meanwhile.
    fn answer(&self, request: Request) -> ReplyFuture<'_>;

    /// Answers a request that has many replies.
    fn follow(self: Rc<Self>, request: Request) -> ReplyStreamFuture;
}

/// The control socket's listening end; the file is removed when it is dropped.
#[derive(Debug)]
pub struct ControlListener(SocketFile);

/// What the socket is called, and its key in `[daemon]`.
const NAMES: (&str, &str) = ("control socket", "socket");

/// Sees to it that nobody listens at `path`.
///
/// # Errors
/// Somebody does, or something else than a socket is there.
pub fn ensure_free(path: &Path) -> Result<(), Refusal> {
    unix::ensure_free(path, NAMES.0, NAMES.1)
}

impl ControlListener {
    /// Listens at `path`, mode 0660, in place of a socket that nobody answers at.
    ///
    /// # Errors
    /// As [`ensure_free`]; or the directory is missing or not writable.
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
            // So much takes a while.
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
                // What is there already is made in turns; what is yet to happen nobody waits for.
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
        // Whoever has sent a thousand calls ahead waits for its turn like all others.
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

/// What a client does next, if it does it in time.
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

/// Sends replies until there are no more of them, and gives the last one; `None` when the client has hung up. A client that
/// does not take them holds up nobody but itself: whoever makes them has a bound.
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
                // What the client says meanwhile is for later.
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

/// A call as it is understood.
enum ParsedCall {
    /// What every Varlink service knows of itself.
    Known(Value),
    /// The daemon's business.
    Request(Request),
}

/// A call, and how it is to be answered.
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

/// All messages that a client sends until it hangs up, as the server takes them; for tests and fuzzing.
///
/// # Errors
/// The last one does not end, or is too long.
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

/// A reply with these parameters.
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
