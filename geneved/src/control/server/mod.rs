//! The serving half of the control socket: Varlink over a Unix stream socket.
//!
//! Each client has a task, a bounded message, and a time by which it must have sent or taken one,
//! so a slow or broken client costs nobody else anything; what all of them may take together is bounded
//! by `admission`. The framing is written here because the Varlink crate's server awaits each reply's
//! delivery before it reads from any other client.

mod admission;
mod received;

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

pub(super) use self::admission::Admission;
use self::admission::{OWN, Place};
use self::received::Received;
use super::protocol::{
    Call, DESCRIPTION, Failure, INTERFACE, Reply, Request, SERVICE_INTERFACE, Streaming,
};
use super::steps;
use crate::net::unix::{self, SocketFile};
use crate::refusal::Refusal;

/// A client that says nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(300);
/// A client that is in the middle of a message, or does not take a reply, is hung up on after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while others wait for the room that it takes.
const STALL: Duration = Duration::from_secs(1);

/// What a request leads to.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Parameters, Failure>> + 'a>>;

/// What is answered.
#[derive(Debug)]
pub enum Parameters {
    /// Something short.
    Value(Value),
    /// An object in JSON that was written in steps, because it may be long.
    Json(Vec<u8>),
}

impl From<Value> for Parameters {
    fn from(value: Value) -> Self {
        Parameters::Value(value)
    }
}

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
        self.serve_within(Admission::default(), service).await;
    }

    pub(super) async fn serve_within(&self, admission: Admission, service: Rc<dyn Service>) {
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
    service: &Rc<dyn Service>,
    admission: &Admission,
    place: &Place,
) -> io::Result<()> {
    let mut received = Received::default();
    loop {
        let Some(message) = received.message(stream, admission).await? else {
            return Ok(());
        };
        let Understood {
            oneway,
            more,
            asked,
        } = match message.len() {
            // So much takes a while.
            OWN.. => steps::apart(move || understand(&message)).await?,
            _ => understand(&message)?,
        };
        let making = match &asked {
            Ok(Asked::Request(request)) if request.lists() => admission.make(place).await,
            _ => None,
        };
        let bytes = match asked {
            Ok(Asked::Known(value)) => encode(&done(value)),
            Ok(Asked::Request(request)) if more && request.streaming() != Streaming::Never => {
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
            Ok(Asked::Request(request)) if request.streaming() == Streaming::Always => {
                encode(&refusal(Failure::ExpectedMore))
            }
            Ok(Asked::Request(request)) => match service.answer(request).await {
                Ok(Parameters::Value(value)) => encode(&done(value)),
                Ok(Parameters::Json(text)) => framed(text),
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

/// Sends a reply. A client that takes nothing for [`PATIENCE`], or for [`STALL`] while others wait for its room, is hung up on.
async fn write(stream: &mut UnixStream, mut bytes: &[u8], admission: &Admission) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = progress(admission, stream.write(bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// What a client does next, if it does it in time.
async fn progress(
    admission: &Admission,
    step: impl Future<Output = io::Result<usize>>,
) -> io::Result<usize> {
    let mut step = std::pin::pin!(step);
    let give_up = Instant::now() + PATIENCE;
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
    received: &mut Received,
    mut replies: Replies,
    turns: Option<(&Admission, &Place)>,
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
enum Asked {
    /// What every Varlink service knows of itself.
    Known(Value),
    /// The daemon's business.
    Request(Request),
}

/// A call, and how it is to be answered.
struct Understood {
    oneway: bool,
    more: bool,
    asked: Result<Asked, Failure>,
}

fn understand(message: &[u8]) -> io::Result<Understood> {
    let call: Call = serde_json::from_slice(message)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Understood {
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
    let (admission, mut received) = (Admission::default(), Received::default());
    let mut all = Vec::new();
    while let Some(message) = received.message(from, &admission).await? {
        all.push(message);
    }
    Ok(all)
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
                Ok(json!({ "description": include_str!("../org.varlink.service.varlink") }))
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
            cause: _,
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
